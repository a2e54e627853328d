"""Rules of the deep learning accelerator of Jetson Orin and Xavier.

A layer that it does not take falls back to the GPU, which costs a copy each way; only what it
cannot do at all is an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgexfer.export.passes.editor import attribute
from edgexfer.export.rules.subject import Finding, Graph, Target, label

if TYPE_CHECKING:
    from onnx import NodeProto

_LIMITS = "NvInfer.h of TensorRT 10.3, DLA layer limits"
_OPERATORS = "NVIDIA Deep-Learning-Accelerator-SW, operators (Orin, TensorRT 8.6)"
_TAKEN = frozenset(
    (
        *("Add", "AveragePool", "Clip", "Concat", "Constant", "Conv", "ConvTranspose"),
        *("DequantizeLinear", "Flatten", "Gemm", "Identity", "LRN", "LeakyRelu", "MatMul", "Max"),
        *("MaxPool", "Min", "Mul", "QuantizeLinear", "Relu", "Reshape", "Resize", "Sigmoid"),
        *("Softmax", "Sub", "Tanh"),
    )
)
_INSTEAD = {
    "HardSwish": "train with ReLU or ReLU6",
    "HardSigmoid": "train with ReLU or Sigmoid, or without squeeze-and-excitation",
    "ReduceMean": "export for the DLA, which writes AveragePool",
    "GlobalAveragePool": "export for the DLA, which writes AveragePool",
}
_MOST_BATCH, _MOST_SIDE = 4096, 8192


def rule_dla_release(graph: Graph, target: Target) -> Iterator[Finding]:  # noqa: ARG001
    """The release builds engines for the DLA.

    Source: TensorRT 10.7 was the last 10.x with it; 11.4.1 brings it back for AGX Orin.
    """
    if target.dla and not target.row.dla:
        text = f"{target.row.name} builds no engines for the DLA"
        mend = "name another --stack, or the profile of its GPU"
        yield Finding("error", "dla-release", "", "", text, mend, "TensorRT support matrix")


def rule_dla_shape(graph: Graph, target: Target) -> Iterator[Finding]:
    """The batch is 4096 at most and every other side 8192; an engine is for one shape alone.

    Source: TensorRT documentation, DLA layer restrictions: of a free side the profile's least, best
    and largest value have to be equal.
    """
    if not target.dla:
        return
    source = "TensorRT, DLA restrictions"
    for name in graph.inputs():
        shape = graph.shape(name) or ()
        sides = [side or 0 for side in shape]
        if sides and (sides[0] > _MOST_BATCH or max(sides[1:], default=0) > _MOST_SIDE):
            text = f"is larger than {_MOST_BATCH} images or {_MOST_SIDE} a side"
            mend = "feed fewer or smaller images"
            yield Finding("error", "dla-shape", name, "", text, mend, source)
        elif not shape or None in shape:
            text = "has a free side, of which an engine for the DLA takes one size alone"
            mend = "build the engine for one shape: least, best and largest size alike"
            yield Finding("note", "dla-shape", name, "", text, mend, source)


def rule_dla_operator(graph: Graph, target: Target) -> Iterator[Finding]:
    """The DLA has the operator.

    Source: NVIDIA Deep-Learning-Accelerator-SW, operators, and the layer list of NvInfer.h.
    """
    if not target.dla:
        return
    for node in graph.nodes:
        if node.op_type not in _TAKEN:
            mend = _INSTEAD.get(node.op_type, "choose an architecture without it")
            text = "falls back to the GPU, with a copy each way"
            yield Finding(
                "warning", "dla-operator", label(node), node.op_type, text, mend, _OPERATORS
            )


def rule_dla_convolution(graph: Graph, target: Target) -> Iterator[Finding]:
    """Kernels, strides, padding and dilation of convolutions are within the DLA's.

    Source: NvInfer.h of TensorRT 10.3: kernel 1 to 32, stride 1 to 8, padding 0 to 31 and below the
    kernel, dilation 1 to 32, at most 8192 output maps.
    """
    if not target.dla:
        return
    for node in graph.of("Conv"):
        weight = graph.shape(node.input[1]) or ()
        kernel = [side or 0 for side in weight[2:]]
        pads = attribute(node, "pads", [0])
        checks = (
            ("is not 2-D", len(kernel) == 2),
            (f"kernel {kernel}", all(1 <= k <= 32 for k in kernel)),
            ("stride", all(1 <= s <= 8 for s in attribute(node, "strides", [1]))),
            ("padding", max(pads) <= 31 and max(pads) < max([*kernel, 1])),
            ("dilation", all(1 <= d <= 32 for d in attribute(node, "dilations", [1]))),
            ("output maps", bool(weight) and (weight[0] or 0) <= _MOST_SIDE),
        )
        yield from _outside(node, checks)


def rule_dla_pooling(graph: Graph, target: Target) -> Iterator[Finding]:
    """Windows of poolings are 8 at most, strides 16, padding 7.

    Source: NvInfer.h of TensorRT 10.3.
    """
    if not target.dla:
        return
    for node in graph.of("AveragePool", "MaxPool"):
        window = attribute(node, "kernel_shape", [1])
        checks = (
            (f"window {window}", all(1 <= k <= 8 for k in window)),
            ("stride", all(1 <= s <= 16 for s in attribute(node, "strides", [1]))),
            ("padding", max(attribute(node, "pads", [0])) <= 7),
        )
        yield from _outside(node, checks)


def rule_dla_other(graph: Graph, target: Target) -> Iterator[Finding]:
    """Concat joins channels, Resize has whole factors, products have a constant side.

    Source: NvInfer.h of TensorRT 10.3; Deep-Learning-Accelerator-SW for Gemm and MatMul.
    """
    if not target.dla:
        return
    for node in graph.of("Concat"):
        yield from _outside(node, (("axis", attribute(node, "axis", 1) in (1, -3)),))
    for node in graph.of("Gemm", "MatMul"):
        writer = graph.writers.get(node.input[1])
        stored = writer is not None and writer.op_type == "DequantizeLinear"
        yield from _outside(
            node, (("computed second input", stored or node.input[1] in graph.constants),)
        )
    for node in graph.of("Resize"):
        scales = graph.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        whole = scales is not None and all(math.isclose(s, round(s)) for s in scales.tolist())
        yield from _outside(node, (("scale", whole),))


DLA_RULES = (
    rule_dla_release,
    rule_dla_shape,
    rule_dla_operator,
    rule_dla_convolution,
    rule_dla_pooling,
    rule_dla_other,
)


def _outside(node: NodeProto, checks: tuple[tuple[str, bool], ...]) -> Iterator[Finding]:
    for what, good in checks:
        if not good:
            text = f"{what}: outside of what the DLA takes; falls back to the GPU"
            mend = "choose an architecture within the limits"
            yield Finding("warning", "dla-limit", label(node), node.op_type, text, mend, _LIMITS)
