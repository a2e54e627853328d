from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import edgexfer
from edgexfer.core.errors import DiskError
from edgexfer.remote.pack import pack_device_side


def test_equal_sources_give_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pack_device_side(tmp_path / "a.pyz").read_bytes()
    copy = tmp_path / "edgexfer"
    shutil.copytree(Path(edgexfer.__file__).parent, copy)
    for path in copy.rglob("*.py"):
        os.utime(path, (time.time() + 1000,) * 2)
        path.chmod(0o600)
    monkeypatch.setattr(edgexfer, "__file__", str(copy / "__init__.py"))
    assert pack_device_side(tmp_path / "b.pyz").read_bytes() == first


def test_it_holds_the_device_side_and_nothing_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(pack_device_side(tmp_path / "a.pyz")) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    folders = {name.rsplit("/", 1)[0] for name in names if "/" in name}
    assert folders == {"edgexfer", *(f"edgexfer/{room}" for room in ("core", "backends", "bench"))}
    assert [name for name in names if name.count("/") < 2] == [
        "__main__.py",
        "edgexfer/__init__.py",
    ]
    assert len(set(names)) == len(names)


def test_it_runs_with_nothing_but_itself(tmp_path: Path) -> None:
    program = pack_device_side(tmp_path / "a.pyz")
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(program), "facts"],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert '"machine"' in done.stdout


def test_an_old_python_is_told_what_it_lacks(tmp_path: Path) -> None:
    with zipfile.ZipFile(pack_device_side(tmp_path / "a.pyz")) as archive:
        main = archive.read("__main__.py").decode()
    script = "import sys; sys.version_info = (3, 6, 9); exec(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", script, main], capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr == "error: Python 3.6 is too old\nfix: use Python 3.8 or newer\n"


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="cannot be written"):
        pack_device_side(tmp_path / "file" / "a.pyz")
