"""Each rule finds what it is for, and a file that edgexfer exports for the target is clean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgexfer.core.bundle import Manifest
from edgexfer.core.errors import ModelError, ProfileError
from edgexfer.export.lint import RULES, lint, lint_target
from edgexfer.export.rules.subject import Finding, Target
from edgexfer.profiles import find_profile
from tests.export.passes.graphs import Array, graph, noise

node = helper.make_node
JETSON = find_profile("jetson")
NEW = lint_target(JETSON)
OLD = lint_target(JETSON, "JetPack 5.1")
WEAK = lint_target(JETSON, "JetPack 6.0")
DLA = Target(replace(JETSON, device="DLA"), replace(OLD.row, dla=True))
AVX2 = lint_target(find_profile("x86-avx2-onnxruntime"))
CPU = lint_target(find_profile("x86-onnxruntime"))

HALF = np.array(0.02, np.float16)
SCALE = np.array(0.02, np.float32)
ZERO = np.array(0, np.int8)
KERNEL = noise(4, 4, 3, 3)
INT8 = np.full((4, 4, 3, 3), 100, np.int8)


def _qdq(x: str, y: str, *more: str, scale: str = "s", **attributes: int) -> list[onnx.NodeProto]:
    """Return a pair of nodes with their scale and, as ``more``, their zero point."""
    return [
        node("QuantizeLinear", [x, scale, *more], [f"{y}_q"], **attributes),
        node("DequantizeLinear", [f"{y}_q", scale, *more], [y], **attributes),
    ]


def _conv(x: str, y: str, weight: str = "w", **attributes: list[int]) -> onnx.NodeProto:
    return node("Conv", [x, weight], [y], name="conv", **attributes)


#: What is wrong, for which target, and the rule and severity that must be found.
CASES: dict[str, tuple[onnx.ModelProto, Target, str, str]] = {
    "opset": (graph([node("Relu", ["x"], ["y"])]), WEAK, "opset", "error"),
    "unknown operator": (
        graph([node("Frobnicate", ["x"], ["y"])], opset=17),
        CPU,
        "unknown-operator",
        "error",
    ),
    "a circle of nodes": (
        graph(
            [
                node("Add", ["x", "b"], ["a"]),
                node("Relu", ["a"], ["b"]),
                node("Relu", ["b"], ["y"]),
            ],
            opset=17,
        ),
        CPU,
        "node-order",
        "error",
    ),
    "custom domain": (
        graph([node("FusedConv", ["x"], ["y"], domain="com.microsoft")], opset=17),
        NEW,
        "custom-domain",
        "error",
    ),
    "parser lacks it": (
        graph([node("HardSwish", ["x"], ["y"])], opset=17),
        OLD,
        "parser-operator",
        "error",
    ),
    "no parser has it": (
        graph([node("Det", ["x"], ["y"])], opset=17),
        NEW,
        "parser-operator",
        "error",
    ),
    "cubic": (
        graph(
            [node("Resize", ["x", "", "scales"], ["y"], mode="cubic")],
            {"scales": np.array([1, 1, 2, 2], np.float32)},
            opset=17,
        ),
        NEW,
        "parser-form",
        "error",
    ),
    "dilated pooling": (
        graph([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=[2, 2])], opset=17),
        NEW,
        "parser-form",
        "error",
    ),
    "free size": (
        graph([node("Relu", ["x"], ["y"])], opset=17, shape=("batch", 3, "h", "w")),
        NEW,
        "dynamic-size",
        "warning",
    ),
    "size from data": (
        graph(
            [node("NonZero", ["x"], ["y"])], opset=17, kinds=(TensorProto.FLOAT, TensorProto.INT64)
        ),
        NEW,
        "data-dependent-shape",
        "warning",
    ),
    "int64 clamped": (
        graph(
            [node("Cast", ["big"], ["f"], to=1), node("Add", ["x", "f"], ["y"])],
            {"big": np.array([2**40])},
            opset=17,
        ),
        OLD,
        "wide-type",
        "error",
    ),
    "int64 input": (
        graph(
            [node("Cast", ["x"], ["y"], to=1)],
            opset=17,
            kinds=(TensorProto.INT64, TensorProto.FLOAT),
        ),
        OLD,
        "wide-type",
        "warning",
    ),
    "no zero point": (graph(_qdq("x", "y"), {"s": SCALE}, opset=17), NEW, "zero-point", "error"),
    "uint8": (
        graph(_qdq("x", "y", "z"), {"s": SCALE, "z": np.array(0, np.uint8)}, opset=17),
        NEW,
        "zero-point",
        "error",
    ),
    "asymmetric": (
        graph(_qdq("x", "y", "z"), {"s": SCALE, "z": np.array(3, np.int8)}, opset=17),
        NEW,
        "zero-point",
        "error",
    ),
    "scale of 0": (
        graph(_qdq("x", "y", "z"), {"s": SCALE * 0, "z": ZERO}, opset=17),
        CPU,
        "scale",
        "error",
    ),
    "activation per channel": (
        graph(
            _qdq("x", "y", "z", axis=1),
            {"s": np.full(4, 0.1, np.float32), "z": np.zeros(4, np.int8)},
            opset=17,
        ),
        NEW,
        "per-channel-activation",
        "error",
    ),
    "weight on the wrong axis": (
        graph(
            [
                node("DequantizeLinear", ["i8", "s", "z"], ["w"], axis=1),
                _conv("x", "y"),
            ],
            {"i8": INT8, "s": np.full(4, 0.1, np.float32), "z": np.zeros(4, np.int8)},
            opset=17,
        ),
        NEW,
        "weight-axis",
        "error",
    ),
    "bias": (
        graph(
            [
                node("DequantizeLinear", ["b", "s"], ["bias"]),
                node("Conv", ["x", "w", "bias"], ["y"]),
            ],
            {"b": np.zeros(4, np.int32), "s": SCALE, "w": KERNEL},
            opset=17,
        ),
        NEW,
        "quantized-bias",
        "error",
    ),
    "fp32 scales": (
        graph(_qdq("x", "y", "z"), {"s": SCALE, "z": ZERO}, opset=17),
        NEW,
        "scale-type",
        "warning",
    ),
    "fp16 scales": (
        graph(
            _qdq("x", "y", "z"),
            {"s": HALF, "z": ZERO},
            kinds=(TensorProto.FLOAT16, TensorProto.FLOAT16),
        ),
        WEAK,
        "scale-type",
        "error",
    ),
    "output quantized": (
        graph(
            [_conv("x", "c"), *_qdq("c", "d", "z"), node("Relu", ["d"], ["y"])],
            {"w": KERNEL, "s": SCALE, "z": ZERO},
            opset=17,
        ),
        NEW,
        "output-quantized",
        "warning",
    ),
    "both branches": (
        graph(
            [*_qdq("x", "a", "z"), *_qdq("x", "b", "z"), node("Add", ["a", "b"], ["y"])],
            {"s": SCALE, "z": ZERO},
            opset=17,
        ),
        NEW,
        "both-branches",
        "warning",
    ),
    "scales of a concat": (
        graph(
            [
                *_qdq("x", "a", "z"),
                *_qdq("x", "b", "z", scale="t"),
                node("Concat", ["a", "b"], ["y"], axis=1),
            ],
            {"s": SCALE, "t": SCALE * 2, "z": ZERO},
            opset=17,
        ),
        NEW,
        "concat-scales",
        "warning",
    ),
    "saturation": (
        graph(
            [node("DequantizeLinear", ["i8", "s", "z"], ["w"]), _conv("x", "y")],
            {"i8": INT8, "s": SCALE, "z": ZERO},
            opset=17,
        ),
        AVX2,
        "saturation",
        "warning",
    ),
    "not finite": (
        graph([_conv("x", "y")], {"w": KERNEL * np.float32(np.inf)}, opset=17),
        CPU,
        "not-finite",
        "error",
    ),
    "overflow": (
        graph([_conv("x", "y")], {"w": KERNEL + np.float32(7e4)}, opset=17),
        NEW,
        "fp16-overflow",
        "warning",
    ),
    "subnormal": (
        graph([_conv("x", "y")], {"w": KERNEL * np.float32(1e-6)}, opset=17),
        NEW,
        "fp16-subnormal",
        "note",
    ),
    "double softmax": (
        graph(
            [
                node("Softmax", ["x"], ["p"]),
                node("Identity", ["p"], ["q"]),
                node("Softmax", ["q"], ["y"], name="second"),
            ],
            opset=17,
        ),
        CPU,
        "double-softmax",
        "warning",
    ),
    "training mode": (
        graph(
            [
                node(
                    "BatchNormalization",
                    ["x", "a", "b", "c", "d"],
                    ["y", "mean", "var"],
                    training_mode=1,
                )
            ],
            {name: np.ones(4, np.float32) for name in "abcd"},
            opset=17,
        ),
        CPU,
        "training-mode",
        "error",
    ),
    "unfused": (
        graph(
            [_conv("x", "n"), node("BatchNormalization", ["n", "a", "b", "c", "d"], ["y"])],
            {"w": KERNEL, **{name: np.ones(4, np.float32) for name in "abcd"}},
            opset=17,
        ),
        CPU,
        "unfused-norm",
        "warning",
    ),
    "release without DLA": (
        graph([node("Relu", ["x"], ["y"])], opset=13, shape=(1, 4, 6, 6)),
        Target(DLA.profile, WEAK.row),
        "dla-release",
        "error",
    ),
    "free batch on the DLA": (
        graph([node("Relu", ["x"], ["y"])], opset=13),
        DLA,
        "dla-shape",
        "note",
    ),
    "too many for the DLA": (
        graph([node("Relu", ["x"], ["y"])], opset=13, shape=(5000, 4, 6, 6)),
        DLA,
        "dla-shape",
        "error",
    ),
    "mean on the DLA": (
        graph([node("ReduceMean", ["x"], ["y"], axes=[2, 3])], opset=13, shape=(1, 4, 6, 6)),
        DLA,
        "dla-operator",
        "warning",
    ),
    "kernel on the DLA": (
        graph([_conv("x", "y")], {"w": noise(4, 4, 33, 1)}, opset=13, shape=(1, 4, 40, 40)),
        DLA,
        "dla-limit",
        "warning",
    ),
    "window on the DLA": (
        graph(
            [node("AveragePool", ["x"], ["y"], kernel_shape=[9, 9])],
            opset=13,
            shape=(1, 4, 20, 20),
        ),
        DLA,
        "dla-limit",
        "warning",
    ),
    "concat on the DLA": (
        graph([node("Concat", ["x", "x"], ["y"], axis=2)], opset=13, shape=(1, 4, 6, 6)),
        DLA,
        "dla-limit",
        "warning",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_rule_finds_what_it_is_for(name: str, tmp_path: Path) -> None:
    model, target, rule, severity = CASES[name]
    onnx.save(model, tmp_path / "net.onnx")
    found = [f for f in lint(tmp_path / "net.onnx", target) if f.rule == rule]
    assert {f.severity for f in found} == {severity}
    for finding in found:
        assert finding.text and finding.mend and finding.source
        assert finding.node or rule in ("opset", "dla-release")


@pytest.mark.parametrize("op", ["Identity", "Softmax"])
def test_a_circle_at_the_end_is_found_and_does_not_hang(op: str, tmp_path: Path) -> None:
    nodes = [node(op, ["y"], ["a"]), node("Identity", ["a"], ["y"])]
    onnx.save(graph(nodes, opset=17), tmp_path / "net.onnx")
    rules = {f.rule: f.severity for f in lint(tmp_path / "net.onnx", CPU)}
    assert rules["node-order"] == "error"
    assert "double-softmax" not in rules


@pytest.mark.parametrize(
    ("shape", "axis", "good"),
    [((6, 5), 1, True), ((6, 5), -1, True), ((6, 5), 0, False), ((4, 6, 5), 2, True)],
)
def test_the_axis_of_a_products_scales_is_its_last(
    shape: tuple[int, ...], axis: int, good: bool, tmp_path: Path
) -> None:
    zeros = np.zeros(shape[axis], np.int8)
    scales = np.full(shape[axis], 0.02, np.float32)
    constants: dict[str, Array] = {"w": np.ones(shape, np.int8), "s": scales, "z": zeros}
    nodes = [
        node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=axis),
        node("MatMul", ["x", "d"], ["y"]),
    ]
    onnx.save(graph(nodes, constants, opset=17), tmp_path / "net.onnx")
    rules = {f.rule for f in lint(tmp_path / "net.onnx", WEAK)}
    assert ("weight-axis" in rules) == (not good)


def test_a_dynamic_rank_is_found(tmp_path: Path) -> None:
    model = graph([node("Relu", ["x"], ["y"])], opset=17)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "net.onnx")
    assert [f.rule for f in lint(tmp_path / "net.onnx", NEW)] == ["dynamic-rank"]
    for target, severity, source in (
        ("jetson", "error", "TensorRT developer guide"),
        ("x86-onnxruntime", "warning", "ONNX Runtime documentation"),
        ("x86-openvino", "warning", "OpenVINO documentation"),
    ):
        (found,) = lint(tmp_path / "net.onnx", lint_target(find_profile(target)))
        assert found.severity == severity
        assert found.source.startswith(source)


@pytest.mark.parametrize("target", ["x86-onnxruntime", "rpi5"])
def test_half_precision_is_noted_where_the_runtime_has_none(target: str, tmp_path: Path) -> None:
    nodes = [
        node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        *_qdq("h", "d", "z", scale="s"),
        node("Cast", ["d"], ["y"], to=TensorProto.FLOAT),
    ]
    onnx.save(graph(nodes, {"s": HALF, "z": ZERO}, opset=20), tmp_path / "net.onnx")
    (found,) = lint(tmp_path / "net.onnx", lint_target(find_profile(target)))
    assert (found.severity, found.rule) == ("note", "half-without-it")
    assert found.text.startswith("3 nodes are typed FP16")
    here = lint(tmp_path / "net.onnx", lint_target(find_profile("rpi5-openvino")))
    assert "half-without-it" not in {f.rule for f in here}


def test_weights_beside_the_file_are_read_and_told(tmp_path: Path) -> None:
    model = graph([_conv("x", "y")], {"w": KERNEL * np.float32(1e9)}, opset=17)
    file = tmp_path / "net.onnx"
    onnx.save(model, file, save_as_external_data=True, location="net.bin", size_threshold=0)
    found = {f.rule: f for f in lint(file, NEW)}
    assert set(found) == {"external-data", "fp16-overflow"}
    assert "net.bin" in found["external-data"].text


@pytest.mark.parametrize("target", ["jetson", "x86-onnxruntime"])
def test_what_edgexfer_exports_is_clean(target: str, bundle: tuple[Path, Manifest]) -> None:
    place, manifest = bundle
    aim = lint_target(find_profile(target))
    files = {a.files[0].path for a in manifest.artefacts if a.target == aim.profile.name}
    assert files
    for file in files:
        assert [f for f in lint(place / file, aim) if f.severity == "error"] == []


def test_every_rule_says_what_it_asks_and_whence(tmp_path: Path) -> None:
    names: list[str] = [rule.__name__ for rule in RULES]
    assert len(set(names)) == len(names)
    asked: Callable[..., object]
    for asked in RULES:
        assert "Source:" in (asked.__doc__ or ""), asked


#: Nodes that are no nodes of their operator, and a type of a constant that ONNX does not have.
DAMAGED: dict[str, tuple[onnx.NodeProto, int]] = {
    "no scale": (node("QuantizeLinear", ["x"], ["y"]), TensorProto.FLOAT),
    "a number for a list": (
        node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], dilations=1),
        TensorProto.FLOAT,
    ),
    "no type": (node("Conv", ["x", "w"], ["y"]), TensorProto.UNDEFINED),
    "an unknown type": (node("Conv", ["x", "w"], ["y"]), 99),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_node_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    broken, kind = DAMAGED[name]
    model = graph([broken], {"w": KERNEL, "s": SCALE}, opset=17)
    model.graph.initializer[1].data_type = kind
    model.graph.node.append(node("QuantizeLinear", ["y", "s"], ["z"]))
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ModelError) as caught:
        lint(tmp_path / "net.onnx", NEW)
    assert "net.onnx: is damaged" in caught.value.what
    assert "export it again" in caught.value.fix


def test_a_release_that_the_profile_lacks_is_refused() -> None:
    with pytest.raises(ProfileError, match="JetPack 9") as caught:
        lint_target(JETSON, "JetPack 9")
    assert "JetPack" in caught.value.fix


def test_errors_come_first(tmp_path: Path) -> None:
    nodes = [*_qdq("x", "a"), node("Add", ["a", "a"], ["y"])]
    onnx.save(graph(nodes, {"s": SCALE}, opset=17), tmp_path / "net.onnx")
    found: list[Finding] = lint(tmp_path / "net.onnx", NEW)
    order = [f.severity for f in found]
    assert order == sorted(order) and {"error", "warning"} == set(order)
