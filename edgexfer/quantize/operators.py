"""The operators of an ONNX graph as torch functions, so that gradients go through them.

Only those are here that torch's exporter writes for image classifiers. Quantization itself is in
``fake.py``, and running a graph in ``graph.py``. Shapes and axes are int64 tensors on the CPU, as
in ONNX; everything else is on the device of the images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from edgexfer.core.errors import ModelError

# A missing optional input is None.
Inputs = list[Any]
Attributes = dict[str, Any]
Operator = Callable[[Inputs, Attributes], Any]


def get_operator(op_type: str) -> Operator:
    """Return the torch function of an ONNX operator.

    It takes the node's inputs and attributes, and gives its output: a tensor, or a tuple of them.

    Raises:
        ModelError: the operator is not among those that can be trained.
    """
    if op_type not in _OPERATORS:
        raise ModelError(
            f"operator {op_type}: quantization-aware training does not know it",
            "leave out --qat-for, or choose another architecture",
        )
    return _OPERATORS[op_type]


def _conv(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, weight, bias = [*inputs, None][:3]
    x, padding = _padded(x, attributes, value=0.0)
    return F.conv2d(
        x,
        weight,
        bias,
        attributes.get("strides", (1, 1)),
        padding,
        attributes.get("dilations", (1, 1)),
        attributes.get("group", 1),
    )


def _max_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, padding = _padded(inputs[0], attributes, value=-torch.inf)
    size = attributes["kernel_shape"]
    pooled: Tensor = F.max_pool2d(
        x,
        size,
        attributes.get("strides", (1, 1)),
        padding,
        attributes.get("dilations", (1, 1)),
        bool(attributes.get("ceil_mode", 0)),
    )
    return pooled


def _average_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    counted = bool(attributes.get("count_include_pad", 0))
    x, padding = _symmetric(inputs[0], attributes, "AveragePool")
    return F.avg_pool2d(
        x,
        attributes["kernel_shape"],
        attributes.get("strides", (1, 1)),
        padding,
        bool(attributes.get("ceil_mode", 0)),
        counted,
    )


def _padded(x: Tensor, attributes: Attributes, value: float) -> tuple[Tensor, tuple[int, int]]:
    """Pad an image where both sides differ, and return what is left for the operator to pad."""
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    if (top, left) == (bottom, right):
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom), value=value), (0, 0)


def _symmetric(x: Tensor, attributes: Attributes, op: str) -> tuple[Tensor, tuple[int, int]]:
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right):
        raise ModelError(
            f"operator {op}: quantization-aware training does not know uneven padding",
            "leave out --qat-for, or choose another architecture",
        )
    return x, (top, left)


def _gemm(inputs: Inputs, attributes: Attributes) -> Tensor:
    a, b, c = [*inputs, None][:3]
    a = a.mT if attributes.get("transA", 0) else a
    b = b.mT if attributes.get("transB", 0) else b
    product: Tensor = attributes.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + attributes.get("beta", 1.0) * c


def _batch_norm(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, weight, bias, mean, variance = inputs
    epsilon = attributes.get("epsilon", 1e-5)
    return F.batch_norm(x, mean, variance, weight, bias, eps=epsilon)


def _layer_norm(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, weight, bias = [*inputs, None][:3]
    shape = x.shape[attributes.get("axis", -1) :]
    return F.layer_norm(x, shape, weight, bias, attributes.get("epsilon", 1e-5))


def _clip(inputs: Inputs, attributes: Attributes) -> Tensor:
    del attributes
    x, low, high = [*inputs, None, None][:3]
    return torch.clamp(x, low, high)


def _hard_sigmoid(inputs: Inputs, attributes: Attributes) -> Tensor:
    alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    return torch.clamp(alpha * inputs[0] + beta, 0.0, 1.0)


def _gelu(inputs: Inputs, attributes: Attributes) -> Tensor:
    return F.gelu(inputs[0], approximate=attributes.get("approximate", "none"))


def _softmax(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.softmax(inputs[0], attributes.get("axis", -1))


def _mean(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axes = [*inputs, None][:2]
    wanted = list(range(x.ndim)) if axes is None else axes.tolist()
    return torch.mean(x, wanted, keepdim=bool(attributes.get("keepdims", 1)))


def _global_average(inputs: Inputs, attributes: Attributes) -> Tensor:
    del attributes
    return torch.mean(inputs[0], (2, 3), keepdim=True)


def _reshape(inputs: Inputs, attributes: Attributes) -> Tensor:
    x: Tensor = inputs[0]
    shape = inputs[1].tolist()
    if not attributes.get("allowzero", 0):
        shape = [x.shape[i] if size == 0 else size for i, size in enumerate(shape)]
    return torch.reshape(x, shape)


def _flatten(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, axis = inputs[0], attributes.get("axis", 1)
    return torch.reshape(x, (int(torch.tensor(x.shape[:axis]).prod()), -1))


def _transpose(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.permute(inputs[0], attributes["perm"])


def _squeeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    del attributes
    return torch.squeeze(inputs[0], tuple(inputs[1].tolist()))


def _unsqueeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    del attributes
    x: Tensor = inputs[0]
    axes = inputs[1].tolist()
    for axis in sorted(a % (x.ndim + len(axes)) for a in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(inputs: Inputs, attributes: Attributes) -> Tensor:
    del attributes
    x: Tensor = inputs[0]
    starts, ends = inputs[1].tolist(), inputs[2].tolist()
    axes, steps = ([*inputs, None, None][i] for i in (3, 4))
    at = range(len(starts)) if axes is None else axes.tolist()
    by = [1] * len(starts) if steps is None else steps.tolist()
    for axis, start, end, step in zip(at, starts, ends, by, strict=True):
        window: list[slice] = [slice(None)] * x.ndim
        # The ends of a tensor are written as the largest and smallest integer there are.
        size = x.shape[axis]
        window[axis] = slice(max(start, -size), min(end, size), step)
        x = x[tuple(window)]
    return x


def _split(inputs: Inputs, attributes: Attributes) -> tuple[Tensor, ...]:
    x, axis = inputs[0], attributes.get("axis", 0)
    if len(inputs) > 1:
        return torch.split(x, inputs[1].tolist(), axis)
    return torch.chunk(x, attributes["num_outputs"], axis)


def _gather(inputs: Inputs, attributes: Attributes) -> Tensor:
    x: Tensor = inputs[0]
    before = [slice(None)] * attributes.get("axis", 0)
    return x[(*before, inputs[1])]


def _pad(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, pads, value = [*inputs, None][:3]
    ends = pads.tolist()
    count = len(ends) // 2
    # torch counts from the last axis, ONNX from the first.
    widths = [side for i in reversed(range(count)) for side in (ends[i], ends[count + i])]
    mode = attributes.get("mode", "constant")
    return F.pad(x, widths, mode, 0.0 if value is None else float(value))


def _shape(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.tensor(inputs[0].shape[attributes.get("start", 0) : attributes.get("end")])


def _expand(inputs: Inputs, attributes: Attributes) -> Tensor:
    del attributes
    x: Tensor = inputs[0]
    # Unlike torch's, ONNX's expansion goes both ways: a size of 1 keeps the tensor's own.
    shape = torch.broadcast_shapes(x.shape, inputs[1].tolist())  # type: ignore[no-untyped-call]
    return x.expand(shape)


def _concat(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.cat(inputs, attributes["axis"])


def _identity(inputs: Inputs, attributes: Attributes) -> Tensor:
    del attributes
    value: Tensor = inputs[0]
    return value


def _plain(function: Callable[..., Tensor]) -> Operator:
    """Return an operator of a torch function that takes the inputs alone."""
    return lambda inputs, _: function(*inputs)


_OPERATORS: dict[str, Operator] = {
    "Add": _plain(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _plain(torch.div),
    "Erf": _plain(torch.erf),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(F.hardswish),
    "Identity": _identity,
    "LayerNormalization": _layer_norm,
    "MatMul": _plain(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _plain(torch.mul),
    "Pad": _pad,
    "Pow": _plain(torch.pow),
    "ReduceMean": _mean,
    "Relu": _plain(F.relu),
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": _plain(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(torch.sub),
    "Tanh": _plain(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
