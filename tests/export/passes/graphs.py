"""Small ONNX graphs for the tests of passes and rules, and running them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]


def graph(
    nodes: list[onnx.NodeProto],
    constants: dict[str, Array] | None = None,
    *,
    shape: tuple[int | str, ...] = ("batch", 4, 6, 6),
    out: tuple[int | str, ...] | None = None,
    opset: int = 20,
    kinds: tuple[int, int] = (TensorProto.FLOAT, TensorProto.FLOAT),
) -> onnx.ModelProto:
    """Return a model that takes ``x`` and gives ``y``, as the nodes say."""
    rank = len(shape) if out is None else len(out)
    sides = [f"side{i}" for i in range(rank)] if out is None else list(out)
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", kinds[0], list(shape))],
        [helper.make_tensor_value_info("y", kinds[1], sides)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import))
    return model


def run(model: onnx.ModelProto, x: Array) -> Array:
    """Run a model of one input in ONNX Runtime, which changes nothing of its graph."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    found: Array = session.run(None, {session.get_inputs()[0].name: x})[0]
    return found


def noise(*shape: int) -> Array:
    """Return float32 numbers of a normal distribution, the same ones each time."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def kinds(model: onnx.ModelProto) -> set[str]:
    """Return the operators of a model."""
    return {node.op_type for node in model.graph.node}
