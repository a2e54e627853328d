"""Weights that lie beside an ONNX file: read where they may be, refused elsewhere.

Each unsafe place is tested through the command line, in ``tests/cli/bad_lint.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgexfer.core.errors import ModelError
from edgexfer.models.onnxfile import examine, external_files, read_onnx


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


def test_a_file_beyond_protobufs_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "net.onnx").open("wb") as stream:
        stream.truncate(2 << 30)  # takes no room on the disk
    with pytest.raises(ModelError, match="larger than the 2 GiB") as caught:
        examine(tmp_path / "net.onnx")
    assert "save_as_external_data" in caught.value.fix


def test_a_file_that_ends_its_parser_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(_model(numpy_helper.from_array(np.zeros(4, np.float32), "w")), tmp_path / "net.onnx")
    examine(tmp_path / "net.onnx", check="valid")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ModelError, match=r"net\.onnx: cannot be parsed within 10 s") as caught:
        examine(tmp_path / "net.onnx")
    assert "do not trust it" in caught.value.fix


def test_nothing_beside_the_file_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(_model(numpy_helper.from_array(np.zeros(4, np.float32), "w")), tmp_path / "net.onnx")
    (tmp_path / "onnx.py").write_text("open('executed', 'w')\n")
    monkeypatch.chdir(tmp_path)
    examine(Path("net.onnx"))
    assert not (tmp_path / "executed").exists()


def test_what_a_runtime_alone_knows_or_the_file_defines_may_be_run(tmp_path: Path) -> None:
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    opsets = [helper.make_opsetid(domain, 1) for domain in ("com.microsoft", "own")]
    opsets.append(helper.make_opsetid("", 17))
    doubled = helper.make_node("Add", ["a", "a"], ["b"])
    nodes = [
        helper.make_node("FusedGelu", ["x"], ["p"], domain="com.microsoft"),
        helper.make_node("SimplifiedLayerNormalization", ["p", "w"], ["q"]),
        helper.make_node("Double", ["q"], ["r"], domain="own"),
        helper.make_node("If", ["c"], ["y"]),
    ]
    weights = [numpy_helper.from_array(np.ones(4, np.float32), "w")]
    graph = helper.make_graph(nodes, "graph", sides[:1], sides[1:], weights)
    body = helper.make_function("own", "Double", ["a"], ["b"], [doubled], opsets)
    model = helper.make_model(graph, functions=[body], opset_imports=opsets)
    # Since IR 4 a weight need be no input; before it stood there too, and its shape was its own.
    model.graph.input.add(name="w").type.tensor_type.elem_type = TensorProto.FLOAT
    onnx.save(model, tmp_path / "net.onnx")
    assert examine(tmp_path / "net.onnx", check="runnable") == []


def test_the_files_beside_it_are_told(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(bytes(16))
    onnx.save(_model(_tensor("sub/w.bin")), tmp_path / "net.onnx")
    assert examine(tmp_path / "net.onnx") == [tmp_path / "sub" / "w.bin"]
