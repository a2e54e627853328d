"""Fake quantization rounds as ONNX Runtime does, and its gradients are those of the papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import TensorProto
from onnxruntime.quantization.quant_utils import quantize_data

from edgexfer.quantize.fake import fake_quantize, round_through, weight_scale, widen_for_bias


def test_values_lie_on_the_grid_and_end_where_it_ends() -> None:
    x = torch.tensor([-9.0, -0.26, -0.25, 0.0, 0.24, 0.75, 99.0])
    y = fake_quantize(x, torch.tensor(0.5), 3, 0, 255)
    # Ties go to the even integer, as in ONNX.
    assert y.tolist() == [-1.5, -0.5, 0.0, 0.0, 0.0, 1.0, 99.0]
    assert fake_quantize(x, torch.tensor(0.5), 0, -128, 127)[-1] == 63.5


def test_gradients_are_those_of_learned_step_sizes() -> None:
    x = torch.tensor([-9.0, 0.3, 70.0], requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    torch.autograd.backward(fake_quantize(x, scale, 2, 0, 127), torch.tensor([1.0, 10.0, 100.0]))
    assert x.grad is not None
    assert scale.grad is not None
    assert x.grad.tolist() == [0.0, 10.0, 0.0]
    # Below: -zero; inside: round(x/s) - x/s; above: high - zero.
    assert scale.grad.item() == pytest.approx(-2 + 10 * (1 - 0.6) + 100 * 125, rel=1e-6)


def test_rounding_lets_gradients_through() -> None:
    values = torch.tensor([0.2, 0.9], requires_grad=True)
    rounded = round_through(values, torch.tensor([0.5, 0.25]))
    torch.autograd.backward(rounded.sum())
    assert rounded.tolist() == [0.0, 1.0]
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("levels", "reduced"), [(127, False), (64, True)])
def test_weight_scales_are_those_of_the_quantizer(levels: int, reduced: bool) -> None:
    weight = np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32)
    weight[2] = 0.0
    mine = weight_scale(torch.from_numpy(weight), 0, levels)
    assert mine.shape == (5, 1, 1, 1)
    for channel, scale in zip(weight, mine.flatten().numpy(), strict=True):
        _, wanted, integers = quantize_data(
            channel.ravel(), TensorProto.INT8, True, reduce_range=reduced
        )
        assert scale == wanted
        rounded = round_through(torch.from_numpy(channel), torch.tensor(scale))
        assert np.allclose(rounded.numpy().ravel(), integers * wanted, rtol=1e-6)
    _, whole, _ = quantize_data(weight.ravel(), TensorProto.INT8, True, reduce_range=reduced)
    assert weight_scale(torch.from_numpy(weight), None, levels).item() == whole


def test_a_scale_is_widened_until_the_bias_fits_into_32_bits() -> None:
    scale, bias = torch.tensor([1e-12, 0.01]), torch.tensor([1.0, 1.0])
    wide = widen_for_bias(scale, torch.tensor(0.1), bias)
    assert wide[1] == scale[1]
    assert 0.99 < 1.0 / (0.1 * wide[0].item()) / 2**31 < 1.0
    assert widen_for_bias(torch.tensor([1e-12]), torch.tensor(0.1), bias).shape == (1,)
