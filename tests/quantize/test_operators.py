"""Each operator computes what ONNX Runtime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper

from edgexfer.core.errors import ModelError
from edgexfer.quantize.operators import get_operator

RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


X = noise(2, 4, 6, 6)
Case = tuple[str, list[Any], dict[str, Any]]
CASES: list[Case] = [
    ("Conv", [X, noise(6, 4, 3, 3), noise(6)], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("Conv", [X, noise(4, 1, 3, 3)], {"group": 4, "pads": [0, 0, 1, 1], "dilations": [2, 2]}),
    ("MaxPool", [X], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("MaxPool", [X], {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}),
    ("AveragePool", [X], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", [X], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("Gemm", [noise(3, 5), noise(7, 5), noise(7)], {"transB": 1}),
    ("Gemm", [noise(5, 3), noise(5, 7), noise(7)], {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    ("MatMul", [noise(2, 3, 5), noise(5, 4)], {}),
    ("BatchNormalization", [X, noise(4), noise(4), noise(4), noise(4) ** 2], {"epsilon": 1e-3}),
    ("LayerNormalization", [noise(2, 3, 8), noise(8), noise(8)], {"axis": -1, "epsilon": 1e-6}),
    ("Relu", [X], {}),
    ("Clip", [X, np.float32(-0.5), np.float32(0.5)], {}),
    ("HardSwish", [4 * X], {}),
    ("HardSigmoid", [4 * X], {"alpha": 1 / 6, "beta": 0.5}),
    ("Sigmoid", [X], {}),
    ("Tanh", [X], {}),
    ("Erf", [X], {}),
    ("Gelu", [X], {"approximate": "tanh"}),
    ("Softmax", [X], {"axis": 1}),
    ("ReduceMean", [X, ints(2, 3)], {"keepdims": 0}),
    ("GlobalAveragePool", [X], {}),
    ("Reshape", [X, ints(0, -1)], {}),
    ("Flatten", [X], {"axis": 2}),
    ("Transpose", [X], {"perm": [0, 2, 3, 1]}),
    ("Squeeze", [noise(2, 1, 3, 1), ints(1, -1)], {}),
    ("Unsqueeze", [noise(2, 3), ints(0, -1)], {}),
    ("Slice", [X, ints(1, -5), ints(2**63 - 1, -1), ints(1, 2), ints(2, 1)], {}),
    ("Slice", [X, ints(-(2**63)), ints(1)], {}),
    ("Split", [X, ints(1, 3)], {"axis": 1}),
    ("Split", [X], {"axis": 2, "num_outputs": 2}),
    ("Gather", [X, ints(2, 0)], {"axis": 1}),
    ("Gather", [X, np.array(-1, np.int64)], {"axis": 2}),
    ("Pad", [X, ints(0, 0, 1, 2, 0, 0, 3, 4), np.float32(0.5)], {}),
    ("Shape", [X], {"start": 1, "end": 3}),
    ("Expand", [noise(1, 3, 1), ints(2, 1, 4)], {}),
    ("Concat", [X, noise(2, 1, 6, 6)], {"axis": 1}),
    ("Add", [X, noise(4, 1, 1)], {}),
    ("Pow", [np.abs(X), np.float32(2.0)], {}),
]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)]
)
def test_an_operator_computes_what_onnx_runtime_computes(
    op: str, inputs: list[np.ndarray], attributes: dict[str, Any]
) -> None:
    names = [f"in{i}" for i in range(len(inputs))]
    count = 2 if op == "Split" else 1
    outputs = [f"out{i}" for i in range(count)]
    kinds = [helper.np_dtype_to_tensor_dtype(np.asarray(i).dtype) for i in inputs]
    graph = helper.make_graph(
        [helper.make_node(op, names, outputs, **attributes)],
        op,
        [
            helper.make_tensor_value_info(n, kind, np.shape(i))
            for n, kind, i in zip(names, kinds, inputs, strict=True)
        ],
        [helper.make_empty_tensor_value_info(o) for o in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    feed = {name: np.asarray(value) for name, value in zip(names, inputs, strict=True)}
    wanted = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)
    tensors = [torch.from_numpy(np.array(i)) for i in inputs]
    found = get_operator(op)(tensors, attributes)
    results = found if isinstance(found, tuple) else (found,)
    assert len(results) == len(wanted)
    for result, value in zip(results, wanted, strict=True):
        assert result.shape == value.shape
        assert np.allclose(result.numpy(), value, rtol=1e-4, atol=1e-5)


def test_an_unknown_operator_is_named() -> None:
    with pytest.raises(ModelError) as caught:
        get_operator("Einsum")
    assert caught.value.what == "operator Einsum: quantization-aware training does not know it"
    assert "--qat-for" in caught.value.fix


def test_uneven_padding_of_an_average_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        get_operator("AveragePool")(
            [torch.from_numpy(X)], {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}
        )
    assert "AveragePool: quantization-aware training does not know uneven padding" in (
        caught.value.what
    )
    assert "--qat-for" in caught.value.fix
