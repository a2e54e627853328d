"""``tools/arm_emulation.py`` where it cannot do its work; where it can, ``test_emulated`` shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = "tools/arm_emulation.py"


def _run(root: Path, prefix: Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(root / SCRIPT), str(prefix)],
        env={**os.environ, "PYTHONPATH": str(root), "PATH": path or os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_prefix_that_is_a_file_is_refused(root: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    prefix.touch()
    done = _run(root, prefix)
    assert done.returncode == 2
    fix = "fix: name a folder, or one that is to be made"
    assert done.stderr.splitlines() == [f"error: {prefix}: is not a folder", fix]


def test_a_folder_that_holds_something_else_is_left_alone(root: Path, tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    done = _run(root, tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: {tmp_path}: holds something else",
        "fix: name a folder that is empty or new",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]


def test_without_debian_s_tools_it_says_which(root: Path, tmp_path: Path) -> None:
    done = _run(root, tmp_path / "prefix", path=str(tmp_path))
    assert done.returncode == 3
    what, fix = done.stderr.splitlines()
    assert what == "error: this machine has no apt and no dpkg"
    assert fix == "fix: run it on Debian: apt-get install apt dpkg debian-archive-keyring"
    assert not (tmp_path / "prefix").exists()
