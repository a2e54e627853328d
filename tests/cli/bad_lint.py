"""Bad inputs of ``lint``: files that are no ONNX, and weights where they must not be."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.cli.bad import Place


def _lint(place: Path, *more: str) -> list[str]:
    return ["lint", str(place), "--target", "jetson", *more]


def _good(p: Place) -> Path:
    return next((p.bundle / "models").glob("fp32*.onnx"))


def _outside(p: Place, location: str) -> Path:
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
    return _lint(_outside(p, "../weights.bin"))


def lint_weights_absolute(p: Place) -> list[str]:
    return _lint(_outside(p, str(p.here / "weights.bin")))


def lint_weights_by_symlink(p: Place) -> list[str]:
    model = _outside(p, "w.bin")
    (model.parent / "w.bin").symlink_to(p.here / "weights.bin")
    return _lint(model)


def lint_weights_by_hard_link(p: Place) -> list[str]:
    model = _outside(p, "w.bin")
    os.link(p.here / "weights.bin", model.parent / "w.bin")
    return _lint(model)


def lint_weights_missing(p: Place) -> list[str]:
    return _lint(_outside(p, "w.bin"))


def lint_weights_too_short(p: Place) -> list[str]:
    model = _outside(p, "w.bin")
    (model.parent / "w.bin").write_bytes(bytes(15))
    return _lint(model)


def lint_unknown_release(p: Place) -> list[str]:
    return _lint(_good(p), "--stack", "JetPack 5")


def lint_unknown_target(p: Place) -> list[str]:
    return ["lint", str(_good(p)), "--target", "jetzon"]
