"""Cache entries: made once, whole or not there, and swept when they grow too many."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgexfer.core.errors import DiskError
from edgexfer.data.cache import cache_dir, hold, make_entry, sweep


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert cache_dir() == cache
    monkeypatch.delenv("EDGEXFER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_dir() == Path("/elsewhere/edgexfer")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_dir() == Path("/home/somebody/.cache/edgexfer")


def test_of_many_that_want_an_entry_one_makes_it() -> None:
    made: list[Path] = []
    barrier = threading.Barrier(8)

    def fill(folder: Path) -> None:
        made.append(folder)
        (folder / "content").write_text("whole")

    def want() -> None:
        barrier.wait()
        assert (make_entry("kind", "name", fill) / "content").read_text() == "whole"

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_an_entry_that_fails_is_not_there(cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "part").write_text("x")
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        make_entry("kind", "name", fail)
    assert not [p for p in (cache / "kind").iterdir() if p.is_dir()]


def test_what_a_killed_process_left_is_swept(cache: Path) -> None:
    program = (
        "import os, signal\nfrom edgexfer.data.cache import make_entry\n"
        "def fill(folder):\n    (folder / 'part').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "make_entry('kind', 'name', fill)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert not (cache / "kind" / "name").exists()
    place = make_entry("kind", "name", lambda folder: (folder / "whole").touch())
    assert [p.name for p in place.iterdir()] == ["whole"]
    assert [p.name for p in (cache / "kind").iterdir() if p.is_dir()] == ["name"]


def test_a_cache_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEXFER_CACHE", str(tmp_path / "file"))
    with pytest.raises(DiskError) as caught:
        make_entry("kind", "name", lambda _: None)
    assert str(tmp_path / "file") in caught.value.what
    assert "EDGEXFER_CACHE" in caught.value.fix


def test_an_entry_that_is_there_needs_no_right_to_write(cache: Path) -> None:
    place = make_entry("kind", "name", lambda folder: (folder / "whole").touch())
    lock = cache / "kind" / ".name.lock"
    lock.unlink()
    (cache / "kind").chmod(0o500)
    try:
        assert make_entry("kind", "name", lambda _: None) == place
        assert not lock.exists()
    finally:
        (cache / "kind").chmod(0o700)


def test_sweeping_removes_what_was_not_used_for_longest(cache: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "x").write_bytes(bytes(100))

    for age, name in enumerate(["newest", "middle", "oldest"]):
        place = make_entry("kind", name, fill)
        os.utime(place, (1e9 - age, 1e9 - age))
    sweep("kind", 250, keep=cache / "kind" / "newest")
    assert {p.name for p in (cache / "kind").iterdir() if p.is_dir()} == {"newest", "middle"}
    sweep("kind", 0, keep=cache / "kind" / "middle")
    assert {p.name for p in (cache / "kind").iterdir() if p.is_dir()} == {"middle"}
    sweep("nothing", 0, keep=cache)


def test_what_is_held_is_not_swept_in_any_process(cache: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "x").write_bytes(bytes(100))

    for name in ("held", "free", "kept"):
        make_entry("kind", name, fill)
    release = [hold("kind", "held"), hold("kind", "held")]
    program = (
        "from pathlib import Path\nfrom edgexfer.data.cache import cache_dir, sweep\n"
        "sweep('kind', 0, keep=cache_dir() / 'kind' / 'kept')\n"
    )
    folder = cache / "kind"
    for let_go in release:
        subprocess.run([sys.executable, "-c", program], check=True)
        assert {p.name for p in folder.iterdir() if p.is_dir()} == {"held", "kept"}
        let_go()
    sweep("kind", 0, keep=folder / "kept")
    assert {p.name for p in folder.iterdir() if p.is_dir()} == {"kept"}


def test_holding_clears_what_a_killed_process_left_unless_another_holds_it(cache: Path) -> None:
    place = make_entry("kind", "name", lambda folder: (folder / "whole").touch())
    left = place / ".part.tmp.123"
    left.touch()
    release = hold("kind", "name")
    assert [p.name for p in place.iterdir()] == ["whole"]
    left.touch()
    hold("kind", "name")()
    assert left.exists()
    release()
    hold("kind", "other")()
