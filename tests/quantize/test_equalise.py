"""Equalisation changes no output by a bit; corrected biases bring the mean of INT8 back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgexfer.bench.compare import compare
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.profile import Quantization
from edgexfer.models.onnx import export_onnx
from edgexfer.models.store import load_model
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.equalise import correct_biases, equalise, find_pairs
from edgexfer.quantize.observe import extremes
from edgexfer.quantize.qdq import Placed, write_qdq
from edgexfer.quantize.sensitivity import keep_quantized, logits_of
from tests.export.digits import digits_run, stretched_run

S8 = Placed(Quantization(activations="int8"), restricted=True)
U8 = Placed(Quantization(activations="uint8"), restricted=False)
HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'


@pytest.fixture(scope="module")
def stretched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A net with one channel between two convolutions ten thousand times the others."""
    run = digits_run(tmp_path_factory.getbasetemp())
    folder = tmp_path_factory.mktemp("stretched")
    model, card = load_model(stretched_run(run, folder / "run", mendable=True))
    return export_onnx(model, card.preprocess.size, folder / "fp32.onnx")


def ratio(model: Path, base: Path, calibration: Calibration) -> float:
    found = compare(
        logits_of(onnx.load(base), calibration, "a"), logits_of(onnx.load(model), calibration, "b")
    )
    return 1000.0 if found.sqnr_db is None else found.sqnr_db


def int8(model: Path, folder: Path, placed: Placed, calibration: Calibration) -> Path:
    write_qdq(model, folder / "q.onnx", extremes(model, calibration), placed)
    return folder / "q.onnx"


def test_equalised_layers_compute_the_same_to_the_bit(
    stretched: Path, calibration: Calibration, tmp_path: Path
) -> None:
    assert equalise(stretched, tmp_path / "e.onnx") >= 1
    assert (tmp_path / "e.onnx").read_bytes() != stretched.read_bytes()
    assert ratio(tmp_path / "e.onnx", stretched, calibration) == 1000.0


@pytest.mark.parametrize("placed", [S8, U8], ids=["restricted", "runtime"])
def test_equalised_layers_survive_int8(
    placed: Placed, stretched: Path, calibration: Calibration, tmp_path: Path
) -> None:
    before = ratio(int8(stretched, tmp_path, placed, calibration), stretched, calibration)
    equalise(stretched, tmp_path / "e.onnx")
    after = ratio(int8(tmp_path / "e.onnx", tmp_path, placed, calibration), stretched, calibration)
    assert before < 15
    assert after > 25


def test_what_is_balanced_stays_as_it_is(stretched: Path, tmp_path: Path) -> None:
    equalise(stretched, tmp_path / "once.onnx")
    assert equalise(tmp_path / "once.onnx", tmp_path / "twice.onnx") == 0


def graph(body: str) -> onnx.ModelProto:
    """Parse a graph of two convolutions, a and b, with weights of very different channels."""
    text = f"g (float[n,3,8,8] x) => (float[n,3,8,8] y) {{\n{body}\n}}"
    proto = onnx.parser.parse_model(HEAD + text)
    chance = np.random.default_rng(0)
    shapes = {"w1": (3, 3, 1, 1), "b1": (3,), "w2": (3, 3, 1, 1), "d": (3, 1, 1, 1)}
    for name, shape in shapes.items():
        values = chance.normal(size=shape).astype(np.float32)
        values[0] *= 1000
        if any(name in node.input for node in proto.graph.node):
            proto.graph.initializer.append(numpy_helper.from_array(values, name))
    return proto


PLAIN = "[a] s = Conv(x, w1, b1)\n[r] t = Relu(s)\n[b] y = Conv(t, w2)"


@pytest.mark.parametrize(
    "body",
    [
        PLAIN,
        "[a] s = Conv(x, w1)\n[b] y = Conv(s, w2)",
        PLAIN.replace("Conv(t, w2)", "Conv<group=3>(t, d)"),
    ],
    ids=["relu", "nothing", "depthwise"],
)
def test_pairs_that_are_exact_are_found_and_moved(body: str, tmp_path: Path) -> None:
    proto = graph(body)
    (pair,) = find_pairs(proto)
    assert (pair.first, pair.second) == ("a", "b")
    onnx.save(proto, tmp_path / "f.onnx")
    assert equalise(tmp_path / "f.onnx", tmp_path / "e.onnx") == 1
    images = Calibration(
        np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3), np.uint8),
        Preprocess(size=(8, 8), resize=8),
        ("",) * 4,
    )
    before, after = (
        logits_of(onnx.load(tmp_path / name), images, name) for name in ("f.onnx", "e.onnx")
    )
    assert np.array_equal(before, after)


@pytest.mark.parametrize(
    "body",
    [
        PLAIN.replace("Relu(s)", "Sigmoid(s)"),
        PLAIN.replace("Relu(s)", "HardSwish(s)"),
        PLAIN.replace("Relu(s)", "Clip(s, lo, hi)"),
        PLAIN.replace("y = Conv(t, w2)", "u = Conv(t, w2)\n[c] y = Add(u, t)"),
        PLAIN.replace("w2", "w1"),
        PLAIN.replace("Relu(s)", "MaxPool<kernel_shape=[1,1]>(s)"),
    ],
    ids=["sigmoid", "hardswish", "clip", "taken-twice", "shared-weight", "pool"],
)
def test_other_pairs_are_refused(body: str) -> None:
    assert find_pairs(graph(body)) == []


@pytest.mark.parametrize("placed", [S8, U8], ids=["restricted", "runtime"])
def test_corrected_biases_bring_int8_nearer(
    placed: Placed, fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    whole = Placed(placed.scheme, placed.restricted, whole=True)
    file = int8(fp32, tmp_path, whole, calibration)
    before = ratio(file, fp32, calibration)
    corrected = tmp_path / "c.onnx"
    layers = sum(n.op_type in ("Conv", "Gemm") for n in onnx.load(fp32).graph.node)
    assert correct_biases(fp32, file, corrected, calibration) == layers
    write_qdq(corrected, tmp_path / "qc.onnx", extremes(fp32, calibration), placed)
    assert ratio(tmp_path / "qc.onnx", fp32, calibration) > before + 1
    # What it takes out of INT8 it puts into float, and no more than that.
    assert ratio(corrected, fp32, calibration) > before - 6


def test_a_layer_is_corrected_for_its_own_error_alone(tmp_path: Path) -> None:
    """Also where it takes what another layer gives, as behind a linear bottleneck."""
    proto = graph("[a] s = Conv(x, w1, b1)\n[b] y = Conv(s, w2)")
    onnx.save(proto, tmp_path / "f.onnx")
    images = Calibration(
        np.random.default_rng(1).integers(0, 256, (8, 8, 8, 3), np.uint8),
        Preprocess(size=(8, 8), resize=8),
        ("",) * 8,
    )
    file = int8(tmp_path / "f.onnx", tmp_path, S8, images)
    assert correct_biases(tmp_path / "f.onnx", file, tmp_path / "c.onnx", images) == 2
    alone = keep_quantized(onnx.load(file), proto, {"b"})
    error = logits_of(proto, images, "f") - logits_of(alone, images, "q")
    held = {t.name: t for t in onnx.load(tmp_path / "c.onnx").graph.initializer}
    found = numpy_helper.to_array(held["b_corrected_bias"])
    np.testing.assert_allclose(found, error.mean(axis=(0, 2, 3)), rtol=1e-3, atol=1e-4)


def test_a_layer_without_a_bias_gets_one(
    fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    proto = onnx.load(fp32)
    conv = [n for n in proto.graph.node if n.op_type == "Conv"][2]
    taken = conv.input.pop()
    kept = [t for t in proto.graph.initializer if t.name != taken]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    onnx.save(proto, tmp_path / "f.onnx")
    file = int8(tmp_path / "f.onnx", tmp_path, S8, calibration)
    correct_biases(tmp_path / "f.onnx", file, tmp_path / "c.onnx", calibration)
    made = onnx.load(tmp_path / "c.onnx")
    onnx.checker.check_model(made, full_check=True)
    node = next(n for n in made.graph.node if n.name == conv.name)
    assert node.input[2] == f"{conv.name}_corrected_bias"
