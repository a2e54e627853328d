"""What is seen of a tensor is what it takes, over all batches, in bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgexfer.core.errors import BackendError
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.observe import (
    BINS,
    Extremes,
    extremes,
    float_tensors,
    histograms,
    observe,
    run_batches,
    with_outputs,
)


@pytest.fixture(scope="module")
def seen(fp32: Path, calibration: Calibration) -> dict[str, Extremes]:
    return extremes(fp32, calibration)


@pytest.fixture(scope="module")
def values(
    fp32: Path, calibration: Calibration, seen: dict[str, Extremes]
) -> dict[str, np.ndarray]:
    """What every tensor takes on all images."""
    proto = with_outputs(onnx.load(fp32), list(seen))
    rows = list(run_batches(proto, calibration, "x"))
    return {n: np.concatenate([r[i] for r in rows]) for i, n in enumerate(seen)}


def test_every_float_activation_is_seen_and_nothing_else(fp32: Path) -> None:
    proto = onnx.load(fp32)
    names = float_tensors(proto)
    assert names[0] == "images"
    assert "logits" in names
    assert len(names) == 1 + sum(n.op_type != "Constant" for n in proto.graph.node)


def test_extremes_are_those_of_all_batches(
    seen: dict[str, Extremes], values: dict[str, np.ndarray]
) -> None:
    for name, found in values.items():
        assert seen[name] == Extremes(min(found.min(), 0.0), max(found.max(), 0.0)), name


def test_each_image_has_extremes_of_its_own(
    fp32: Path, calibration: Calibration, values: dict[str, np.ndarray]
) -> None:
    found = observe(fp32, calibration)
    assert list(found.ends) == list(values)
    for name, ends in found.ends.items():
        rows = values[name].reshape(len(calibration), -1)
        assert np.array_equal(ends, np.stack([rows.min(axis=1), rows.max(axis=1)], axis=1)), name
    assert np.array_equal(found.logits, values["logits"])


def test_images_that_a_layer_mixes_are_seen_one_by_one(
    fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    """A tensor with the batch at its second place would give each image a part of all."""
    proto = onnx.load(fp32)
    proto.graph.node.append(onnx.helper.make_node("Transpose", ["logits"], ["turned"], perm=[1, 0]))
    turned = onnx.helper.make_tensor_value_info("turned", onnx.TensorProto.FLOAT, [10, "batch"])
    proto.graph.value_info.append(turned)
    onnx.save(proto, tmp_path / "turned.onnx")
    ends = observe(tmp_path / "turned.onnx", calibration).ends
    assert np.array_equal(ends["turned"], ends["logits"])


def test_histograms_count_every_value_at_its_place(
    fp32: Path,
    calibration: Calibration,
    seen: dict[str, Extremes],
    values: dict[str, np.ndarray],
) -> None:
    made = histograms(fp32, calibration, seen)
    assert list(made) == list(seen)
    for name, found in values.items():
        histogram = made[name]
        assert histogram.counts.sum() == found.size
        width = (histogram.extremes.high - histogram.extremes.low) / BINS
        mean = np.dot(histogram.counts, histogram.centres()) / found.size
        assert abs(mean - found.mean(dtype=np.float64)) <= width, name
        middle = histogram.centres()[np.searchsorted(histogram.counts.cumsum(), found.size / 2)]
        assert abs(middle - np.median(found)) <= 2 * width, name


def test_a_constant_tensor_is_counted(fp32: Path, calibration: Calibration) -> None:
    made = histograms(fp32, calibration, {"logits": Extremes(0.0, 0.0)})["logits"]
    assert made.counts[0] == made.counts.sum() == len(calibration) * 10


def test_a_tensor_that_is_not_finite_is_named(
    fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    proto = onnx.load(fp32)
    weight = next(t for t in proto.graph.initializer if t.name == "fc.weight")
    broken = np.full(tuple(weight.dims), np.nan, np.float32)
    weight.CopyFrom(onnx.numpy_helper.from_array(broken, weight.name))
    onnx.save(proto, tmp_path / "broken.onnx")
    with pytest.raises(BackendError) as caught:
        extremes(tmp_path / "broken.onnx", calibration)
    assert caught.value.what == (
        "broken.onnx: tensor logits is not finite on the calibration images"
    )
    assert "broken weights" in caught.value.fix
