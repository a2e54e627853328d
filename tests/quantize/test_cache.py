"""A float file and a calibration cache say all that the Q/DQ file said that they are made from."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgexfer.bench.accuracy import predict
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.profile import Quantization
from edgexfer.quantize.cache import cache_text, split_qdq
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.placement import place, plan
from edgexfer.quantize.qdq import quantize_qdq
from edgexfer.quantize.ranges import Range
from tests.export.digits import PREPROCESS, measured_images

pytestmark = pytest.mark.ort


@pytest.fixture(scope="module")
def files(
    fp32: Path, calibration: Calibration, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path]:
    """A Q/DQ file, and the float file and cache of it."""
    folder = tmp_path_factory.mktemp("cache")
    quantized, model, cache = (folder / name for name in ("q.onnx", "f.onnx", "f.cache"))
    quantize_qdq(fp32, quantized, calibration, Quantization(), restricted=True)
    split_qdq(quantized, model, cache, "8.5.2")
    return quantized, model, cache


def read_cache(cache: Path) -> dict[str, float]:
    """Read the scales as TensorRT does: the bits of a float32 in hexadecimal, after the name."""
    lines = cache.read_text().splitlines()[1:]
    pairs = (line.rsplit(": ", 1) for line in lines)
    return {name: struct.unpack(">f", bytes.fromhex(bits))[0] for name, bits in pairs}


def test_the_float_file_and_the_scales_make_the_same_int8_again(
    files: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    quantized, model, cache = files
    proto, scales = onnx.load(model), read_cache(cache)
    assert not {"QuantizeLinear", "DequantizeLinear"} & {n.op_type for n in proto.graph.node}
    leaders = set(plan(proto).groups.values())
    ranges = {name: Range(scales[name], 0) for name in leaders}
    onnx.save(place(proto, ranges), tmp_path / "again.onnx")
    images, _ = measured_images(50)
    logits = [
        predict(get_backend("onnxruntime").load(file, Plan("int8", threads=1)), images, PREPROCESS)
        for file in (quantized, tmp_path / "again.onnx")
    ]
    assert np.array_equal(logits[0], logits[1])


def test_scales_are_of_tensors_that_the_float_file_has(files: tuple[Path, Path, Path]) -> None:
    _, model, cache = files
    graph = onnx.load(model).graph
    named = {i.name for i in graph.input} | {name for n in graph.node for name in n.output}
    scales = read_cache(cache)
    assert set(scales) <= named
    assert {i.name for i in graph.input} <= set(scales)
    assert all(scale > 0 for scale in scales.values())


def test_a_convolution_has_the_scale_of_its_relu_so_that_it_runs_in_int8(
    files: tuple[Path, Path, Path],
) -> None:
    """TensorRT falls back from INT8 for any layer that takes or gives a tensor without a scale."""
    _, model, cache = files
    graph, scales = onnx.load(model).graph, read_cache(cache)
    makers = {name: node for node in graph.node for name in node.output}
    before = {n.input[0]: n.output[0] for n in graph.node if n.op_type == "Relu"}
    convs = [name for name in before if makers[name].op_type == "Conv"]
    assert len(convs) >= 4
    for name in convs:
        assert scales[name] == scales[before[name]]
    # A convolution that is added to has no scale of its own, as in the Q/DQ file.
    adds = [node for node in graph.node if node.op_type == "Add"]
    assert adds
    assert all(sum(name in scales for name in node.input) == 1 for node in adds)


@pytest.mark.parametrize(
    ("version", "number"), [("8.5.2", 8502), ("8.6", 8600), ("10.3.0", 100300), ("10.7", 100700)]
)
def test_the_first_line_is_the_version(version: str, number: int) -> None:
    text = cache_text({"images": 1.0}, version)
    assert text == f"TRT-{number}-EntropyCalibration2\nimages: 3f800000\n"
