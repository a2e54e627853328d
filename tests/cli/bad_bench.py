"""Bad inputs of ``bench``: models that are none, and options that do not go together."""

from __future__ import annotations

import os
from pathlib import Path

from onnx import helper

from edgexfer.core.backend import Plan, get_backend
from tests.bundles import write_onnx
from tests.cli.bad import Place
from tests.cli.bad_lint import outside, written

SHORT = ("--processes", "1", "--seconds", "0.01", "--samples", "10")


def _bench(place: Path, *more: str) -> list[str]:
    return ["bench", str(place), *SHORT, *more]


def _model(p: Place) -> Path:
    return write_onnx(p.here / "net.onnx")


def model_missing(p: Place) -> list[str]:
    return _bench(p.here / "no.onnx")


def model_empty(p: Place) -> list[str]:
    (p.here / "empty.onnx").write_bytes(b"")
    return _bench(p.here / "empty.onnx")


def model_text(p: Place) -> list[str]:
    (p.here / "text.onnx").write_text("<html>not found</html>\n")
    return _bench(p.here / "text.onnx")


def weights_by_hard_link(p: Place) -> list[str]:
    model = outside(p, "w.bin")
    os.link(p.here / "weights.bin", model.parent / "w.bin")
    return _bench(model, "--runtime", "onnxruntime,openvino")


def weights_by_symlink(p: Place) -> list[str]:
    model = outside(p, "w.bin")
    (model.parent / "w.bin").symlink_to(p.here / "weights.bin")
    return _bench(model, "--runtime", "openvino")


def weights_climb(p: Place) -> list[str]:
    return _bench(outside(p, "../weights.bin"))


def weights_absolute(p: Place) -> list[str]:
    return _bench(outside(p, str(p.here / "weights.bin")))


def operator_unknown(p: Place) -> list[str]:
    return _bench(written(p, [helper.make_node("Frobnicate", ["x"], ["y"])], []))


def operator_of_a_custom_domain(p: Place) -> list[str]:
    inner = helper.make_graph(
        [helper.make_node("Own", ["x"], ["z"], domain="com.acme")], "inner", [], []
    )
    branches = {"then_branch": inner, "else_branch": inner}
    return _bench(written(p, [helper.make_node("If", ["x"], ["y"], **branches)], []))


def input_without_a_rank(p: Place) -> list[str]:
    return _bench(written(p, [helper.make_node("Relu", ["x"], ["y"])], [], None))


def model_of_an_unknown_kind(p: Place) -> list[str]:
    (p.here / "net.tflite").write_bytes(b"TFL3")
    return _bench(p.here / "net.tflite")


def ir_without_weights(p: Place) -> list[str]:
    place = p.here / "net.xml"
    get_backend("openvino").compile(_model(p), place, Plan())
    place.with_suffix(".bin").unlink()
    return _bench(place)


def runtime_unknown(p: Place) -> list[str]:
    return _bench(_model(p), "--runtime", "onnxrt")


def runtime_that_loads_no_such_file(p: Place) -> list[str]:
    (p.here / "net.xml").write_text("<net/>")
    return _bench(p.here / "net.xml", "--runtime", "onnxruntime")


def precision_unknown(p: Place) -> list[str]:
    return _bench(_model(p), "--precision", "fp23")


def precision_that_the_runtime_lacks(p: Place) -> list[str]:
    return _bench(_model(p), "--precision", "bf16")


def precision_of_no_artefact(p: Place) -> list[str]:
    return _bench(p.bundle, "--precision", "bf16")


def engine_without_precision(p: Place) -> list[str]:
    (p.here / "net.engine").write_bytes(b"ftrt")
    return _bench(p.here / "net.engine")


def target_of_a_bare_model(p: Place) -> list[str]:
    return _bench(_model(p), "--target", "x86-onnxruntime")


def shape_without_sizes(p: Place) -> list[str]:
    return _bench(_model(p), "--shape", "images:1x3xW")


def shape_of_an_unknown_input(p: Place) -> list[str]:
    return _bench(_model(p), "--shape", "image:1x3x16x16")


def shape_that_does_not_fit(p: Place) -> list[str]:
    return _bench(_model(p), "--shape", "images:1x3x20x20")


def server_without_a_bound(p: Place) -> list[str]:
    return _bench(_model(p), "--scenario", "server")


def bound_without_a_server(p: Place) -> list[str]:
    return _bench(_model(p), "--latency-bound-ms", "5")


def several_streams_of_one(p: Place) -> list[str]:
    return _bench(_model(p), "--streams", "2")


def one_stream_of_several(p: Place) -> list[str]:
    return _bench(_model(p), "--scenario", "multi_stream")


def batch_of_a_query(p: Place) -> list[str]:
    return _bench(_model(p), "--scenario", "server", "--latency-bound-ms", "5", "--batch", "4")


def scenario_unknown(p: Place) -> list[str]:
    return _bench(_model(p), "--scenario", "singlestream")


def seconds_below_zero(p: Place) -> list[str]:
    return _bench(_model(p), "--seconds", "-1")


def records_into_the_bundle(p: Place) -> list[str]:
    return _bench(p.bundle, "--out", str(p.bundle / "bench"))
