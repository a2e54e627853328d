"""The probe: features once, a linear classifier on them, and that very one in the model's head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize
from scipy.special import log_softmax

from edgexfer.core.errors import ModelError, RecipeError
from edgexfer.models.create import create_model
from edgexfer.models.store import load_model
from edgexfer.recipe import DataSection, ModelSection
from edgexfer.training import checkpoint
from edgexfer.training.evaluate import predict_logits
from edgexfer.training.stage import images_of, open_data
from edgexfer.transfer import probe
from edgexfer.transfer.finetune import finetune
from tests.transfer.tiny import TRAIN, from_weights, moved

pytestmark = pytest.mark.torch

Float = np.ndarray[Any, np.dtype[np.float64]]


def clouds(classes: int, n: int = 90) -> tuple[Float, np.ndarray[Any, np.dtype[np.int64]]]:
    """Overlapping clouds in five dimensions, each dimension on another scale; one is constant."""
    chance = np.random.default_rng(0)
    labels = np.arange(n) % classes
    features = chance.normal(size=(n, 5)) + chance.normal(size=(classes, 5))[labels]
    features[:, 4] = 3.0
    return features * [1, 10, 0.1, 100, 1] + 5, labels


@pytest.mark.parametrize("classes", [2, 3])
def test_the_logistic_head_minimises_its_formula(classes: int) -> None:
    """Against scipy: ||w||²/2 + C Σ cross entropy, of standardised features, in float64."""
    features, labels = clouds(classes)
    head = probe.fit_head(features, labels, probe.Options(), 0.5, 0)
    x = (features - features.mean(0)) / np.where(features.std(0) > 0, features.std(0), 1)

    # With two classes the one row z between them has the penalty.
    rows = classes if classes > 2 else 1

    def scores(values: Float) -> Float:
        z: Float = x @ values[: rows * 5].reshape(rows, 5).T + values[rows * 5 :]
        return z if rows > 1 else np.concatenate([-z / 2, z / 2], axis=1)

    def objective(values: Float) -> float:
        fit = -log_softmax(scores(values), axis=1)[np.arange(len(labels)), labels].sum()
        return float((values[: rows * 5] ** 2).sum() / 2 + 0.5 * fit)

    best = minimize(objective, np.zeros(rows * 6), method="BFGS", options={"gtol": 1e-7})
    wanted = log_softmax(scores(best.x), axis=1)
    found = log_softmax(features @ head.weight.T + head.bias, axis=1)
    np.testing.assert_allclose(found, wanted, atol=5e-3)
    assert head.weight.shape == (classes, 5)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_svm_tells_the_clouds_apart(classes: int) -> None:
    features, labels = clouds(classes)
    head = probe.fit_head(features, labels, probe.Options("svm"), 1.0, 0)
    logistic = probe.fit_head(features, labels, probe.Options(), 1.0, 0)
    assert head.top1_pct(features, labels) == pytest.approx(
        logistic.top1_pct(features, labels), abs=6
    )
    assert head.top1_pct(features, labels) > 75
    same = probe.fit_head(features, labels, probe.Options("svm"), 1.0, 0)
    assert same.weight.tobytes() == head.weight.tobytes()


def test_c_is_the_best_on_the_val_images_and_the_firmest_of_equals() -> None:
    features, labels = clouds(3)
    val = (features[:30], labels[:30])
    c, tried = probe.choose_c((features[30:], labels[30:]), val, probe.Options(), 0)
    assert len(tried) == 7 and tried[f"{c:g}"] == max(tried.values())
    assert c == min(float(k) for k, v in tried.items() if v == max(tried.values()))
    one = probe.fit_head(features[30:], labels[30:], probe.Options(), c, 0)
    assert one.top1_pct(*val) == tried[f"{c:g}"]


def test_without_val_images_c_cannot_be_chosen() -> None:
    features, labels = clouds(3)
    with pytest.raises(RecipeError, match="no val images to choose C by") as caught:
        probe.choose_c((features, labels), (features[:0], labels[:0]), probe.Options(), 0)
    assert "--option c=1" in caught.value.fix


@pytest.mark.parametrize("head", ["logistic", "svm"])
def test_the_model_answers_as_the_classifier_does(
    tmp_path: Path, data: DataSection, weights: Path, head: str
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
    options = probe.Options(head)  # type: ignore[arg-type]
    best = probe.fit_head(features["train"], images["train"].labels.numpy(), options, found["c"], 0)
    wanted = features["val"] @ best.weight.T + best.bias
    logits = predict_logits(model, card.preprocess, images["val"])
    np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-3)
    assert found["val_top1_pct"][f"{found['c']:g}"] == info.result["fit"]["val_top1_pct"]
    assert info.result["test"]["top1_pct"] >= 60
    assert moved(tmp_path / "run", weights) == {"fc.weight", "fc.bias"}


def test_features_are_computed_once_and_a_killed_probe_goes_on_with_them(
    tmp_path: Path, data: DataSection, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = from_weights(weights, "probe")
    whole = finetune(data, section, tmp_path / "whole")

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(probe, "fit_head", killed)
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
        ("resnet8", {"head": "mlp"}, RecipeError, "'logistic', 'svm' or 'trained'", ""),
        ("resnetv2_18", {}, ModelError, "is no linear layer", "head=trained"),
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
