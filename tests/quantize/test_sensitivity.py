"""One node quantized, all others in float: exact at both ends, and a planted bad node is first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgexfer.bench.compare import compare
from edgexfer.core.profile import Quantization
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.observe import extremes
from edgexfer.quantize.qdq import Placed, write_qdq
from edgexfer.quantize.sensitivity import (
    keep_quantized,
    logits_of,
    measure_nodes,
    quantized_nodes,
)

SCHEMES = [
    pytest.param(Placed(Quantization(activations="uint8"), False, whole=True), id="runtime"),
    pytest.param(Placed(Quantization(activations="int8"), True, whole=True), id="restricted"),
]


def quantized(model: Path, folder: Path, placed: Placed, calibration: Calibration) -> Path:
    write_qdq(model, folder / "q.onnx", extremes(model, calibration), placed)
    return folder / "q.onnx"


@pytest.mark.parametrize("placed", SCHEMES)
def test_no_node_is_the_float_graph_and_every_node_the_quantized_one(
    placed: Placed, fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    base = onnx.load(fp32)
    whole = onnx.load(quantized(fp32, tmp_path, placed, calibration))
    wanted = logits_of(base, calibration, "base")
    none = keep_quantized(whole, base, frozenset())
    onnx.checker.check_model(none, full_check=True)
    assert not {n.op_type for n in none.graph.node} & {"QuantizeLinear", "DequantizeLinear"}
    assert np.array_equal(logits_of(none, calibration, "none"), wanted)
    names = {name for name, _ in quantized_nodes(whole)}
    every = keep_quantized(whole, base, names)
    assert np.array_equal(
        logits_of(every, calibration, "every"), logits_of(whole, calibration, "whole")
    )


@pytest.mark.parametrize("placed", SCHEMES)
def test_one_node_alone_costs_less_than_all(
    placed: Placed, fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    file = quantized(fp32, tmp_path, placed, calibration)
    found = measure_nodes(file, fp32, calibration)
    assert {f.node for f in found} == {name for name, _ in quantized_nodes(onnx.load(file))}
    alone = [1000.0 if f.alone_db is None else f.alone_db for f in found]
    assert alone == sorted(alone)
    whole = compare(
        logits_of(onnx.load(fp32), calibration, "f"), logits_of(onnx.load(file), calibration, "q")
    ).sqnr_db
    assert whole is not None
    assert alone[0] > whole
    assert sum(f.share_pct for f in found) == pytest.approx(100.0)


def test_a_channel_that_a_scale_for_all_channels_cannot_hold_is_named(
    fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    proto = onnx.load(fp32)
    bad = [n for n in proto.graph.node if n.op_type == "Conv"][3]
    tensor = next(t for t in proto.graph.initializer if t.name == bad.input[1])
    values = np.array(numpy_helper.to_array(tensor))
    values[0] *= 100
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, tmp_path / "bad.onnx")
    scheme = Quantization(activations="int8", weights="int8-per-tensor")
    placed = Placed(scheme, restricted=True, whole=True)
    file = quantized(tmp_path / "bad.onnx", tmp_path, placed, calibration)
    found = measure_nodes(file, tmp_path / "bad.onnx", calibration)
    assert bad.name in {f.node for f in found[:2]}


def test_a_scale_that_is_far_too_coarse_is_named(
    fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    placed = Placed(Quantization(activations="int8"), True, whole=True)
    proto = onnx.load(quantized(fp32, tmp_path, placed, calibration))
    scale = next(t for t in proto.graph.initializer if t.name == "relu_3_scale")
    coarse = np.asarray(numpy_helper.to_array(scale) * np.float32(50))
    scale.CopyFrom(numpy_helper.from_array(coarse, scale.name))
    onnx.save(proto, tmp_path / "q.onnx")
    first = measure_nodes(tmp_path / "q.onnx", fp32, calibration)[0]
    taker = next(n for n in onnx.load(fp32).graph.node if n.input[0] == "relu_3")
    assert first.node == taker.name
    assert first.share_pct > 90


def test_a_node_before_a_later_output_counts_too(
    fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    proto = onnx.load(fp32)
    first = next(n for n in proto.graph.node if n.output[0] == proto.graph.output[0].name)
    second = proto.graph.node.add()
    second.CopyFrom(first)
    second.name, second.output[0] = "second", "second_logits"
    output = proto.graph.output.add()
    output.CopyFrom(proto.graph.output[0])
    output.name = "second_logits"
    onnx.save(proto, tmp_path / "two.onnx")
    placed = Placed(Quantization(activations="int8"), restricted=True, whole=True)
    file = quantized(tmp_path / "two.onnx", tmp_path, placed, calibration)
    alone = {f.node: f for f in measure_nodes(file, tmp_path / "two.onnx", calibration)}
    assert alone["second"].alone_db is not None
    assert alone["second"].share_pct == pytest.approx(alone[first.name].share_pct)
