"""What a source sees: the stages' maps pooled, the head's input, and the cache by content."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from edgexfer.advise.features import HEAD, open_source, read_features
from edgexfer.core.errors import ModelError
from edgexfer.core.model import FOLDER, WEIGHTS
from edgexfer.data.images import sample
from edgexfer.models.create import create_model, default_preprocess
from edgexfer.models.normalise import PixelModel
from edgexfer.models.store import save_model
from edgexfer.recipe import DataSection
from edgexfer.training.stage import open_data
from edgexfer.transfer.pretrain import CLASSES

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEXFER_CACHE", str(tmp_path / "cache"))


def test_features_are_those_of_the_model_run_by_hand(data: DataSection, seeing: Path) -> None:
    dataset = open_data(data)
    source = open_source(str(seeing))
    found = read_features(source, dataset, "train", 30)
    images, labels, keys = sample(dataset, "train", 30, source.preprocess)
    assert list(found.layers) == ["layer1", "layer2", "layer3", HEAD]
    assert found.keys == keys
    assert np.array_equal(found.labels, labels)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    model = source.model.eval()
    with torch.no_grad():
        logits = PixelModel(model, source.preprocess)(pixels)
        last = torch.from_numpy(found.last)
        head = model.get_submodule(source_head(model))
        assert torch.allclose(head(last), logits, atol=1e-5)
        assert found.probabilities is not None
        assert np.allclose(found.probabilities, logits.softmax(1), atol=1e-6)
    assert found.last.dtype == np.float32


def source_head(model: torch.nn.Module) -> str:
    from edgexfer.models.head import head_names

    return head_names(model)[0]


def test_features_are_kept_by_content(
    data: DataSection, seeing: Path, blind: Path, tmp_path: Path
) -> None:
    dataset = open_data(data)
    kept = tmp_path / "cache" / "features"
    first = read_features(open_source(str(seeing)), dataset, "train", 30)
    copied = Path(shutil.copytree(seeing, tmp_path / "copy"))
    again = read_features(open_source(str(copied)), dataset, "train", 30)
    assert len([p for p in kept.iterdir() if p.is_dir()]) == 1
    assert np.array_equal(first.last, again.last)
    read_features(open_source(str(blind)), dataset, "train", 30)
    read_features(open_source(str(seeing)), dataset, "train", 12)
    assert len([p for p in kept.iterdir() if p.is_dir()]) == 3


def test_a_run_its_weights_and_a_named_file_are_the_same_model(seeing: Path) -> None:
    weights = seeing / FOLDER / WEIGHTS
    named = [open_source(text) for text in (str(seeing), str(weights), f"resnet8={weights}")]
    states = [source.model.state_dict() for source in named]
    assert all(torch.equal(t, states[1][n]) for n, t in states[0].items())
    assert all(torch.equal(t, states[2][n]) for n, t in states[0].items())
    assert [source.section.weights for source in named] == [str(weights)] * 3
    assert all(source.has_head for source in named)


def test_what_was_learned_without_labels_has_no_head(tmp_path: Path) -> None:
    save_model(
        tmp_path,
        create_model("resnet8", 1)[0],
        name="resnet8",
        classes=CLASSES,
        preprocess=default_preprocess("resnet8", 16),
        origin="scratch",
        options={},
    )
    for source in (str(tmp_path), f"resnet8={tmp_path / FOLDER / WEIGHTS}"):
        assert not open_source(source).has_head


def test_a_transformer_shows_its_blocks(data: DataSection) -> None:
    from edgexfer.advise.features import Source
    from edgexfer.recipe import ModelSection

    options = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    name = "vit_tiny_patch16_224"
    model, _ = create_model(name, 3, options=options)
    fed = default_preprocess(name, 16, options)
    source = Source("vit", model, fed, ModelSection(name), has_head=False)
    found = read_features(source, open_data(data), "train", 12)
    assert {name: f.shape for name, f in found.layers.items()} == {
        "blocks.0": (12, 24),
        "blocks.1": (12, 24),
        HEAD: (12, 24),
    }
    assert found.probabilities is None


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("runs/none", "no such run or file", "name a run, MODEL=FILE or a timm model"),
        ("resnt8=x.safetensors", "no such weights file", "check the path"),
        ("resnt18", "is unknown", "resnet18"),
        ("resnet8", "no pre-trained weights of edgexfer's own", "--weights"),
    ],
)
def test_what_is_no_source_is_named(text: str, what: str, fix: str) -> None:
    with pytest.raises(ModelError, match=what) as caught:
        open_source(text)
    assert fix in caught.value.fix


def test_a_file_that_does_not_say_its_architecture(seeing: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(seeing / FOLDER / WEIGHTS, tmp_path / "w.safetensors"))
    with pytest.raises(ModelError, match="does not say its architecture") as caught:
        open_source(str(file))
    assert caught.value.fix == f"write MODEL={file}"
