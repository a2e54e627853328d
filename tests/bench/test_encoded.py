"""The device's decode and resize against the host's, to the bit."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgexfer.bench.encoded import ROUNDING, differing, read_encoded, stages
from edgexfer.core.preprocess import Preprocess
from edgexfer.data.decode import decode, decode_size, fit

SHAPES = [(120, 90), (64, 64), (300, 210), (40, 500), (1000, 700)]
PREPROCESSES = [
    Preprocess(size=(32, 32), resize=36),
    Preprocess(size=(24, 24), resize=24, mode="squash", interpolation="bicubic"),
    Preprocess(size=(24, 32), resize=40, interpolation="nearest"),
    Preprocess(size=(64, 64), resize=64, interpolation="lanczos"),
]


def _files(kind: str) -> list[bytes]:
    chance = np.random.default_rng(0)
    found = []
    for width, height in SHAPES:
        small = Image.fromarray(chance.integers(0, 256, (9, 7, 3), dtype=np.uint8))
        stream = io.BytesIO()
        small.resize((width, height)).save(stream, kind)
        found.append(stream.getvalue())
    return found


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("preprocess", PREPROCESSES, ids=lambda p: f"{p.mode}-{p.interpolation}")
def test_the_device_prepares_what_the_host_prepares(kind: str, preprocess: Preprocess) -> None:
    found, reason = stages(preprocess)
    assert found is not None, reason
    files = _files(kind)
    least = decode_size(preprocess)
    made = [fit(decode(data, "image", at_least=least).image, preprocess) for data in files]
    assert differing(found, files, made) == {}
    assert found.library.startswith("Pillow ")


def test_another_geometry_is_seen_with_its_size() -> None:
    ours, theirs = PREPROCESSES[0], Preprocess(size=(32, 32), resize=32)
    found, _ = stages(theirs)
    assert found is not None
    files = _files("PNG")
    made = [fit(decode(data, "image", at_least=decode_size(ours)).image, ours) for data in files]
    gaps = differing(found, files, made)
    assert list(gaps) == [0, 1, 2, 3, 4]
    assert max(gaps.values()) > ROUNDING
    nearly = [np.clip(image.astype(int) + 1, 0, 255).astype(np.uint8) for image in made]
    right, _ = stages(ours)
    assert right is not None
    assert max(differing(right, files, nearly).values()) <= ROUNDING


def test_without_pillow_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    found, reason = stages(PREPROCESSES[0])
    assert found is None
    assert reason.startswith("Pillow cannot be imported (")


def test_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode())
    assert read_encoded(tmp_path, ["b", "a"]) == [b"b", b"a"]
