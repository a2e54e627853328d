"""Strategies that move few weights: lora, adapter, bitfit, through a short training each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from edgexfer.core.errors import ModelError
from edgexfer.models.create import create_model
from edgexfer.models.store import load_model
from edgexfer.recipe import DataSection, ModelSection
from edgexfer.transfer.finetune import finetune
from edgexfer.transfer.plan import get_strategy
from tests.transfer.tiny import TRAIN, from_weights, moved, subject

pytestmark = pytest.mark.torch

HEAD = {"fc.weight", "fc.bias"}
VIT = ModelSection("vit_tiny_patch16_224", size=16, options={"patch_size": 8, "depth": 2})


def names(weights: Path, *endings: str) -> set[str]:
    return {n for n in load_file(weights) if n.endswith(endings)}


@pytest.mark.parametrize(
    ("strategy", "options", "expected"),
    [
        ("lora", {}, ("conv1.weight", "conv2.weight", "downsample.0.weight")),
        ("lora", {"targets": ["pointwise"], "rank": 2}, ("downsample.0.weight",)),
        ("adapter", {"norms": False}, ("conv1.weight", "conv2.weight", "downsample.0.weight")),
        ("bitfit", {}, ("bn1.weight", "bn2.weight", "downsample.1.weight", "bias")),
    ],
)
def test_what_is_meant_moves_and_nothing_else(
    tmp_path: Path,
    data: DataSection,
    weights: Path,
    strategy: str,
    options: dict[str, Any],
    expected: tuple[str, ...],
) -> None:
    finetune(data, from_weights(weights, strategy, **options), tmp_path / "run")
    assert moved(tmp_path / "run", weights) == HEAD | names(weights, *expected)
    model, card = load_model(tmp_path / "run")
    plain, _ = create_model("resnet8", 3)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert card.parameters == sum(p.numel() for p in plain.parameters())


def test_adapters_train_with_the_norms_and_their_statistics(
    tmp_path: Path, data: DataSection, weights: Path
) -> None:
    finetune(data, from_weights(weights, "adapter"), tmp_path / "run")
    assert moved(tmp_path / "run", weights) == set(load_file(weights))


@pytest.mark.parametrize("strategy", ["lora", "adapter", "bitfit"])
def test_a_transformer_is_served_too(tmp_path: Path, data: DataSection, strategy: str) -> None:
    model, _ = create_model(VIT.name, 5, options={"img_size": 16, **VIT.options}, seed=3)
    place = tmp_path / "vit.safetensors"
    save_file(model.state_dict(), place)
    section = replace(from_weights(place, strategy), model=replace(VIT, weights=str(place)))
    info = finetune(data, section, tmp_path / "run")
    went = moved(tmp_path / "run", place)
    assert {"head.weight", "head.bias"} < went
    assert "pos_embed" not in went and "cls_token" not in went
    assert ("blocks.0.attn.qkv.weight" in went) == (strategy != "bitfit")
    assert ("blocks.0.norm1.bias" in went) == (strategy != "lora")
    assert info.result["test"]["top1_pct"] >= 50


def test_an_average_of_the_weights_is_merged_likewise(
    tmp_path: Path, data: DataSection, weights: Path
) -> None:
    section = from_weights(weights, "lora", replace(TRAIN, ema=0.9, patience=2))
    info = finetune(data, section, tmp_path / "run")
    assert moved(tmp_path / "run", weights) > HEAD
    assert info.result["fit"]["val_top1_pct"] is not None


def test_few_parameters_train(data: DataSection, weights: Path) -> None:
    """The point of it: of resnet8's 75 thousand a few."""
    counts = {}
    for strategy, options in (("full", {}), ("lora", {"rank": 2}), ("adapter", {}), ("bitfit", {})):
        section = from_weights(weights, strategy, TRAIN, **options)
        given = subject(section, data)
        get_strategy(section).prepare(given)
        trained = (p for p in given.built.model.parameters() if p.requires_grad)
        counts[strategy] = sum(p.numel() for p in trained)
    # By hand: 64 * 3 + 3 of the head, and two values for each channel of the norms.
    channels = 16 + 2 * 16 + 3 * 32 + 3 * 64
    assert counts["bitfit"] == 64 * 3 + 3 + 2 * channels
    assert counts["bitfit"] < counts["lora"] < counts["adapter"] < counts["full"] / 4


def test_a_layer_that_cannot_be_adapted_is_refused(
    tmp_path: Path, data: DataSection, weights: Path
) -> None:
    section = from_weights(weights, "adapter", targets=["layer1.0.bn1"])
    with pytest.raises(ModelError, match=r"strategy adapter: layer 'layer1\.0\.bn1'"):
        finetune(data, section, tmp_path / "run")
