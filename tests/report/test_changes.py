from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgexfer.core.record import read_record
from edgexfer.report.changes import PICTURES_SHOWN, changes
from edgexfer.report.page import build
from tests.report.html import Page
from tests.report.synthetic import make_images, make_labels
from tests.report.test_accuracy import sets_of


def test_each_pair_shows_the_images_that_changed(trip: Path) -> None:
    [images] = sets_of(trip)
    parts = changes(images)
    assert [p.hop.names[1].split()[-1] for p in parts] == [
        "x86-openvino-int8",
        "x86-onnxruntime-int8",
    ]
    record = read_record(trip / "bench" / "x86-openvino-int8.json")
    fp32 = read_record(trip / "bench" / "x86-openvino-fp32.json")
    assert record.accuracy
    assert fp32.accuracy
    labels = make_labels().tolist()
    pixels = make_images(make_labels())
    numbers = []
    for pair in parts[0].pairs:
        label, said = int(pair.label.split()[1]), int(pair.said.split()[1])
        for accuracy, count in ((fp32.accuracy, pair.before), (record.accuracy, pair.after)):
            both = zip(labels, accuracy.predictions, strict=True)
            assert count == sum((y, p) == (label, said) for y, p in both)
        for picture in pair.pictures:
            assert picture.outcome == "lost"
            assert picture.label == pair.label
            assert picture.before.startswith(f"{pair.label} (")
            assert picture.after.startswith(f"{pair.said} (")
            head, _, body = picture.uri.partition(",")
            assert head == "data:image/png;base64"
            with Image.open(io.BytesIO(base64.b64decode(body)), formats=["PNG"]) as shown:
                assert np.array_equal(np.asarray(shown), pixels[picture.number])
            numbers.append(picture.number)
    changed = [
        i
        for i, (a, b) in enumerate(
            zip(fp32.accuracy.predictions, record.accuracy.predictions, strict=True)
        )
        if a != b
    ]
    assert sorted(numbers) == changed
    assert all(len(p.pictures) <= PICTURES_SHOWN for p in parts[0].pairs)


@pytest.mark.parametrize("damage", ["missing", "shape", "kind", "pickle", "no array", "empty"])
def test_without_the_images_the_figures_stay(trip: Path, damage: str) -> None:
    place = trip / "bundle" / "images.npy"
    place.unlink()
    if damage == "shape":
        np.save(place, np.zeros((7, 4, 4, 3), np.uint8))
    elif damage == "kind":
        np.save(place, np.zeros((360, 4, 4, 3), np.float32))
    elif damage == "pickle":
        np.save(place, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif damage == "no array":
        place.write_bytes(b"no array")
    elif damage == "empty":
        place.touch()
    [images] = sets_of(trip)
    parts = changes(images)
    assert sum(len(p.pairs) for p in parts) == 3
    assert not any(pair.pictures for p in parts for pair in p.pairs)


def test_a_large_picture_is_made_small_and_reaches_the_page_whole(
    trip: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (360, 224, 224, 3), dtype=np.uint8)
    np.save(trip / "bundle" / "images.npy", noise)
    page = Page(
        build([trip / "bundle", trip / "bench"], tmp_path / "r.html").read_text(encoding="utf-8")
    )
    uris = [a["src"] or "" for tag, a in page.tags if tag == "img"]
    assert uris
    for uri in uris:
        with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as shown:
            shown.load()
            assert shown.size == (64, 64)
