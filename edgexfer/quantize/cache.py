"""INT8 for a DLA before TensorRT 11: a float ONNX file, and its scales in a calibration cache.

Such a DLA takes no Q/DQ nodes, but the ranges that TensorRT's own calibration leaves behind. Both
files are made here from a Q/DQ file that was checked: its activations' scales go to the cache, and
its weights, on their grid already, back to float. The device only reads them: see
``backends/_trt_build.py``, which hands the cache to the builder. (The cache's form is that of
NVIDIA's qdq-translator, in Deep-Learning-Accelerator-SW.)
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgexfer.core.files import write_atomic
from edgexfer.models.onnx import check_onnx
from edgexfer.quantize.placement import MOVING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto


# What may be done before its input is rounded as well as after: the integers are the same.
_COMMUTES = (*MOVING, "Clip", "Relu")


def split_qdq(quantized: Path, model: Path, cache: Path, version: str) -> None:
    """Write a Q/DQ file as a float one and a calibration cache.

    Args:
        quantized: ONNX with symmetric INT8, one scale for each activation.
        model: float ONNX file to write, whose tensors have the names that they have there.
        cache: file to write.
        version: of the TensorRT that will read it, such as ``8.5.2``.
    """
    import onnx
    from onnx import numpy_helper

    proto = onnx.load(quantized)
    graph = proto.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    sources, scales, weights = {}, {}, []
    kept: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            sources[node.output[0]] = node.input[0]
            scales[node.input[0]] = float(numpy_helper.to_array(constants[node.input[1]]))
        elif node.op_type != "DequantizeLinear":
            kept.append(node)
        elif node.input[0] in constants:
            weights.append(_float_weight(node, constants))
        else:
            sources[node.output[0]] = sources[node.input[0]]
    for node in kept:
        node.input[:] = [sources.get(name, name) for name in node.input]
    _spread(scales, graph, kept)
    _replace(proto, kept, weights)
    onnx.save(proto, model)
    check_onnx(model)
    write_atomic(cache, cache_text(scales, version))


def _spread(scales: dict[str, float], graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Give the scale of a tensor to those before it that may as well be rounded in its place.

    A layer that takes or gives a tensor without a scale runs in FP16 on a DLA, as would each
    convolution before a Relu. (NVIDIA's qdq-translator spreads scales likewise.)
    """
    made = {value.name for value in graph.input} | {name for n in nodes for name in n.output}
    takers = Counter(name for node in nodes for name in node.input)
    takers.update(output.name for output in graph.output)
    for node in reversed(nodes):
        if node.op_type not in _COMMUTES or node.output[0] not in scales:
            continue
        for name in node.input if node.op_type == "Concat" else node.input[:1]:
            if name in made and takers[name] == 1:
                scales.setdefault(name, scales[node.output[0]])


def cache_text(scales: Mapping[str, float], version: str) -> str:
    """Return a calibration cache: a line for the version, then one for each tensor's scale.

    Args:
        scales: by tensor; the largest value is 127 times as much.
        version: of TensorRT, such as ``10.3.0``.
    """
    major, minor, patch = (int(part) for part in f"{version}.0.0".split(".")[:3])
    number = 10_000 * major + 100 * minor + patch
    if major < 10:
        number = 1000 * major + 100 * minor + patch
    lines = [f"TRT-{number}-EntropyCalibration2"]
    lines += [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in scales.items()]
    return "\n".join(lines) + "\n"


def _float_weight(node: NodeProto, constants: Mapping[str, TensorProto]) -> TensorProto:
    """Return what a DequantizeLinear makes of a constant, under the name of its output."""
    import numpy as np
    from onnx import numpy_helper

    integers, scale = (numpy_helper.to_array(constants[name]) for name in node.input[:2])
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    if scale.ndim:
        scale = scale.reshape([-1 if i == axis else 1 for i in range(integers.ndim)])
    return numpy_helper.from_array(np.asarray(integers * scale, np.float32), node.output[0])


def _replace(proto: ModelProto, nodes: list[NodeProto], weights: list[TensorProto]) -> None:
    """Give a model other nodes, and of the constants those that they take."""
    graph = proto.graph
    taken = {name for node in nodes for name in node.input}
    constants = [t for t in (*graph.initializer, *weights) if t.name in taken]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
