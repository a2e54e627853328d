"""A bundle's folder appears whole or not at all, and what was there is never touched."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from pathlib import Path

import pytest

from edgexfer.core.errors import BundleError, DiskError
from edgexfer.export import publish
from edgexfer.export.publish import find_same, making
from edgexfer.export.stage import export
from edgexfer.recipe import ExportSection


def names(folder: Path) -> list[str]:
    return sorted(place.name for place in folder.iterdir())


def test_the_folder_appears_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "new" / "bundle"
    with making(out) as folder:
        (folder / "a").write_text("x")
        assert not out.exists()
    assert (out / "a").read_text() == "x"
    assert names(out.parent) == ["bundle"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_ends_it_leaves_nothing(error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error), making(tmp_path / "bundle") as folder:
        (folder / "a").write_text("x")
        raise error
    assert names(tmp_path) == []


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    # Processes of two containers may have one number, this one's too.
    for name in ("999999999", str(os.getpid()), "0123abcd"):
        (tmp_path / f".bundle.making.{name}").mkdir()
        (tmp_path / f".bundle.making.{name}" / "a").write_text("x")
    with making(tmp_path / "bundle"):
        pass
    assert names(tmp_path) == ["bundle"]


def test_what_another_is_making_is_left_alone(tmp_path: Path) -> None:
    with (
        pytest.raises(BundleError, match="was made by another process meanwhile"),
        making(tmp_path / "bundle") as first,
    ):
        (first / "a").write_text("x")
        with making(tmp_path / "bundle") as second:
            (second / "b").write_text("x")
        assert (first / "a").is_file()
    assert names(tmp_path) == ["bundle"]
    assert names(tmp_path / "bundle") == ["b"]


def test_errors_of_other_files_are_not_blamed_on_the_bundle(tmp_path: Path) -> None:
    theirs = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "image.png"))
    with pytest.raises(PermissionError) as caught, making(tmp_path / "bundle"):
        raise theirs
    assert caught.value is theirs
    with (
        pytest.raises(DiskError, match=r"bundle: cannot be written \(Permission denied\)"),
        making(tmp_path / "bundle") as folder,
    ):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / "a"))


def test_the_disk_that_is_full_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = {tmp_path / "bundle": 10**9, tmp_path / "temporary": 0}
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(publish, "free_bytes", rooms.__getitem__)
    with (
        pytest.raises(DiskError, match=r"temporary: no room left to write"),
        making(tmp_path / "bundle"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_name_with_odd_characters_is_swept_too(tmp_path: Path) -> None:
    (tmp_path / ".büro [1] *.making.999999999").mkdir()
    with making(tmp_path / "büro [1] *"):
        pass
    assert names(tmp_path) == ["büro [1] *"]


def test_an_empty_folder_may_become_the_bundle(tmp_path: Path) -> None:
    assert find_same(tmp_path, "r") is None
    with making(tmp_path / "bundle") as folder:
        (tmp_path / "bundle").mkdir()
        (folder / "a").write_text("x")
    assert names(tmp_path / "bundle") == ["a"]


def test_a_bundle_that_appeared_meanwhile_wins(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with pytest.raises(BundleError) as caught, making(out):
        out.mkdir()
        (out / "theirs").write_text("x")
    assert "was made by another process meanwhile" in caught.value.what
    assert names(tmp_path) == ["bundle"]
    assert names(out) == ["theirs"]


def test_a_parent_that_is_a_file_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DiskError), making(tmp_path / "file" / "bundle"):
        pass


def test_nothing_is_in_the_way(tmp_path: Path) -> None:
    assert find_same(tmp_path / "none", "r") is None


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (["notes.txt"], "is not empty and holds no bundle"),
        (["manifest.json"], "not readable as JSON"),
    ],
)
def test_what_is_in_the_way_is_named(files: list[str], what: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text("x")
    with pytest.raises(BundleError) as caught:
        find_same(tmp_path, "r")
    assert what in caught.value.what
    assert "choose another --out" in caught.value.fix
    assert names(tmp_path) == files


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "bundle").write_text("x")
    with pytest.raises(BundleError, match="is a file, not a folder"):
        find_same(tmp_path / "bundle", "r")


@pytest.mark.parametrize("limit", [5_000, 40_000], ids=["in the images", "in the models"])
def test_a_disk_that_fills_half_way_leaves_no_bundle(limit: int, run: Path, tmp_path: Path) -> None:
    section = ExportSection(targets=("x86-onnxruntime",), precision="fp32", evaluation_images=20)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(DiskError) as caught:
            export(run, section, tmp_path / "bundle")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(tmp_path / "bundle") in caught.value.what
    assert "free some space" in caught.value.fix
    assert names(tmp_path) == []
