"""Adapted weights: the formulas in float64, merging to the same outputs, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgexfer.core.errors import ModelError
from edgexfer.models.adapters import Beside, LowRank, attach, choose_sites, has_centre, merge
from edgexfer.models.create import create_model

pytestmark = pytest.mark.torch

VIT = ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "depth": 2})
LORA = partial(LowRank, rank=4, alpha=8.0)
MAKERS: dict[str, tuple[Callable[[Tensor], nn.Module], Callable[[Tensor], bool]]] = {
    "lora": (LORA, lambda _: True),
    "adapter": (Beside, has_centre),
}


def build(name: str) -> nn.Module:
    if name == "vit":
        return create_model(VIT[0], 3, options=VIT[1])[0]
    return create_model(name, 3)[0]


class Attending(nn.Module):
    """A layer of torch's own attention, whose weights are read from outside of their layers."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.mean(3).transpose(1, 2).repeat(1, 1, 3)[:, :, :8]
        logits: Tensor = self.fc(self.attn(tokens, tokens, tokens)[0].mean(1))
        return logits

    def get_classifier(self) -> nn.Module:
        return self.fc


@torch.no_grad()
def settled(model: nn.Module, pixels: Tensor) -> nn.Module:
    """Give batch norms the statistics of these images: with others a deep random net says 0."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(pixels)
    return model.eval()


@torch.no_grad()
def disturbed(model: nn.Module) -> None:
    """Give what was attached the values that a training might."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "parametrizations" in name and not name.endswith("original"):
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


# MobileNet has depthwise and pointwise convolutions; in a ViT the patches' kernel has no centre.
@pytest.mark.parametrize("way", ["lora", "adapter"])
@pytest.mark.parametrize("name", ["resnet8", "mobilenetv2_half", "vit", "attending"])
@torch.no_grad()
def test_merging_changes_no_output_and_leaves_no_trace(name: str, way: str) -> None:
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = settled(Attending() if name == "attending" else build(name), pixels)
    plain = {n: t.clone() for n, t in model.state_dict().items()}
    kinds = {n: type(m) for n, m in model.named_modules()}
    before = model(pixels)
    make, suits = MAKERS[way]
    sites = choose_sites(model, None, "test", suits)
    attach(model, sites, make, seed=0)
    torch.testing.assert_close(model(pixels), before, rtol=0, atol=1e-6)  # begins as it was
    disturbed(model)
    adapted = model(pixels)
    assert float((adapted - before).abs().max()) > 1e-3
    copied = copy.deepcopy(model)  # as the average of the weights is made
    torch.testing.assert_close(copied(pixels), adapted, rtol=0, atol=0)
    merge(model, sites)
    torch.testing.assert_close(model(pixels), adapted, rtol=0, atol=1e-5)
    assert list(model.state_dict()) == list(plain)
    assert {n: type(m) for n, m in model.named_modules()} == kinds
    changed = {n for n, t in model.state_dict().items() if not t.equal(plain[n])}
    assert changed == {f"{s.layer}.{s.tensor}" for s in sites}


def test_a_low_rank_change_is_its_formula() -> None:
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    change = LowRank(weight, rank=4, alpha=8.0)
    assert change.a.abs().max() <= 1 / np.sqrt(45) and not change.b.any()
    with torch.no_grad():
        change.b.normal_()
    a, b = change.a.detach().double().numpy(), change.b.detach().double().numpy()
    wanted = weight.double().numpy().reshape(6, 45) + 8 / 4 * b @ a
    np.testing.assert_allclose(
        change(weight).detach().numpy().reshape(6, 45), wanted, rtol=1e-5, atol=1e-6
    )
    # A depthwise kernel has nine values: no rank is above that.
    assert LowRank(torch.zeros(32, 1, 3, 3), rank=16, alpha=1.0).a.shape == (9, 9)


def test_a_change_is_not_rounded_by_autocast() -> None:
    change = LORA(torch.randn(8, 8))
    disturbed_b = torch.randn(8, 4)
    with torch.no_grad():
        change.b.copy_(disturbed_b)
    weight = torch.randn(8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert change(weight).equal(change(weight).float())
        under = change(weight)
    assert under.equal(change(weight))


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (5, 2, 1), (3, 1, 2)]
)
def test_an_adapter_is_a_convolution_of_one_tap_beside_the_other(
    kernel: int, stride: int, dilation: int, groups: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 8 // groups, kernel, kernel, generator=generator, dtype=torch.float64)
    x = torch.randn(2, 8, 9, 9, generator=generator, dtype=torch.float64)
    adapter = Beside(weight)
    with torch.no_grad():
        adapter.beside.normal_()
    far: Any = {"stride": stride, "dilation": dilation, "groups": groups}
    padding = dilation * (kernel // 2)
    merged = F.conv2d(x, adapter(weight), padding=padding, **far)
    beside = F.conv2d(x, adapter.beside[:, :, None, None], stride=stride, groups=groups)
    apart = F.conv2d(x, weight, padding=padding, **far) + beside
    torch.testing.assert_close(merged, apart, rtol=0, atol=1e-12)


def test_the_same_seed_gives_the_same_change_and_the_global_generator_stands_still() -> None:
    models = [build("resnet8") for _ in range(3)]
    state = torch.get_rng_state()
    for model, seed in zip(models, (0, 0, 1), strict=True):
        attach(model, choose_sites(model, None, "test"), LORA, seed=seed)
    assert torch.get_rng_state().equal(state)
    first, second, other = (m.state_dict() for m in models)
    assert all(t.equal(second[n]) for n, t in first.items())
    assert any(not t.equal(other[n]) for n, t in first.items())


@pytest.mark.parametrize(
    ("name", "targets", "expected"),
    [
        ("vit", ["attention"], {"attn.qkv", "attn.proj"}),
        ("vit", ["linear"], {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}),
        ("vit", ["conv"], {"patch_embed.proj"}),
        ("vit", ["blocks.1.attn"], {"attn.qkv", "attn.proj"}),
        ("resnet8", ["layer3"], {"conv1", "conv2", "downsample.0"}),
        ("resnet8", ["pointwise", "layer1.0.conv1"], {"conv1", "downsample.0"}),
        ("resnet8", ["-1"], {"conv1", "conv2", "downsample.0"}),
    ],
)
def test_layers_are_named_by_kind_number_or_name(
    name: str, targets: list[str], expected: set[str]
) -> None:
    found = [site.layer for site in choose_sites(build(name), targets, "test")]
    assert {layer for layer in found if not layer.endswith(tuple(expected))} == set()
    assert {e for e in expected if not any(layer.endswith(e) for layer in found)} == set()


def test_torch_s_own_attention_is_attention() -> None:
    sites = choose_sites(Attending(), ["attention"], "test")
    assert [(s.layer, s.tensor) for s in sites] == [
        ("attn", "in_proj_weight"),
        ("attn.out_proj", "weight"),
    ]


@pytest.mark.parametrize(
    ("name", "target", "suits", "what", "fix"),
    [
        ("resnet8", "layer9", None, "has no layer 'layer9'", "kinds: attention, linear"),
        ("resnet8", "7", None, "3 stages, none is 7", "kinds: attention"),
        ("resnet8", "attention", None, "no layer of the kind 'attention'", "or a layer"),
        ("resnet8", "layer1.0.bn1", None, "'layer1.0.bn1' is a BatchNorm2d", "a convolution"),
        ("resnet8", "fc", None, "layer 'fc' is a Linear, in which there is nothing", "below the"),
        ("vit", "patch_embed.proj", has_centre, "is a Conv2d, in which there is", "a convolution"),
    ],
)
def test_what_cannot_be_adapted_is_refused(
    name: str, target: str, suits: Any, what: str, fix: str
) -> None:
    more = () if suits is None else (suits,)
    with pytest.raises(ModelError) as caught:
        choose_sites(build(name), [target], "strategy x", *more)
    assert caught.value.what.startswith("strategy x: ") and what in caught.value.what
    assert fix in caught.value.fix


def test_a_model_of_one_layer_has_nothing_to_adapt() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def get_classifier(self) -> nn.Module:
            return self.fc

    with pytest.raises(ModelError, match="has no layer that can be adapted") as caught:
        choose_sites(Plain(), None, "strategy x")
    assert "--strategy freeze" in caught.value.fix
