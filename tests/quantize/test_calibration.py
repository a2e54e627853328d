"""Calibration images come from train, never from test, whatever the data set holds."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgexfer.bench.accuracy import predict
from edgexfer.bench.feed import normalise
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.errors import DataError
from edgexfer.core.profile import Quantization
from edgexfer.data.dataset import Dataset, open_dataset
from edgexfer.data.images import sample
from edgexfer.quantize.calibration import (
    Calibration,
    draw_calibration,
    hold_out,
    leave_out,
    refuse_shared,
)
from edgexfer.quantize.qdq import quantize_qdq
from tests.export.digits import PREPROCESS, measured_images
from tests.pictures import write_folder

NONE = np.zeros((0, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_dataset("digits")


def test_no_calibration_image_is_in_test(digits: Dataset) -> None:
    test = digits.splits["test"]
    images, _ = measured_images(len(test.keys))
    drawn = draw_calibration(digits, 10_000, PREPROCESS, measured=images)
    assert len(drawn) > 900
    assert not set(drawn.keys) & set(test.keys)
    assert not {i.tobytes() for i in drawn.images} & {i.tobytes() for i in images}


def test_the_draw_is_even_and_the_same_every_time(digits: Dataset) -> None:
    first, second = (draw_calibration(digits, 50, PREPROCESS, measured=NONE) for _ in range(2))
    assert first.summary() == second.summary()
    assert first.keys == second.keys
    labels = dict(zip(digits.splits["train"].keys, digits.splits["train"].labels, strict=True))
    counts = np.bincount([labels[key] for key in first.keys], minlength=10)
    assert counts.tolist() == [5] * 10
    assert first.notes == ()


def test_copies_of_measured_images_are_left_out_and_counted(digits: Dataset) -> None:
    images, _, keys = sample(digits, "train", 40, PREPROCESS)
    drawn = draw_calibration(digits, 40, PREPROCESS, measured=images[:3])
    assert len(drawn) == 37
    assert not set(keys[:3]) & set(drawn.keys)
    assert "3 training images left out: copies of test images" in drawn.notes


def test_nothing_left_is_an_error(digits: Dataset) -> None:
    images, _, _ = sample(digits, "train", 20, PREPROCESS)
    with pytest.raises(DataError) as caught:
        draw_calibration(digits, 20, PREPROCESS, measured=images)
    assert "every calibration image is also a test image" in caught.value.what
    assert "edgexfer data check" in caught.value.fix


def test_keys_in_both_splits_are_refused(digits: Dataset) -> None:
    train = digits.splits["train"]
    leaking = dataclasses.replace(digits, splits={**digits.splits, "test": train})
    with pytest.raises(DataError) as caught:
        draw_calibration(leaking, 20, PREPROCESS, measured=NONE)
    assert "20 calibration images are in the test split: digits/" in caught.value.what
    assert "split the data again" in caught.value.fix


def test_the_first_three_shared_keys_are_named() -> None:
    with pytest.raises(DataError, match=r"x: 4 calibration images .*: a, b, c$"):
        refuse_shared("x", "dcbaz", "abcd")
    refuse_shared("x", "ab", "cd")


def test_a_class_without_an_image_is_a_note(digits: Dataset) -> None:
    drawn = draw_calibration(digits, 4, PREPROCESS, measured=NONE)
    (note,) = drawn.notes
    assert note.startswith("no calibration image of class ")
    assert note.endswith("and 1 more: draw more")


def test_leave_out_compares_pixels_not_names() -> None:
    images = np.arange(3 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 2, 2, 3)
    labels = np.arange(3)
    left, kept, keys, gone = leave_out(images, labels, "abc", measured=images[1:2].copy())
    assert (keys, gone, kept.tolist()) == (("a", "c"), 1, [0, 2])
    assert np.array_equal(left, images[[0, 2]])


def test_batches_cover_every_image_once_in_order() -> None:
    images = np.random.default_rng(0).integers(0, 256, (70, 64, 64, 3), np.uint8)
    preprocess = dataclasses.replace(PREPROCESS, size=(64, 64), resize=64)
    batches = list(Calibration(images, preprocess, ("k",) * 70).batches())
    assert [len(b) for b in batches] == [32, 32, 6]
    assert np.array_equal(np.concatenate(batches), normalise(images, preprocess))


def test_copies_of_any_test_image_are_left_out_though_it_is_not_measured(tmp_path: Path) -> None:
    train = write_folder(tmp_path / "photos" / "train", 8)
    write_folder(tmp_path / "photos" / "test", 3, {"blue": (1, 2, 3), "red": (9, 9, 200)})
    copy = tmp_path / "photos" / "test" / "red" / "renamed.png"
    copy.write_bytes((train / "red" / "05.png").read_bytes())
    dataset = open_dataset(str(tmp_path / "photos"))
    drawn = draw_calibration(dataset, 100, PREPROCESS, measured=NONE)
    assert "train/red/05.png" not in drawn.keys
    assert len(drawn) == len(dataset.splits["train"]) - 1
    assert "copies of test images" in drawn.notes[0]


def test_an_unreadable_image_is_held_out_only_where_that_is_allowed(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos" / "train", 8)
    place = str(tmp_path / "photos")
    before = open_dataset(place, val=0.3)
    (tmp_path / "photos" / before.splits["val"].keys[0]).write_bytes(b"no image")
    dataset = open_dataset(place, val=0.3)
    drawn = draw_calibration(dataset, 4, PREPROCESS, measured=NONE)
    with pytest.raises(DataError, match="is no JPEG"):
        hold_out(dataset, 99, drawn, measured=NONE)
    held = hold_out(dataset, 99, drawn, measured=NONE, allow_quarantined=True)
    assert len(held.images) == len(before.splits["val"]) - 1


def test_a_set_of_one_class_is_marked(digits: Dataset) -> None:
    train = digits.splits["train"]
    drawn = draw_calibration(digits, 1, PREPROCESS, measured=NONE)
    assert len(drawn) == 1
    labels = dict(zip(train.keys, train.labels, strict=True))
    only = digits.classes[labels[drawn.keys[0]]]
    note = f"one class alone calibrates, {only}: INT8 may be off on all others"
    assert drawn.notes == (note,)
    assert drawn.summary()["notes"] == [note]


def test_count_and_hash_of_the_pixels_are_recorded(digits: Dataset) -> None:
    drawn = draw_calibration(digits, 30, PREPROCESS, measured=NONE)
    found = drawn.summary()
    assert (found["split"], found["n"]) == ("train", 30)
    assert found["sha256"] == hashlib.sha256(drawn.images.tobytes()).hexdigest()
    other = dataclasses.replace(drawn, images=drawn.images[::-1])
    assert other.summary()["sha256"] != found["sha256"]


@pytest.mark.parametrize("restricted", [False, True])
def test_constant_images_and_dead_channels_give_positive_scales(
    fp32: Path, tmp_path: Path, restricted: bool
) -> None:
    proto = onnx.load(fp32)
    dead = next(n for n in proto.graph.node if n.op_type == "Conv").input[1:]
    for tensor in proto.graph.initializer:
        if tensor.name in dead:
            values = numpy_helper.to_array(tensor).copy()
            values[:3] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(proto, tmp_path / "dead.onnx")
    black = Calibration(np.zeros((4, 16, 16, 3), np.uint8), PREPROCESS, tuple("abcd"))
    place = tmp_path / "int8.onnx"
    scheme = Quantization(activations="int8" if restricted else "uint8")
    quantize_qdq(tmp_path / "dead.onnx", place, black, scheme, restricted=restricted)
    scales = [t for t in onnx.load(place).graph.initializer if t.name.endswith("_scale")]
    assert scales
    assert all((numpy_helper.to_array(scale) > 0).all() for scale in scales)
    session = get_backend("onnxruntime").load(place, Plan(precision="int8", threads=1))
    images, _ = measured_images(4)
    assert np.isfinite(predict(session, images, PREPROCESS)).all()
