from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgexfer.core.rundir import RunDir
from edgexfer.training.depthwise import keep_float32
from edgexfer.training.loop import fit
from tests.training.toy import Net, make_job

pytestmark = pytest.mark.torch


def layers() -> Any:
    torch.manual_seed(0)
    dense, depthwise = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 5, groups=8)
    return nn.Sequential(dense, depthwise).to(memory_format=torch.channels_last)


def images() -> Tensor:
    return torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def test_gradients_of_depthwise_weights_are_those_of_float32() -> None:
    model = layers()
    keep_float32(model)
    with torch.autocast("cpu", torch.bfloat16):
        between = model[0](images())
        out = model[1](between)
    assert between.dtype == out.dtype == torch.bfloat16
    torch.autograd.backward(out.float().sum())
    float32 = layers()[1]
    torch.autograd.backward(float32(between.detach().float()).sum())
    assert torch.equal(model[1].weight.grad, float32.weight.grad)


def test_a_copy_computes_with_its_own_weights() -> None:
    model = layers()
    keep_float32(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[1].weight.zero_()
        twin[1].bias.zero_()
    with torch.autocast("cpu", torch.bfloat16):
        assert not twin(images()).any()
        assert model(images()).any()


def test_without_autocast_nothing_changes() -> None:
    model, plain = layers(), layers()
    keep_float32(model)
    assert torch.equal(model(images()), plain(images()))


def test_the_loop_keeps_depthwise_layers_in_float32(run: RunDir) -> None:
    seen: list[torch.dtype] = []

    class Depthwise(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            seen.append(input.dtype)
            return super().forward(input)

    net: Any = Net()
    net.conv1 = nn.Sequential(nn.Conv2d(3, 8, 1), Depthwise(8, 8, 3, padding=1, groups=8))
    fit(make_job(run, net, epochs=1, precision="bf16"))
    assert set(seen) == {torch.float32}
