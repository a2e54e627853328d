"""Damage to ONNX graphs, as bugs of exporters and quantizers do it: each leaves a valid file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = Any
Damage = Callable[[onnx.ModelProto], None]


def damaged(file: Path, out: Path, damage: Damage) -> Path:
    """Write a damaged copy of a file, or damage it in place."""
    proto = onnx.load(file)
    damage(proto)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, out)
    return out


def _nodes(proto: onnx.ModelProto, op: str) -> list[onnx.NodeProto]:
    return [node for node in proto.graph.node if node.op_type == op]


def _conv(proto: onnx.ModelProto, module: str) -> onnx.NodeProto:
    return next(n for n in _nodes(proto, "Conv") if any(module in name for name in n.input))


def _change(proto: onnx.ModelProto, name: str, edit: Callable[[Array], Array]) -> None:
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(tensor)), name))


def appended(op: str, **attributes: Any) -> Damage:
    """Put one more operator behind the logits."""

    def damage(proto: onnx.ModelProto) -> None:
        proto.graph.node[-1].output[0] = "inner"
        proto.graph.node.append(helper.make_node(op, ["inner"], ["logits"], op, **attributes))

    return damage


def permute_classes(proto: onnx.ModelProto) -> None:
    """Give the outputs in another order."""
    for name in proto.graph.node[-1].input[1:]:
        _change(proto, name, lambda values: np.roll(values, 1, axis=0))


def scale_weights(proto: onnx.ModelProto) -> None:
    """Scale the weights of one layer by a hundredth."""
    name = _conv(proto, "layer2.0.conv1").input[1]
    _change(proto, name, lambda values: values * np.float32(1.01))


def drop_bias(proto: onnx.ModelProto) -> None:
    """Forget the bias of one layer."""
    _change(proto, _conv(proto, "layer3.0.conv2").input[2], np.zeros_like)


def drop_relu(proto: onnx.ModelProto) -> None:
    """Forget one activation."""
    _nodes(proto, "Relu")[1].op_type = "Identity"


def drop_residual(proto: onnx.ModelProto) -> None:
    """Forget the shortcut of the second stage."""
    node = _nodes(proto, "Add")[1]
    node.op_type = "Identity"
    del node.input[1:]


def pad_one_side(proto: onnx.ModelProto) -> None:
    """Pad a strided convolution as another framework does."""
    node = _conv(proto, "layer2.0.conv1")
    pads = next(a for a in node.attribute if a.name == "pads")
    pads.ints[:] = [0, 0, 2, 2]


def pool_largest(proto: onnx.ModelProto) -> None:
    """Take the largest in place of the mean."""
    _nodes(proto, "ReduceMean")[0].op_type = "ReduceMax"


def mix_channels(proto: onnx.ModelProto) -> None:
    """Give the channels of one layer in another order."""
    for name in _conv(proto, "layer1.0.conv2").input[1:]:
        _change(proto, name, lambda values: values[::-1].copy())


def leave_dropout_on(proto: onnx.ModelProto) -> None:
    """Drop features by chance, as in training."""
    last = proto.graph.node[-1]
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "ratio"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "training"))
    node = helper.make_node(
        "Dropout", [last.input[0], "ratio", "training"], ["dropped"], "drop", seed=0
    )
    last.input[0] = "dropped"
    proto.graph.node.insert(len(proto.graph.node) - 1, node)


def scale_of_weights(proto: onnx.ModelProto) -> None:
    """Read one layer's INT8 weights with four times their scale."""
    name = _dequantizer(proto, _conv(proto, "layer2.0.conv2").input[1]).input[1]
    _change(proto, name, lambda values: values * np.float32(4))


def permuted_scales(proto: onnx.ModelProto) -> None:
    """Give the scales of one layer's channels in another order."""
    name = _dequantizer(proto, _conv(proto, "layer1.0.conv1").input[1]).input[1]
    _change(proto, name, lambda values: np.sort(values)[np.argsort(-values).argsort()])


def clipped_activations(proto: onnx.ModelProto) -> None:
    """Leave one tensor a twentieth of its range."""
    name = _dequantizer(proto, _conv(proto, "layer3.0.conv1").input[0]).input[1]
    _change(proto, name, lambda values: np.asarray(values * np.float32(0.05)))


def shifted_zero_point(proto: onnx.ModelProto) -> None:
    """Read one tensor with another zero point than it was written with."""
    node = _dequantizer(proto, _conv(proto, "layer3.0.conv2").input[0])
    old = next(t for t in proto.graph.initializer if t.name == node.input[2])
    shifted = numpy_helper.to_array(old) + np.array(100, numpy_helper.to_array(old).dtype)
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(shifted), "shifted"))
    node.input[2] = "shifted"


def _dequantizer(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in _nodes(proto, "DequantizeLinear") if n.output[0] == name)
