"""Stages and layers by number and by name, in edgexfer's own models and in timm's."""

from __future__ import annotations

import pytest
from torch import nn

from edgexfer.core.errors import ModelError
from edgexfer.models.create import create_model
from edgexfer.models.layers import find_layer, stage_modules

pytestmark = pytest.mark.torch

STAGES = {
    "resnet8": ("layer1", "layer2", "layer3"),
    "resnet18": ("layer1", "layer2", "layer3", "layer4"),
    "mobilenetv3_small_050": ("blocks.0", "blocks.1", "blocks.3", "blocks.5"),
    "convnext_atto": ("stages.0", "stages.1", "stages.2", "stages.3"),
    "regnetx_002": ("s1", "s2", "s3", "s4"),
    "deit_tiny_patch16_224": tuple(f"blocks.{i}" for i in range(12)),
    # Whose sorting of parameters is a function and not a pattern, and whose stem has no name.
    "cait_xxs24_224": tuple(f"blocks.{i}" for i in range(24)),
}


@pytest.mark.parametrize("name", STAGES)
def test_the_stages_are_those_behind_the_stem(name: str) -> None:
    assert stage_modules(create_model(name, 3)[0]) == STAGES[name]


def test_layers_by_number_and_by_name() -> None:
    model = create_model("resnet8", 3)[0]
    found = [find_layer(model, n, "here") for n in ("1", "3", "-1", "-3", "layer2.0.conv1")]
    assert found == ["layer1", "layer3", "layer3", "layer1", "layer2.0.conv1"]


@pytest.mark.parametrize("layer", ["0", "4", "-4"])
def test_a_stage_that_does_not_exist_names_those_that_do(layer: str) -> None:
    with pytest.raises(ModelError) as caught:
        find_layer(create_model("resnet8", 3)[0], layer, "loss hint@4:4: the student")
    assert caught.value.what == (
        f"loss hint@4:4: the student: CifarResNet has 3 stages, none is {layer}"
    )
    assert caught.value.fix == (
        "stages: 1 layer1, 2 layer2, 3 layer3; or give the name of a module"
    )


def test_a_layer_that_does_not_exist_names_the_nearest() -> None:
    with pytest.raises(ModelError) as caught:
        find_layer(create_model("resnet8", 3)[0], "layr2", "here")
    assert caught.value.what == "here: CifarResNet has no layer 'layr2'"
    assert "did you mean 'layer2'" in caught.value.fix
    assert "stages: 1 layer1, 2 layer2, 3 layer3" in caught.value.fix


def test_a_model_that_does_not_say_its_stages_has_none() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
    assert stage_modules(model) == ()
    # A module's name goes before a stage's number.
    assert find_layer(model, "1", "here") == "1"
    with pytest.raises(ModelError, match="has 0 stages, none is 2") as caught:
        find_layer(model, "2", "here")
    assert "none is known" in caught.value.fix
