"""Operators that older opsets lack, written in the operators that these have.

The definitions are those of the ONNX operator specification, whose function bodies say the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from edgexfer.export.passes.editor import Editor, attribute

if TYPE_CHECKING:
    from onnx import NodeProto


def split_hard_swish(edit: Editor) -> None:
    """Write HardSwish (opset 14) as HardSigmoid times its input.

    Source: ONNX specification, HardSwish-14.
    """
    from onnx import helper

    for node in edit.of("HardSwish"):
        (x,), gate = node.input, edit.fresh(node, "gate")
        sigmoid = helper.make_node("HardSigmoid", [x], [gate], alpha=1 / 6, beta=0.5)
        edit.replace(node, [sigmoid, helper.make_node("Mul", [x, gate], node.output)])


def split_mish(edit: Editor) -> None:
    """Write Mish (opset 18) as its input times the Tanh of its Softplus.

    Source: ONNX specification, Mish-18.
    """
    from onnx import helper

    for node in edit.of("Mish"):
        (x,) = node.input
        soft, gate = edit.fresh(node, "softplus"), edit.fresh(node, "gate")
        edit.replace(
            node,
            [
                helper.make_node("Softplus", [x], [soft]),
                helper.make_node("Tanh", [soft], [gate]),
                helper.make_node("Mul", [x, gate], node.output),
            ],
        )


def split_gelu(edit: Editor) -> None:
    """Write Gelu (opset 20) by Erf, or by Tanh where it asks for the approximation.

    Source: ONNX specification, Gelu-20.
    """
    for node in edit.of("Gelu"):
        tanh = attribute(node, "approximate", b"none") == b"tanh"
        edit.replace(node, _gelu_tanh(edit, node) if tanh else _gelu_erf(edit, node))


def _gelu_erf(edit: Editor, node: NodeProto) -> list[NodeProto]:
    """Return the nodes of x/2 * (1 + erf(x / sqrt 2))."""
    from onnx import helper

    (x,) = node.input
    scaled, erf, gate, half = (edit.fresh(node, n) for n in ("scaled", "erf", "gate", "half"))
    return [
        helper.make_node("Mul", [x, edit.like(node, math.sqrt(0.5))], [scaled]),
        helper.make_node("Erf", [scaled], [erf]),
        helper.make_node("Add", [erf, edit.like(node, 1.0)], [gate]),
        helper.make_node("Mul", [x, edit.like(node, 0.5)], [half]),
        helper.make_node("Mul", [half, gate], node.output),
    ]


def _gelu_tanh(edit: Editor, node: NodeProto) -> list[NodeProto]:
    """Return the nodes of x/2 * (1 + tanh(sqrt(2 / pi) * x * (1 + 0.044715 x²)))."""
    from onnx import helper

    (x,) = node.input
    names = ("square", "cubic", "bent", "product", "scaled", "tanh", "gate", "half")
    square, cubic, bent, product, scaled, tanh, gate, half = (edit.fresh(node, n) for n in names)
    one = edit.like(node, 1.0)
    return [
        helper.make_node("Mul", [x, x], [square]),
        helper.make_node("Mul", [square, edit.like(node, 0.044715)], [cubic]),
        helper.make_node("Add", [cubic, one], [bent]),
        helper.make_node("Mul", [x, bent], [product]),
        helper.make_node("Mul", [product, edit.like(node, math.sqrt(2 / math.pi))], [scaled]),
        helper.make_node("Tanh", [scaled], [tanh]),
        helper.make_node("Add", [tanh, one], [gate]),
        helper.make_node("Mul", [x, edit.like(node, 0.5)], [half]),
        helper.make_node("Mul", [half, gate], node.output),
    ]


def split_layer_norm(edit: Editor) -> None:
    """Write LayerNormalization (opset 17) as means, differences and a square root.

    The axes of its means are attributes, as opset 13 to 17 have them.

    Source: ONNX specification, LayerNormalization-17.

    Raises:
        ModelError: its mean or deviation is an output too.
    """
    from onnx import helper

    for node in edit.of("LayerNormalization"):
        if any(node.output[1:]):
            raise edit.refusal(node, "its mean or deviation is read")
        first = attribute(node, "axis", -1)
        axes = list(range(first if first < 0 else first - edit.rank(node), 0))
        x, scale, *bias = (name for name in node.input if name)
        parts = ("mean", "centred", "square", "variance", "safe", "deviation", "normal", "scaled")
        mean, centred, square, variance, safe, deviation, normal, scaled = (
            edit.fresh(node, part) for part in parts
        )
        epsilon = edit.like(node, attribute(node, "epsilon", 1e-5))
        nodes = [
            helper.make_node("ReduceMean", [x], [mean], axes=axes, keepdims=1),
            helper.make_node("Sub", [x, mean], [centred]),
            helper.make_node("Mul", [centred, centred], [square]),
            helper.make_node("ReduceMean", [square], [variance], axes=axes, keepdims=1),
            helper.make_node("Add", [variance, epsilon], [safe]),
            helper.make_node("Sqrt", [safe], [deviation]),
            helper.make_node("Div", [centred, deviation], [normal]),
            helper.make_node("Mul", [normal, scale], [scaled] if bias else node.output),
        ]
        if bias:
            nodes.append(helper.make_node("Add", [scaled, bias[0]], node.output))
        edit.replace(node, nodes)


def split_group_norm(edit: Editor) -> None:
    """Write GroupNormalization by InstanceNormalization of its groups.

    Opset 18 has one scale and bias for each group, opset 21 one for each channel.

    Source: ONNX specification, GroupNormalization-18 and -21.

    Raises:
        ModelError: scale and bias are computed, or its shape is not fixed but for the batch.
    """
    from onnx import helper

    for node in edit.of("GroupNormalization"):
        groups = attribute(node, "num_groups")
        shape = edit.shape(node.input[0])
        if shape is None or None in shape[1:]:
            raise edit.refusal(node, "the size of its input is not fixed")
        scale, bias = (edit.constant(node, i, n) for i, n in ((1, "scale"), (2, "bias")))
        assert scale is not None and bias is not None, "the specification asks for both"
        channels = shape[1] or 0
        wide = (channels, *[1] * (len(shape) - 2))
        per_channel = [
            edit.add(node, np.repeat(v, channels // len(v)).reshape(wide)) for v in (scale, bias)
        ]
        names = ("grouped", "normal", "whole", "scaled")
        grouped, normal, whole, scaled = (edit.fresh(node, name) for name in names)
        apart = edit.add(node, np.array([0, groups, -1], np.int64))
        # The sizes are spelled out but for the batch, which 0 copies from the grouped tensor.
        together = edit.add(node, np.array([0, *shape[1:]], np.int64))
        flat = [edit.like(node, [value] * groups) for value in (1.0, 0.0)]
        epsilon = attribute(node, "epsilon", 1e-5)
        edit.replace(
            node,
            [
                helper.make_node("Reshape", [node.input[0], apart], [grouped]),
                helper.make_node(
                    "InstanceNormalization", [grouped, *flat], [normal], epsilon=epsilon
                ),
                helper.make_node("Reshape", [normal, together], [whole]),
                helper.make_node("Mul", [whole, per_channel[0]], [scaled]),
                helper.make_node("Add", [scaled, per_channel[1]], node.output),
            ],
        )
