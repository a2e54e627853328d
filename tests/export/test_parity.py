"""The ladder catches what is planted, and says which rung, by how much, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.bundle import Rung
from edgexfer.core.errors import ParityError
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.profile import Quantization
from edgexfer.export.parity import (
    EXACT,
    HALF,
    Logits,
    Probe,
    bf16_rung,
    float_rung,
    half_rung,
    int8_rung,
    reference_logits,
    require,
    session_logits,
    synthetic_images,
)
from edgexfer.models.onnx import export_onnx
from edgexfer.models.store import load_model
from edgexfer.quantize.calibration import draw_calibration
from edgexfer.quantize.qdq import quantize_qdq
from tests.export.digits import PREPROCESS

Float32 = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def reference(run: Path, probe: Probe) -> Logits:
    model, card = load_model(run)
    return reference_logits(model, card.preprocess, probe)


@pytest.fixture(scope="module")
def int8(fp32: Path, probe: Probe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from edgexfer.data.dataset import open_dataset

    calibration = draw_calibration(open_dataset("digits"), 200, PREPROCESS, measured=probe.images)
    place = tmp_path_factory.mktemp("int8") / "int8.onnx"
    quantize_qdq(fp32, place, calibration, Quantization(activations="uint8"), restricted=False)
    return place


def run_file(path: Path, probe: Probe, precision: str = "fp32") -> Logits:
    session = get_backend("onnxruntime").load(path, Plan(precision=precision, threads=1))
    return session_logits(session, probe)


def climb(path: Path, probe: Probe, reference: Logits) -> Rung:
    return require(float_rung("onnx fp32", "torch fp32", reference, run_file(path, probe), EXACT))


def damaged(path: Path, folder: Path, damage: Callable[[onnx.ModelProto], None]) -> Path:
    proto = onnx.load(path)
    damage(proto)
    onnx.checker.check_model(proto, full_check=True)
    place = folder / "damaged.onnx"
    onnx.save(proto, place)
    return place


def change(proto: onnx.ModelProto, name: str, edit: Callable[[Float32], Float32]) -> None:
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(tensor)), name))


def weight_of(proto: onnx.ModelProto, op: str, which: int) -> str:
    return str([n for n in proto.graph.node if n.op_type == op][which].input[1])


def double_softmax(proto: onnx.ModelProto) -> None:
    node = proto.graph.node[-1]
    node.output[0] = "inner"
    proto.graph.node.append(helper.make_node("Softmax", ["inner"], ["logits"], axis=1))


def permute_classes(proto: onnx.ModelProto) -> None:
    order = np.random.default_rng(0).permutation(10)
    for name in proto.graph.node[-1].input[1:]:
        change(proto, name, lambda values: values[order])


def scale_a_layer(proto: onnx.ModelProto) -> None:
    change(proto, weight_of(proto, "Conv", 2), lambda values: values * np.float32(1.01))


def swap_channels(proto: onnx.ModelProto) -> None:
    name = weight_of(proto, "Conv", 0)
    change(proto, name, lambda values: np.ascontiguousarray(values[:, ::-1]))


def drop_a_relu(proto: onnx.ModelProto) -> None:
    node = next(n for n in proto.graph.node if n.op_type == "Relu")
    node.op_type = "Identity"


FAULTS = [double_softmax, permute_classes, scale_a_layer, swap_channels, drop_a_relu]


def test_a_sound_file_passes(fp32: Path, probe: Probe, reference: Logits) -> None:
    rung = climb(fp32, probe, reference)
    assert rung.n == len(probe.images) + 8
    assert rung.sqnr_db is None or rung.sqnr_db >= 100


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: str(f.__name__))
def test_a_planted_fault_in_the_graph_is_caught(
    fault: Callable[[onnx.ModelProto], None],
    fp32: Path,
    probe: Probe,
    reference: Logits,
    tmp_path: Path,
) -> None:
    with pytest.raises(ParityError, match=r"onnx fp32 differs from torch fp32: .* dB"):
        climb(damaged(fp32, tmp_path, fault), probe, reference)


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": "BGR"},
        {"mean": (0.3, 0.45, 0.61)},
        {"std": (0.25, 0.3, 0.404)},
        {"mean": (0.485, 0.456, 0.406)},
    ],
    ids=["bgr", "mean", "std", "imagenet"],
)
def test_feeding_otherwise_than_the_trainer_is_caught(
    changes: dict[str, object], fp32: Path, probe: Probe, reference: Logits
) -> None:
    wrong: Preprocess = replace(probe.preprocess, **changes)  # type: ignore[arg-type]
    with pytest.raises(ParityError):
        climb(fp32, replace(probe, preprocess=wrong), reference)


def test_batch_norm_statistics_that_moved_are_caught(
    run: Path, probe: Probe, reference: Logits, tmp_path: Path
) -> None:
    model, card = load_model(run)
    with torch.no_grad():
        model.train()(torch.zeros(2, 3, *card.preprocess.size))
    place = export_onnx(model, card.preprocess.size, tmp_path / "moved.onnx")
    with pytest.raises(ParityError):
        climb(place, probe, reference)


def test_a_sound_int8_file_passes(int8: Path, probe: Probe, reference: Logits) -> None:
    rung = require(int8_rung("int8", probe, reference, run_file(int8, probe, "int8"), 2.0))
    assert rung.agreement_pct >= 97
    assert rung.top1_pct is not None
    assert rung.top1_pct > 85


def activation_scale(proto: onnx.ModelProto) -> str:
    return str([n for n in proto.graph.node if n.op_type == "QuantizeLinear"][3].input[1])


def weight_scale(proto: onnx.ModelProto) -> str:
    made = {n.output[0]: n for n in proto.graph.node}
    return str(made[weight_of(proto, "Conv", 2)].input[1])


@pytest.mark.parametrize(
    ("which", "factor"),
    [(activation_scale, 0.02), (activation_scale, 1000.0), (weight_scale, 8.0)],
    ids=["clipped", "coarse", "weights"],
)
def test_a_broken_scale_of_one_layer_is_caught(
    which: Callable[[onnx.ModelProto], str],
    factor: float,
    int8: Path,
    probe: Probe,
    reference: Logits,
    tmp_path: Path,
) -> None:
    def break_scale(proto: onnx.ModelProto) -> None:
        change(proto, which(proto), lambda value: np.asarray(value * np.float32(factor)))

    broken = run_file(damaged(int8, tmp_path, break_scale), probe, "int8")
    with pytest.raises(ParityError) as caught:
        require(int8_rung("int8", probe, reference, broken, 1.0))
    assert "--calibration-images" in caught.value.fix
    assert "--precision fp32" in caught.value.fix


def logits(rows: list[list[float]], synthetic: float = 1.0) -> Logits:
    return Logits(np.array(rows, np.float32), np.full((8, 2), synthetic, np.float32))


def pair(n: int, lost: int) -> tuple[Probe, Logits, Logits]:
    """Two models on n images of class 0: the first is always right, the second loses some."""
    images = np.zeros((n, 4, 4, 3), np.uint8)
    preprocess = Preprocess(size=(4, 4), resize=4)
    probe = Probe(images, np.zeros(n, np.int64), synthetic_images((4, 4)), preprocess)
    right, wrong = [10.0, 9.9], [9.9, 10.0]
    return probe, logits([right] * n), logits([wrong] * lost + [right] * (n - lost))


def test_too_large_a_drop_fails_with_its_interval() -> None:
    with pytest.raises(ParityError) as caught:
        require(int8_rung("x int8", *pair(200, 5), 1.0))
    assert "x int8 loses 2.50 points" in caught.value.what
    assert "95 % interval" in caught.value.what
    assert caught.value.what.endswith("n=200), the limit is 1")
    assert "--max-drop" in caught.value.fix


def test_a_lossy_int8_is_offered_the_training() -> None:
    rung = int8_rung("x int8", *pair(200, 5), 1.0)
    with pytest.raises(ParityError) as caught:
        require(rung, trainable_for="x86-onnxruntime")
    assert caught.value.fix.startswith("distil with --qat-for x86-onnxruntime, calibrate")
    with pytest.raises(ParityError) as caught:
        require(rung)
    assert "--qat-for" not in caught.value.fix


def test_bf16_has_limits_of_its_own_and_is_not_calibrated() -> None:
    assert bf16_rung("x bf16", *pair(100, 0), 1.0).passed
    probe, first, second = pair(100, 15)
    assert int8_rung("x int8", probe, first, second, 100.0).passed
    with pytest.raises(ParityError, match=r"agreement 85\.0 %") as caught:
        require(bf16_rung("x bf16", probe, first, second, 100.0), quantized=False)
    assert caught.value.fix == "export with --precision fp32"
    with pytest.raises(ParityError, match="x bf16 loses 15") as caught:
        require(bf16_rung("x bf16", probe, first, second, 1.0), quantized=False)
    assert caught.value.fix == "allow more (--max-drop), or export with --precision fp32"


def test_the_same_drop_passes_where_it_is_allowed() -> None:
    rung = require(int8_rung("x int8", *pair(200, 5), 10.0))
    assert rung.drop_pt == pytest.approx(2.5)
    assert rung.drop_low_pt is not None
    assert rung.drop_high_pt is not None
    assert rung.drop_low_pt < 2.5 < rung.drop_high_pt
    assert not [note for note in rung.notes if "undecidable" in note]


def test_a_drop_that_the_images_cannot_decide_says_how_many_would() -> None:
    rung = require(int8_rung("x int8", *pair(200, 1), 1.0))
    (note,) = [note for note in rung.notes if "undecidable" in note]
    needed = int(note.split("about ")[1].split()[0])
    assert needed > 200
    scale = needed // 200 + 1
    decided = int8_rung("x int8", *pair(200 * scale, scale), 1.0)
    assert not [note for note in decided.notes if "undecidable" in note]


def test_a_drop_at_the_limit_is_never_decided() -> None:
    rung = require(int8_rung("x int8", *pair(200, 2), 1.0))
    assert "drop undecidable: it stands at the limit itself" in rung.notes


def test_low_agreement_fails_whatever_is_allowed() -> None:
    probe, first, second = pair(100, 25)
    with pytest.raises(ParityError, match=r"agreement 75\.0 %"):
        require(int8_rung("x int8", probe, first, second, 100.0))


def test_unusual_figures_are_notes() -> None:
    probe, first, second = pair(100, 5)
    noisy = Logits(second.real * np.float32(1.2), second.synthetic)
    notes = require(int8_rung("x int8", probe, first, noisy, 100.0)).notes
    assert any("20 dB are usual" in note for note in notes)
    assert any("98 % are usual" in note for note in notes)


def test_int8_that_is_not_finite_at_the_ends_of_the_range_fails() -> None:
    probe, first, second = pair(100, 0)
    broken = Logits(second.real, np.full((8, 2), np.nan, np.float32))
    with pytest.raises(ParityError):
        require(int8_rung("x int8", probe, first, broken, 100.0))


def test_a_tie_may_go_either_way() -> None:
    first = logits([[5.0, 5.0 - 1e-6], [1.0, 0.0]])
    second = logits([[5.0 - 1e-6, 5.0], [1.0, 0.0]])
    assert float_rung("a", "b", first, second, EXACT).passed


def test_another_class_fails_however_near() -> None:
    # A hundred dB would pass both; the class is another one by more than rounding.
    first = logits([[100.0, 99.0], [1.0, 0.99]])
    second = logits([[100.0, 99.0], [0.99, 1.0]])
    assert not float_rung("a", "b", first, second, HALF).passed


def test_half_is_judged_by_real_images_and_must_agree_on_the_synthetic_ones() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(100, 3)).astype(np.float32)
    edge = np.array([[40.0, 0.0, 0.0]] * 8, np.float32)
    first = Logits(real, edge)
    # 20 dB off on images that no training has seen, in the same class.
    found = half_rung("x fp16", first, Logits(real * np.float32(1.001), edge * np.float32(0.9)))
    assert found.passed and found.n == 100
    assert found.sqnr_db is not None and found.sqnr_db > 55
    assert not half_rung("x fp16", first, Logits(real * np.float32(1.01), edge)).passed
    overflowed = Logits(real, np.full_like(edge, np.inf))
    assert not half_rung("x fp16", first, overflowed).passed
    swapped = Logits(real, edge[:, ::-1].copy())
    assert not half_rung("x fp16", first, swapped).passed


def test_synthetic_images_reach_both_ends() -> None:
    images = synthetic_images((6, 7))
    assert images.shape == (8, 6, 7, 3)
    assert (images.min(), images.max()) == (0, 255)
    assert len({image.tobytes() for image in images}) == 8
    assert helper.np_dtype_to_tensor_dtype(images.dtype) == TensorProto.UINT8
