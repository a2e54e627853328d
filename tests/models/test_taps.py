"""Taps: what they catch, and that they leave nothing behind."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgexfer.core.errors import ModelError
from edgexfer.models.create import create_model
from edgexfer.models.taps import Taps, probe

pytestmark = pytest.mark.torch


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model() -> nn.Module:
    return create_model("resnet8", 3)[0]


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) for m in model.modules())


def test_the_map_of_the_last_stage_is_what_the_head_sees(model: nn.Module, images: Tensor) -> None:
    taps = Taps(model, probe(model, ["layer1", "layer3"], images[:1]), training=True)
    logits = model.eval()(images)
    maps = taps.take()
    assert maps["layer1"].shape == (2, 16, 16, 16)
    pooled = maps["layer3"].mean((2, 3))
    torch.testing.assert_close(F.linear(pooled, *model.get_submodule("fc").parameters()), logits)
    with pytest.raises(RuntimeError, match="layer1, layer3: did not run since the last take"):
        taps.take()
    model(images)
    taps.close()
    assert hooks(model) == 0
    with pytest.raises(RuntimeError, match="layer1, layer3"):
        taps.take()


def test_probing_leaves_a_model_as_it_was(model: nn.Module, images: Tensor) -> None:
    model.train()
    model.get_submodule("layer1").eval()
    modes = {name: m.training for name, m in model.named_modules()}
    state = {name: t.clone() for name, t in model.state_dict().items()}
    assert probe(model, ["layer2"], images)["layer2"].shape == (32, 8, 8)
    assert {name: m.training for name, m in model.named_modules()} == modes
    assert all(t.equal(state[name]) for name, t in model.state_dict().items())
    assert hooks(model) == 0


def test_a_tap_hears_one_kind_of_run_only(model: nn.Module, images: Tensor) -> None:
    model.eval()
    layers = probe(model, ["layer3"], images)
    student, teacher = Taps(model, layers, training=True), Taps(model, layers, training=False)
    model(images)
    with torch.no_grad():
        model(2 * images)
    trained, asked = student.take()["layer3"], teacher.take()["layer3"]
    assert trained.requires_grad and not asked.requires_grad
    assert not trained.equal(asked)


def test_a_deep_copy_is_heard_and_keeps_nothing(model: nn.Module, images: Tensor) -> None:
    taps = Taps(model, probe(model, ["layer3"], images), training=True)
    model(images)
    twin = copy.deepcopy(model)
    twin(images)
    torch.autograd.backward(taps.take()["layer3"].sum())
    assert twin.get_parameter("conv1.weight").grad is not None
    assert model.get_parameter("conv1.weight").grad is None
    taps.close()
    # The copy's hooks live as long as the copy; they hold no more than its last maps.
    model(images)
    with pytest.raises(RuntimeError):
        taps.take()


class Overwriting(nn.Module):
    """Computes the ReLU in its normalisation's memory, as many models do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.conv(x))


def test_a_map_that_the_model_overwrites_is_caught_before(images: Tensor) -> None:
    model = Overwriting()
    layers = probe(model, ["conv"], images)
    assert layers["conv"].overwritten
    taps = Taps(model, layers, training=True)
    model(images)
    caught = taps.take()["conv"]
    assert caught.min() < 0
    torch.testing.assert_close(caught, F.conv2d(images, model.conv.weight, model.conv.bias))


def test_tokens_are_laid_out_as_they_lie_in_the_image() -> None:
    model = create_model("deit_tiny_patch16_224", 3, options={"img_size": 64})[0].eval()
    images = torch.randn(1, 3, 64, 64)
    layers = probe(model, ["patch_embed", "blocks.0"], images)
    assert layers["blocks.0"].shape == (192, 4, 4) and layers["blocks.0"].prefix == 1
    taps = Taps(model, {"blocks.0": layers["blocks.0"]}, training=False)
    heard: list[Tensor] = []
    model.get_submodule("blocks.0").register_forward_hook(lambda *call: heard.append(call[-1]))
    with torch.no_grad():
        model(images)
    # Row 2, column 3 is the class token and eleven others further on.
    assert taps.take()["blocks.0"][0, :, 2, 3].equal(heard[0][0, 1 + 2 * 4 + 3])


def test_a_map_with_its_channels_last_is_turned(images: Tensor) -> None:
    model = create_model("swin_tiny_patch4_window7_224", 3, options={"img_size": 64})[0].eval()
    layers = probe(model, ["layers.1"], torch.randn(1, 3, 64, 64))
    assert layers["layers.1"].shape == (192, 8, 8)
    taps = Taps(model, layers, training=False)
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    assert taps.take()["layers.1"].shape == (1, 192, 8, 8)


class Odd(nn.Module):
    """Layers that put out no maps."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = nn.MaxPool2d(2, return_indices=True)
        self.unused = nn.Conv2d(3, 4, 1)
        self.tokens = nn.Flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pair(x)[0]
        tokens: Tensor = self.tokens(pooled)
        return tokens


@pytest.mark.parametrize(
    ("name", "seen"),
    [("pair", "a tuple"), ("unused", "nothing"), ("tokens", "a tensor (B, 3, 64)")],
)
def test_what_is_no_map_is_refused(images: Tensor, name: str, seen: str) -> None:
    model = Odd()
    with pytest.raises(ModelError) as caught:
        probe(model, [name], images)
    assert caught.value.what == f"Odd: layer {name} puts out {seen}, which is not a feature map"
    assert caught.value.fix == "choose another layer; stages: none is known"
    assert hooks(model) == 0
