"""Gradual unfreezing: what moves in which epoch, and at which rate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgexfer.core.errors import RecipeError
from edgexfer.models.create import create_model
from edgexfer.models.freeze import freeze_stages
from edgexfer.models.groups import parameter_groups
from edgexfer.models.head import stages
from edgexfer.recipe import DataSection
from edgexfer.transfer.finetune import finetune
from edgexfer.transfer.plan import get_strategy
from tests.transfer.tiny import TRAIN, from_weights, moved, subject

pytestmark = pytest.mark.torch


def trainable(model: torch.nn.Module) -> set[str]:
    return {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("options", "epochs", "expected"),
    [
        # The head, then a stage every epoch: layer3, layer2, layer1, the stem.
        ({"epochs_per_stage": 1}, 6, [1, 2, 3, 4, 5, 5]),
        ({"epochs_per_stage": 2}, 9, [1, 1, 2, 2, 3, 3, 4, 4, 5]),
        # Four stages within the first half.
        ({}, 8, [1, 2, 3, 4, 5, 5, 5, 5]),
        ({}, 4, [1, 3, 5, 5]),
        ({}, 1, [1]),
    ],
)
def test_stages_thaw_from_the_head_down(
    data: DataSection,
    weights: Path,
    options: dict[str, int],
    epochs: int,
    expected: list[int],
) -> None:
    section = from_weights(weights, "gradual", replace(TRAIN, epochs=epochs), **options)
    given = subject(section, data)
    model = given.built.model
    plan = get_strategy(section).prepare(given)
    # Before the first epoch everything counts as trainable, so that the optimiser knows of it.
    assert all(p.requires_grad for p in model.parameters())
    assert plan.thaw is not None
    order = [("fc",), ("layer3",), ("layer2",), ("layer1",), ("conv1", "bn1")]
    for epoch, count in enumerate(expected):
        frozen = {id(m) for top in plan.thaw(epoch) for m in top.modules()}
        assert trainable(model) == {name for names in order[:count] for name in names}
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert (id(module) in frozen) == (name.split(".")[0] not in trainable(model))


def test_what_has_not_thawed_keeps_every_bit(
    tmp_path: Path, data: DataSection, weights: Path
) -> None:
    finetune(data, from_weights(weights, "gradual", replace(TRAIN, epochs=1)), tmp_path / "one")
    assert moved(tmp_path / "one", weights) == {"fc.weight", "fc.bias"}
    finetune(data, from_weights(weights, "gradual"), tmp_path / "two")
    assert moved(tmp_path / "two", weights) == set(load_file(weights))


def test_each_stage_has_its_rate_when_it_thaws(
    tmp_path: Path, data: DataSection, weights: Path
) -> None:
    """SGD without momentum's help: one step moves a weight by its rate times its gradient."""
    train = replace(TRAIN, epochs=2, optimizer="sgd", weight_decay=0.0, min_lr=1.0)
    ways = []
    for decay in (1.0, 0.5):
        place = tmp_path / str(decay)
        finetune(data, from_weights(weights, "gradual", replace(train, layer_decay=decay)), place)
        after = load_file(place / "model" / "weights.safetensors")
        before = load_file(weights)
        ways.append(
            {
                n: float((after[n] - before[n]).norm())
                for n in (
                    "layer3.0.conv1.weight",
                    "layer2.0.conv1.weight",
                    "layer1.0.conv1.weight",
                    "conv1.weight",
                )
            }
        )
    ratios = [half / whole for half, whole in zip(ways[1].values(), ways[0].values(), strict=True)]
    # 1/2, 1/4, 1/8 and 1/16 of the way, but for what the changed layers do to the gradients.
    assert ratios == pytest.approx([0.5, 0.25, 0.125, 0.0625], rel=0.35)


def test_the_rates_of_a_thawing_model_are_those_of_its_stages() -> None:
    model, _ = create_model("resnet8", 3)
    groups = parameter_groups(model, lr=1.0, backbone_lr=1.0, weight_decay=0.1, layer_decay=0.4)
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    for below, names in enumerate(reversed(stages(model))):
        for name in names:
            assert rates[id(model.get_parameter(name))] == pytest.approx(0.4**below)


def test_a_training_too_short_to_thaw_all_is_refused(
    tmp_path: Path, data: DataSection, weights: Path
) -> None:
    section = from_weights(weights, "gradual", epochs_per_stage=2)
    with pytest.raises(RecipeError) as caught:
        finetune(data, section, tmp_path / "run")
    assert "4 stages below the head" in caught.value.what
    assert "within 2" in caught.value.what
    assert "9 epochs or more" in caught.value.fix


def test_a_transformer_thaws_its_embeddings_last() -> None:
    model, _ = create_model("vit_tiny_patch16_224", 3, options={"img_size": 32, "depth": 2})
    for count in range(len(stages(model)), -1, -1):
        frozen = freeze_stages(model, count)
        still = {n for names in stages(model)[:count] for n in names}
        assert {n for n, p in model.named_parameters() if not p.requires_grad} == still
        assert model.pos_embed.requires_grad == (count == 0)
        for module in frozen:
            assert not any(p.requires_grad for p in module.parameters())
    assert frozen == []
