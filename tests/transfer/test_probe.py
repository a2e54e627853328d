"""The probe: features once, a classifier on them, and that very one in the model's head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgexfer.core.errors import ModelError, RecipeError
from edgexfer.models.create import create_model
from edgexfer.models.store import load_model
from edgexfer.recipe import DataSection, ModelSection
from edgexfer.training import checkpoint
from edgexfer.training.evaluate import predict_logits
from edgexfer.training.stage import images_of, open_data
from edgexfer.transfer import probe
from edgexfer.transfer.finetune import finetune
from edgexfer.transfer.heads import Fitted, Form, fit_head
from tests.transfer.tiny import TRAIN, from_weights, moved

pytestmark = pytest.mark.torch

Float = np.ndarray[Any, np.dtype[np.float64]]


@pytest.mark.parametrize("head", ["logistic", "svm", "mlp"])
def test_the_model_answers_as_the_classifier_does(
    tmp_path: Path, data: DataSection, weights: Path, head: Fitted
) -> None:
    info = finetune(data, from_weights(weights, "probe", TRAIN, head=head), tmp_path / "run")
    model, card = load_model(tmp_path / "run")
    dataset = open_data(data)
    images = {s: images_of(data, dataset, s, card.preprocess) for s in ("train", "val")}
    # The features by another way: the model without its head.
    bare, _ = load_model(tmp_path / "run")
    bare.fc = torch.nn.Identity()
    features = {
        s: predict_logits(bare, card.preprocess, i).astype(np.float64) for s, i in images.items()
    }
    found = info.result["probe"]
    train = images["train"].labels.numpy()
    wanted = fit_head(features["train"], train, Form(head), found["c"])(features["val"])
    logits = predict_logits(model, card.preprocess, images["val"])
    np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-3)
    assert found["val_top1_pct"][f"{found['c']:g}"] == info.result["fit"]["val_top1_pct"]
    assert info.result["test"]["top1_pct"] >= 60
    before, after = load_file(weights), model.state_dict()
    rest = {name for name in before if not name.startswith("fc.")}
    assert all(before[name].equal(after[name]) for name in rest)
    own = ("fc.hidden.weight", "fc.hidden.bias", "fc.out.weight", "fc.out.bias")
    assert set(after) - rest == set(own if head == "mlp" else ("fc.weight", "fc.bias"))


def test_features_are_computed_once_and_a_killed_probe_goes_on_with_them(
    tmp_path: Path, data: DataSection, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = from_weights(weights, "probe")
    whole = finetune(data, section, tmp_path / "whole")

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(probe, "fit_tasks", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune(data, section, tmp_path / "run")
    assert (tmp_path / "run" / checkpoint.FOLDER / "features.safetensors").is_file()
    with monkeypatch.context() as patch:
        patch.setattr(probe, "predict_logits", killed)
        again = finetune(data, section, tmp_path / "run")
    assert again.result["weights_sha256"] == whole.result["weights_sha256"]
    assert not (tmp_path / "run" / checkpoint.FOLDER).exists()


def test_a_distilled_model_has_both_heads_fitted(tmp_path: Path, data: DataSection) -> None:
    options = {"patch_size": 8, "depth": 2}
    name = "deit_tiny_distilled_patch16_224"
    model, _ = create_model(name, 5, options={"img_size": 16, **options}, seed=1)
    place = tmp_path / "deit.safetensors"
    save_file(model.state_dict(), place)
    asked = ModelSection(name, size=16, weights=str(place), options=options)
    section = replace(from_weights(place, "probe", TRAIN, c=1.0), model=asked)
    info = finetune(data, section, tmp_path / "run")
    heads = ("head.weight", "head.bias", "head_dist.weight", "head_dist.bias")
    assert moved(tmp_path / "run", place) == set(heads)
    # What was fitted is what the model says, though it averages two heads.
    net, card = load_model(tmp_path / "run")
    val = images_of(data, open_data(data), "val", card.preprocess)
    right = predict_logits(net, card.preprocess, val).argmax(1) == val.labels.numpy()
    assert 100 * right.mean() == pytest.approx(info.result["fit"]["val_top1_pct"])
    assert info.result["test"]["top1_pct"] >= 60


def test_a_head_can_still_be_trained_by_steps(
    tmp_path: Path, data: DataSection, weights: Path
) -> None:
    info = finetune(data, from_weights(weights, "probe", TRAIN, head="trained"), tmp_path / "run")
    assert moved(tmp_path / "run", weights) == {"fc.weight", "fc.bias"}
    assert info.result["fit"]["steps"] == 4 and "probe" not in info.result


@pytest.mark.parametrize(
    ("model", "options", "kind", "what", "fix"),
    [
        ("resnet8", {"head": "trained", "c": 1.0}, RecipeError, "c is set", "leave out c"),
        ("resnet8", {"c": 0}, RecipeError, "strategy probe: c is 0", ""),
        ("resnet8", {"head": "net"}, RecipeError, "'logistic', 'svm', 'mlp' or 'trained'", ""),
        ("resnet8", {"head": "mpl"}, RecipeError, "head is 'mpl'", "head: did you mean 'mlp'?"),
        ("resnet8", {"hidden": 8}, RecipeError, "hidden is set, but head log", "head=mlp"),
        ("resnet8", {"head": "mlp", "hidden": 0}, RecipeError, "strategy probe: hidden is 0", ""),
        ("resnetv2_18", {}, ModelError, "is not a linear layer", "head=trained"),
    ],
)
def test_what_cannot_be_probed_is_refused(
    tmp_path: Path,
    data: DataSection,
    weights: Path,
    model: str,
    options: dict[str, Any],
    kind: type[Exception],
    what: str,
    fix: str,
) -> None:
    section = from_weights(weights, "probe", TRAIN, **options)
    if model != "resnet8":
        net, _ = create_model(model, 5)
        place = tmp_path / "net.safetensors"
        save_file(net.state_dict(), place)
        section = replace(section, model=ModelSection(model, size=32, weights=str(place)))
    with pytest.raises(kind) as caught:
        finetune(data, section, tmp_path / "run")
    error: Any = caught.value
    assert what in error.what
    assert fix in error.fix


def test_the_weights_file_is_left_alone(tmp_path: Path, data: DataSection, weights: Path) -> None:
    before = load_file(weights)
    finetune(data, from_weights(weights, "probe"), tmp_path / "run")
    assert all(t.equal(load_file(weights)[n]) for n, t in before.items())
