"""Archives: unpacked once, whole or not at all, and nothing outside the cache is ever written."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgexfer.core.errors import DataError
from edgexfer.data.archive import unpack
from edgexfer.data.dataset import open_dataset
from tests.data.conftest import MakeTree


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
@pytest.mark.parametrize("top", [".", "photos"])
def test_an_archive_is_the_folder_that_was_packed(
    suffix: str, top: str, make_tree: MakeTree, tmp_path: Path
) -> None:
    place = make_tree("train/a", "train/b", "test/a", "test/b", n=4)
    archive = tmp_path / f"photos{suffix}"
    with tarfile.open(archive, "w" if suffix == ".tar" else "w:gz") as stream:
        stream.add(place, top)
    assert open_dataset(str(archive)).fingerprint != ""
    found, packed = open_dataset(str(archive), val=0), open_dataset(str(place), val=0)
    assert found.splits["test"].keys == packed.splits["test"].keys
    assert found.fingerprint == packed.fingerprint


def test_it_is_unpacked_once(make_tree: MakeTree, tmp_path: Path, cache: Path) -> None:
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as stream:
        stream.add(make_tree("a", "b"), ".")
    place = unpack(archive)
    assert cache in place.parents
    made = (place / "a").stat().st_ctime_ns
    assert unpack(archive) == place
    assert (place / "a").stat().st_ctime_ns == made


def plain(name: str, content: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info, content


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


BAD: dict[str, tuple[list[tuple[tarfile.TarInfo, bytes]], str]] = {
    "parent": ([plain("a/1.jpg"), plain("../evil")], "unsafe path '../evil'"),
    "hidden parent": ([plain("a/../../evil")], "unsafe path"),
    "absolute": ([plain("/tmp/evil")], "unsafe path"),
    "drive": ([plain("C:\\evil")], "unsafe path"),
    "symbolic link": (
        [special("a/l.jpg", tarfile.SYMTYPE, "/etc/passwd")],
        "is a link or a device",
    ),
    "hard link": ([special("a/l.jpg", tarfile.LNKTYPE, "a/1.jpg")], "is a link or a device"),
    "pipe": ([special("a/p.jpg", tarfile.FIFOTYPE)], "is a link or a device"),
    "device": ([special("a/d.jpg", tarfile.CHRTYPE)], "is a link or a device"),
    "twice": ([plain("a/1.jpg"), plain("a/1.jpg")], "holds a/1.jpg twice"),
    "file as folder": ([plain("a"), plain("a/1.jpg")], "is a file and a folder at once"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_unsafe_is_refused_before_anything_is_written(
    case: str, tmp_path: Path, cache: Path
) -> None:
    members, what = BAD[case]
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as stream:
        for info, content in members:
            stream.addfile(info, io.BytesIO(content))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError) as caught:
        unpack(archive)
    assert what in caught.value.what
    assert caught.value.what.startswith(str(archive))
    assert "tar -cf" in caught.value.fix
    assert sorted(tmp_path.rglob("*")) == before
    assert not [p for p in (cache / "unpacked").iterdir() if p.is_dir()]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut gzip": lambda data: gzip.compress(data)[:-2000],
    "flipped gzip": lambda data: (
        gzip.compress(data)[:5000] + b"\xff" * 9 + gzip.compress(data)[5009:]
    ),
    "flipped checksum": lambda data: gzip.compress(data)[:-8] + b"1234" + gzip.compress(data)[-4:],
    "flipped bzip2": lambda data: flipped(bz2.compress(data)),
    "flipped xz": lambda data: flipped(lzma.compress(data)),
    "text": lambda _: b"not a tar",
    "empty": lambda _: b"",
    "cut tar": lambda data: data[:5000],
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_archive_is_refused(case: str, make_tree: MakeTree, tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as packed:
        packed.add(make_tree("a", "b"), ".")
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(DAMAGE[case](stream.getvalue()))
    with pytest.raises(DataError) as caught:
        open_dataset(str(archive))
    assert f"{archive}: " in caught.value.what
    assert caught.value.fix


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar.gz"
    with tarfile.open(archive, "w:gz") as stream:
        info = tarfile.TarInfo("a/1.jpg")
        info.size = 80 << 20
        with open("/dev/zero", "rb") as zeros:  # noqa: PTH123 - a device, not a path of ours
            stream.addfile(info, zeros)
    with pytest.raises(DataError, match="unpacks to more than 100 times its size"):
        unpack(archive)
