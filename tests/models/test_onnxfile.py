"""Weights that lie beside an ONNX file: read where they may be, refused elsewhere.

Each unsafe place is tested through the command line, in ``tests/cli/bad_lint.py``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgexfer.core.errors import ModelError
from edgexfer.models.onnxfile import external_files, read_onnx


def _tensor(location: str, *, offset: str = "0", length: str = "16") -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=value)
    return tensor


def _model(tensor: TensorProto) -> onnx.ModelProto:
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return helper.make_model(helper.make_graph([node], "graph", sides[:1], sides[1:], [tensor]))


def test_files_beside_the_model_are_named_once(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(16))
    model = _model(_tensor("w.bin"))
    model.graph.initializer.append(_tensor("w.bin", length="8"))
    assert external_files(tmp_path / "net.onnx", model) == [tmp_path / "w.bin"]


@pytest.mark.parametrize(
    ("offset", "length"), [("1", "16"), ("0", str(2**60)), ("-1", "4"), ("0", "-4"), ("x", "4")]
)
def test_a_tensor_beyond_its_file_is_refused(tmp_path: Path, offset: str, length: str) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(16))
    model = _model(_tensor("w.bin", offset=offset, length=length))
    with pytest.raises(ModelError, match=r"w\.bin: does not hold all of 'w'"):
        external_files(tmp_path / "net.onnx", model)


def test_weights_of_an_inner_graph_and_of_a_function_are_looked_at_too(tmp_path: Path) -> None:
    tensor = _tensor("../w.bin")
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    inner = helper.make_graph([constant], "inner", [], [])
    branch = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    outer = helper.make_model(helper.make_graph([branch], "graph", [], []))
    opsets = [helper.make_opsetid("", 17)]
    body = helper.make_function("own", "f", [], ["c"], [constant], opsets)
    called = helper.make_model(helper.make_graph([], "graph", [], []), functions=[body])
    sparse = helper.make_model(helper.make_graph([], "graph", [], []))
    sparse.graph.sparse_initializer.add().values.CopyFrom(tensor)
    for model in (outer, called, sparse):
        with pytest.raises(ModelError, match="unsafe place") as caught:
            external_files(tmp_path / "net.onnx", model)
        assert "onnx.save" in caught.value.fix


def test_a_fifo_is_not_opened(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "w.bin")
    with pytest.raises(ModelError, match="is missing"):
        external_files(tmp_path / "net.onnx", _model(_tensor("w.bin")))
    os.mkfifo(tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="no such file"):
        read_onnx(tmp_path / "net.onnx")
