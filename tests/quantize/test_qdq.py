"""Q/DQ files keep the rules of their targets, and the accuracy of a trained net."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgexfer.bench.accuracy import predict
from edgexfer.bench.compare import ratio_db
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.errors import BackendError, QuantizerError
from edgexfer.core.profile import Quantization
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.clipping import within
from edgexfer.quantize.observe import observe
from edgexfer.quantize.qdq import SHARES, Placed, check_qdq, quantize_qdq, write_qdq
from tests.export.digits import PREPROCESS, measured_images

U8 = Quantization(activations="uint8")
S8 = Quantization(activations="int8")


@pytest.fixture(scope="module")
def strict(fp32: Path, calibration: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as TensorRT asks for."""
    place = tmp_path_factory.mktemp("qdq") / "strict.onnx"
    quantize_qdq(fp32, place, calibration, S8, restricted=True)
    return place


def predictions(path: Path, precision: str) -> np.ndarray:
    images, _ = measured_images(300)
    session = get_backend("onnxruntime").load(path, Plan(precision=precision, threads=1))
    return np.asarray(predict(session, images, PREPROCESS, batch=50).argmax(1))


@pytest.mark.parametrize(
    ("scheme", "restricted", "words"),
    [
        (U8, False, "qdq uint8 activations, int8-per-channel weights"),
        (S8, False, "qdq int8 activations, int8-per-channel weights"),
        (S8, True, "int8-per-channel weights, inputs of weighted layers only"),
        (
            Quantization(activations="uint8", weights="int8-per-tensor", reduce_range=True),
            False,
            "int8-per-tensor weights, weights in 7 bits",
        ),
    ],
)
def test_int8_agrees_with_fp32_on_digits(
    scheme: Quantization,
    restricted: bool,
    words: str,
    fp32: Path,
    calibration: Calibration,
    tmp_path: Path,
) -> None:
    said = quantize_qdq(fp32, tmp_path / "q.onnx", calibration, scheme, restricted=restricted)
    assert words in said
    agreement = np.mean(predictions(tmp_path / "q.onnx", "int8") == predictions(fp32, "fp32"))
    assert agreement >= 0.96
    assert (tmp_path / "q.onnx").stat().st_size < 0.45 * fp32.stat().st_size


@pytest.mark.parametrize("scheme", [U8, S8])
def test_of_two_ranges_the_one_nearer_to_fp32_is_kept(
    scheme: Quantization, fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    def logits(file: Path) -> np.ndarray:
        session = get_backend("onnxruntime").load(file, Plan("int8", threads=1))
        found: np.ndarray = predict(session, calibration.images, PREPROCESS, calibration.at_once)
        return found

    said = quantize_qdq(fp32, tmp_path / "q.onnx", calibration, scheme, restricted=False)
    seen, ratios = observe(fp32, calibration), {}
    for share in SHARES:
        file = tmp_path / f"{share}.onnx"
        write_qdq(fp32, file, within(seen.ends, share), Placed(scheme, restricted=False))
        ratios[share] = ratio_db(seen.logits, logits(file))
    kept = max(SHARES, key=lambda share: ratios[share])
    assert (tmp_path / "q.onnx").read_bytes() == (tmp_path / f"{kept}.onnx").read_bytes()
    assert said.endswith("ranges of 95 % of the images") == (kept == 0.95)
    assert len(set(ratios.values())) == 2


def test_only_inputs_of_weighted_layers_are_quantized_for_tensorrt(strict: Path) -> None:
    graph = onnx.load(strict).graph
    made = {n.output[0]: n.op_type for n in graph.node}
    taken = {i for n in graph.node if n.op_type in ("Conv", "Gemm") for i in n.input[:2]}
    assert {made[i] for i in taken} == {"DequantizeLinear"}
    others = [n for n in graph.node if n.op_type in ("Relu", "Add", "ReduceMean", "Reshape")]
    assert others
    assert not [n.name for n in others if made.get(n.input[0]) == "DequantizeLinear"]
    constants = {t.name: t.data_type for t in graph.initializer}
    biases = [n.input[2] for n in graph.node if n.op_type == "Conv" and len(n.input) > 2]
    assert biases
    assert {constants[b] for b in biases} == {TensorProto.FLOAT}


def test_reduced_range_keeps_seven_bits(
    fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    scheme = Quantization(activations="uint8", reduce_range=True)
    quantize_qdq(fp32, tmp_path / "q.onnx", calibration, scheme, restricted=False)
    weights = [
        numpy_helper.to_array(t)
        for t in onnx.load(tmp_path / "q.onnx").graph.initializer
        if t.data_type == TensorProto.INT8 and len(t.dims) == 4
    ]
    assert weights
    assert max(np.abs(w.astype(int)).max() for w in weights) <= 64


def test_the_same_images_give_the_same_bytes(
    fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        quantize_qdq(fp32, tmp_path / name, calibration, U8, restricted=False)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_quantizer_says_nothing(
    fp32: Path, calibration: Calibration, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    quantize_qdq(fp32, tmp_path / "q.onnx", calibration, U8, restricted=False)
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


def zero_point_of_one(proto: onnx.ModelProto) -> str:
    return replace_constant(proto, 2, np.array(1, np.int8))


def zero_point_uint8(proto: onnx.ModelProto) -> str:
    return replace_constant(proto, 2, np.array(0, np.uint8))


def scale_of_zero(proto: onnx.ModelProto) -> str:
    return replace_constant(proto, 1, np.array(0.0, np.float32))


def scale_not_finite(proto: onnx.ModelProto) -> str:
    return replace_constant(proto, 1, np.array(np.inf, np.float32))


def replace_constant(proto: onnx.ModelProto, which: int, value: np.ndarray) -> str:
    node = next(n for n in proto.graph.node if n.op_type == "QuantizeLinear")
    name = node.input[which]
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    return str(name)


BREACHES: dict[Callable[[onnx.ModelProto], str], str] = {
    zero_point_of_one: "zero point {} is not 0",
    zero_point_uint8: "zero point {} is not int8",
    scale_of_zero: "scale {} is not positive",
    scale_not_finite: "scale {} is not positive",
}


@pytest.mark.parametrize("breach", BREACHES, ids=lambda f: str(f.__name__))
def test_a_breach_of_the_rules_is_named(
    breach: Callable[[onnx.ModelProto], str], strict: Path, tmp_path: Path
) -> None:
    proto = onnx.load(strict)
    name = breach(proto)
    onnx.save(proto, tmp_path / "q.onnx")
    with pytest.raises(BackendError) as caught:
        check_qdq(tmp_path / "q.onnx", strict=True)
    assert caught.value.what == "q.onnx: " + BREACHES[breach].format(name)
    assert "--precision fp32" in caught.value.fix


def test_a_missing_zero_point_is_a_breach(strict: Path, tmp_path: Path) -> None:
    proto = onnx.load(strict)
    node = next(n for n in proto.graph.node if n.op_type == "QuantizeLinear")
    del node.input[2]
    onnx.save(proto, tmp_path / "q.onnx")
    with pytest.raises(BackendError, match="has no zero point, which ONNX reads as uint8"):
        check_qdq(tmp_path / "q.onnx", strict=True)


def test_a_float_file_is_not_quantized(fp32: Path) -> None:
    with pytest.raises(BackendError) as caught:
        check_qdq(fp32, strict=False)
    assert "nothing was quantized" in caught.value.what
    assert "convolutions" in caught.value.fix


def test_a_model_that_cannot_be_quantized_is_named(
    calibration: Calibration, tmp_path: Path, fp32: Path
) -> None:
    proto = onnx.load(fp32)
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 999
    onnx.save(proto, tmp_path / "odd.onnx")
    with pytest.raises(QuantizerError) as caught:
        quantize_qdq(tmp_path / "odd.onnx", tmp_path / "q.onnx", calibration, U8, restricted=False)
    assert "odd.onnx: ONNX Runtime cannot quantize it" in caught.value.what
    assert "--precision fp32" in caught.value.fix
