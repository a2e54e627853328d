"""Bad ONNX files, to ``lint`` and as a teacher: broken, hostile, or with weights elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.cli.bad import Place, distill

NCHW = [1, 3, 16, 16]


def _lint(place: Path, *more: str) -> list[str]:
    return ["lint", str(place), "--target", "jetson", *more]


def _good(p: Place) -> Path:
    return next((p.bundle / "models").glob("fp32*.onnx"))


def outside(p: Place, location: str) -> Path:
    """Write a model whose weight is said to lie elsewhere, and weights beside its folder."""
    folder = p.here / "model"
    folder.mkdir()
    (p.here / "weights.bin").write_bytes(bytes(16))
    weight = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    onnx.external_data_helper.set_external_data(weight, location, 0, 16)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    sides = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [4]) for n in "xy"]
    node = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "graph", sides[:1], sides[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    return folder / "net.onnx"


def lint_missing(p: Place) -> list[str]:
    return _lint(p.here / "no.onnx")


def lint_empty(p: Place) -> list[str]:
    (p.here / "empty.onnx").write_bytes(b"")
    return _lint(p.here / "empty.onnx")


def lint_text(p: Place) -> list[str]:
    (p.here / "text.onnx").write_text("<html>not found</html>\n")
    return _lint(p.here / "text.onnx")


def lint_cut_short(p: Place) -> list[str]:
    place = p.here / "cut.onnx"
    place.write_bytes(_good(p).read_bytes()[:2000])
    return _lint(place)


def lint_weights_climb(p: Place) -> list[str]:
    return _lint(outside(p, "../weights.bin"))


def lint_weights_absolute(p: Place) -> list[str]:
    return _lint(outside(p, str(p.here / "weights.bin")))


def lint_weights_by_symlink(p: Place) -> list[str]:
    model = outside(p, "w.bin")
    (model.parent / "w.bin").symlink_to(p.here / "weights.bin")
    return _lint(model)


def lint_weights_by_hard_link(p: Place) -> list[str]:
    model = outside(p, "w.bin")
    os.link(p.here / "weights.bin", model.parent / "w.bin")
    return _lint(model)


def lint_weights_missing(p: Place) -> list[str]:
    return _lint(outside(p, "w.bin"))


def lint_weights_too_short(p: Place) -> list[str]:
    model = outside(p, "w.bin")
    (model.parent / "w.bin").write_bytes(bytes(15))
    return _lint(model)


def lint_unknown_release(p: Place) -> list[str]:
    return _lint(_good(p), "--stack", "JetPack 5")


def lint_unknown_target(p: Place) -> list[str]:
    return ["lint", str(_good(p)), "--target", "jetzon"]


def lint_weights_by_a_linked_folder(p: Place) -> list[str]:
    model = outside(p, "sub/weights.bin")
    (model.parent / "sub").symlink_to(p.here)
    return _lint(model)


def lint_weights_climb_behind_a_folder(p: Place) -> list[str]:
    return _lint(outside(p, "junk/../../weights.bin"))


def lint_weights_in_memory(p: Place) -> list[str]:
    return _lint(outside(p, "*/_ORT_MEM_ADDR_/*"))


def lint_weights_are_a_pipe(p: Place) -> list[str]:
    model = outside(p, "w.bin")
    os.mkfifo(model.parent / "w.bin")
    return _lint(model)


def lint_pipe(p: Place) -> list[str]:
    os.mkfifo(p.here / "net.onnx")
    return _lint(p.here / "net.onnx")


def lint_claims_more_than_it_holds(p: Place) -> list[str]:
    weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[10**6, 10**6])
    return _lint(written(p, [helper.make_node("Add", ["x", "w"], ["y"])], [weight]))


def lint_nested_without_end(p: Place) -> list[str]:
    graph = b""
    for _ in range(3000):  # an attribute (5) of a node (1) holds a graph (6)
        graph = _field(1, _field(5, _field(6, graph)))
    (p.here / "deep.onnx").write_bytes(_field(7, graph))
    return _lint(p.here / "deep.onnx")


def teacher_of_an_unknown_operator(p: Place) -> list[str]:
    return _teach(p, helper.make_node("Frobnicate", ["x"], ["y"]))


def teacher_of_a_custom_domain(p: Place) -> list[str]:
    return _teach(p, helper.make_node("Own", ["x"], ["y"], domain="com.acme"))


def teacher_of_a_dynamic_rank(p: Place) -> list[str]:
    return _teach(p, helper.make_node("Relu", ["x"], ["y"]), shape=None)


def teacher_of_a_circle(p: Place) -> list[str]:
    first = helper.make_node("Add", ["x", "b"], ["a"])
    last = helper.make_node("Relu", ["b"], ["y"])
    return _teach(p, first, helper.make_node("Relu", ["a"], ["b"]), last)


def _teach(p: Place, *nodes: onnx.NodeProto, shape: list[int] | None = NCHW) -> list[str]:
    card = p.here / "card.yaml"
    card.write_text("classes: [red, green, blue]\npreprocess: {size: [16, 16], resize: 16}\n")
    model = written(p, list(nodes), [], shape)
    return distill(p, "--teacher-card", str(card), teacher=model)


def written(
    p: Place,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    shape: list[int] | None = NCHW,
) -> Path:
    sides = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n in "xy"]
    graph = helper.make_graph(nodes, "graph", sides[:1], sides[1:], weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    (p.here / "net.onnx").write_bytes(model.SerializeToString())
    return p.here / "net.onnx"


def _field(number: int, content: bytes) -> bytes:
    """Write a message as a field of protobuf's."""
    size, left = b"", len(content)
    while left > 127:
        size, left = size + bytes([left & 127 | 128]), left >> 7
    return bytes([number << 3 | 2]) + size + bytes([left]) + content
