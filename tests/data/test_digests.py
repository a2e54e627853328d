"""Remembered hashes: files are read once, and a change of any kind is noticed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edgexfer.core.errors import DataError
from edgexfer.core.files import sha256_bytes
from edgexfer.data import digests
from edgexfer.data.dataset import open_dataset
from edgexfer.data.digests import Digests
from tests.data.conftest import MakeTree


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(digests, "_FRESH_NS", -1)
    (tmp_path / "a").write_bytes(b"one")
    found = Digests(tmp_path)
    assert found.of("a") == sha256_bytes(b"one")
    found.save()
    return tmp_path


def unread(*_: object) -> bytes:
    raise AssertionError("the file was read again")


def test_an_unchanged_file_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "read_file", unread)
    assert Digests(folder).of("a") == sha256_bytes(b"one")


def test_a_change_that_keeps_size_and_time_is_noticed(folder: Path) -> None:
    before = (folder / "a").stat()
    time.sleep(0.02)  # longer than a tick of the file system's clock
    (folder / "a").write_bytes(b"two")
    os.utime(folder / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Digests(folder).of("a") == sha256_bytes(b"two")


def test_a_file_that_was_just_written_is_not_remembered(folder: Path, cache: Path) -> None:
    digests._FRESH_NS = 10**12  # restored by the fixture's monkeypatch
    (folder / "b").write_bytes(b"new")
    found = Digests(folder)
    found.of("b")
    found.save()
    (place,) = (cache / "digests").iterdir()
    assert '"b"' not in place.read_text()


def test_a_damaged_memory_is_no_memory(folder: Path, cache: Path) -> None:
    (place,) = (cache / "digests").iterdir()
    place.write_text("{")
    assert Digests(folder).of("a") == sha256_bytes(b"one")


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Digests(folder).of("missing")


def test_a_data_set_is_the_same_from_memory(
    make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_FRESH_NS", -1)
    place = str(make_tree("a", "b"))
    first = open_dataset(place).fingerprint
    monkeypatch.setattr(digests, "read_file", unread)
    assert open_dataset(place).fingerprint == first
