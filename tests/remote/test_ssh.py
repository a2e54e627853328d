"""Boards over a real ssh: files by hash, jobs that outlive the link, nothing left behind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.remote.conftest import Board

pytestmark = pytest.mark.ssh


def test_a_program_s_words_arrive_there_as_they_are(board: Board, tmp_path: Path) -> None:
    odd = ["a b", "$(id)", "'\"`;&|", "ü\n", "-rf", ""]
    way = board.reach(tmp_path / "scratch")
    script = "import sys, json, os; print(json.dumps([sys.argv[1:], os.environ['TMPDIR']]))"
    done = way.run([*way.python, "-c", script, *odd], timeout_s=20)
    assert done.code == 0, done.stderr
    words, temp = json.loads(done.stdout)
    assert words == odd
    assert temp.startswith(str(board.cache / "sessions"))
    assert way.run([*way.python, "-c", "import sys; sys.exit(7)"], timeout_s=20).code == 7
    way.close()
    board.settle()
    assert board.leftovers() == []


def test_files_go_once(board: Board, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "one").write_bytes(os.urandom(3 << 20))
    (folder / "empty").touch()
    way = board.reach(tmp_path / "scratch")
    place = Path(way.push(folder))
    assert (place / "sub" / "one").read_bytes() == (folder / "sub" / "one").read_bytes()
    assert (place / "empty").read_bytes() == b""
    stored = {p.name: p.stat().st_mtime_ns for p in (board.cache / "files").iterdir()}
    inodes = {p.stat().st_ino for p in (board.cache / "files").iterdir()}
    assert way.push(folder) == str(place)
    assert {p.stat().st_ino for p in (board.cache / "files").iterdir()} == inodes
    assert len(stored) == 3  # and the program
    way.close()


def test_what_rotted_there_is_sent_again(board: Board, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    way = board.reach(tmp_path / "scratch")
    there = Path(way.push(file))
    there.chmod(0o644)
    there.write_bytes(b"cantent")
    assert Path(way.push(file)).read_bytes() == b"content"
    way.close()
