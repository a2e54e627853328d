"""Fake quantization: float32 values on the grid of INT8, with gradients that go through it.

Where a graph is quantized is decided by ``qdq.py`` alone; ``graph.py`` asks for it here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Its quantizer's own: the range of INT32, and a little more.
_INT32_ROOM = 1.0001 * 2 / (2 * (2**31 - 1))


def fake_quantize(x: Tensor, scale: Tensor, zero: int, low: int, high: int) -> Tensor:
    """Round activations to ``(q - zero) · scale`` with ``q`` in low..high, as QuantizeLinear does.

    Gradients go straight through inside the range and stop outside of it. That of the scale is the
    one of Esser et al., "Learned Step Size Quantization" (2020): ``y / s - x / s`` inside,
    ``y / s`` outside.

    Args:
        x: of any shape.
        scale: one value, above 0.
        zero: the integer that stands for 0.0.
        low: smallest integer.
        high: largest integer.
    """
    result: Tensor = _FakeQuantize.apply(x, scale, zero, low, high)
    return result


def round_through(values: Tensor, step: Tensor) -> Tensor:
    """Round values to multiples of a step that broadcasts over them; gradients go straight through.

    That is the straight-through estimator of Bengio et al. (2013).
    """
    with torch.no_grad():
        error = torch.round(values / step) * step - values
    return values + error


def weight_scale(weight: Tensor, axis: int | None, levels: int) -> Tensor:
    """Return the scale that ONNX Runtime's quantizer gives to symmetric weights.

    Args:
        weight: of any shape.
        axis: of the channels; ``None`` takes one scale for all.
        levels: largest integer: 127, or 64 where weights keep to 7 bits.

    Returns:
        The largest absolute value of each channel, or of all, over ``levels``; of a shape that
        broadcasts over the weights.
    """
    weight = weight.detach()
    others = [i for i in range(weight.ndim) if axis is None or i != axis % weight.ndim]
    reach = weight.abs().amax(others, keepdim=True)
    scale = (reach.double() / levels).to(weight.dtype)
    # What it gives to channels of zeros.
    return torch.where(scale < torch.finfo(weight.dtype).tiny, 1.0, scale)


def widen_for_bias(scale: Tensor, input_scale: Tensor, bias: Tensor) -> Tensor:
    """Widen weight scales until the bias fits into INT32, as ONNX Runtime's quantizer does.

    A bias is stored in steps of ``input_scale · scale``, which channels of almost no weight make
    too small for it.

    Args:
        scale: of the weights, (C,) or (1,).
        input_scale: of the layer's input, one value.
        bias: (C,).
    """
    reach = bias.detach().abs().double()
    reach = reach if scale.numel() > 1 else reach.amax(0, keepdim=True)
    return torch.maximum(scale, (_INT32_ROOM * reach / input_scale).to(scale.dtype))


class _FakeQuantize(torch.autograd.Function):
    """One node of the graph instead of the six that torch would record and keep."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: int, low: int, high: int) -> Tensor:
        """Round; see ``fake_quantize``."""
        steps = torch.round(x / scale)
        held = steps.clamp(low - zero, high - zero)
        y = held * scale
        ctx.save_for_backward(x, y, scale, steps == held)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x and scale."""
        (grad,) = grads
        x, y, scale, inside = ctx.saved_tensors
        through = grad * inside
        grad_scale = (grad * y - through * x).sum() / scale
        return through, grad_scale.reshape(scale.shape), None, None, None
