from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgexfer.core import files
from edgexfer.core.errors import DiskError, InputError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # A lone surrogate is no text, and no file can hold it.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
    max_leaves=20,
)


def test_hashes_are_sha256(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "f").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert files.sha256_file(tmp_path / "f") == files.sha256_bytes(data) == expected


@given(JSON)
def test_json_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    place = tmp_path_factory.getbasetemp() / "value.json"
    files.write_json(place, value)
    assert files.read_json(place) == value
    assert json.loads(files.canonical_json(value)) == value


def test_the_canonical_spelling_ignores_the_order_of_keys() -> None:
    assert files.canonical_json({"b": [1, 2], "a": None}) == '{"a":null,"b":[1,2]}'
    assert files.fingerprint({"a": 1, "b": 2}) == files.fingerprint({"b": 2, "a": 1})
    assert files.fingerprint([1, 2]) != files.fingerprint([2, 1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_never_written(tmp_path: Path, value: float) -> None:
    place = tmp_path / "f.json"
    files.write_json(place, 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(place, value)
    assert files.read_json(place) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["f.json"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b'{"a": 1', "Expecting"),
        (b'{"a": 1, "a": 2}', "duplicate key 'a'"),
        (b"\xff\xfe", "decode"),
        (b"[1, 1e999]", "1e999 is too large a number"),
        (b"[NaN]", "NaN is not a JSON number"),
        (b"[" * 200_000, "recursion"),
    ],
)
def test_what_is_no_json_is_refused_with_the_reason(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "f.json").write_bytes(content)
    with pytest.raises(InputError, match=r"f\.json: not readable as JSON") as caught:
        files.read_json(tmp_path / "f.json")
    assert reason in caught.value.what
    assert caught.value.fix == "make the file again, or restore it"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json: no such file") as caught:
        files.read_json(tmp_path / "none.json")
    assert caught.value.fix == "check the path"


def test_a_write_replaces_the_whole_file_and_leaves_nothing_beside(tmp_path: Path) -> None:
    place = tmp_path / "f"
    files.write_atomic(place, b"a much longer first content")
    files.write_atomic(place, "short ü")
    assert place.read_text(encoding="utf-8") == "short ü"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_full_disk_leaves_the_old_content_and_no_stray_file(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands for a full disk: the write fails half way, as ENOSPC would make it."""
    place = tmp_path / "f"
    files.write_atomic(place, b"old")
    code = f"""
import resource, signal, sys
from edgexfer.core.errors import DiskError
from edgexfer.core.files import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    write_atomic({str(place)!r}, b"x" * 100_000)
except DiskError as error:
    print(error.what)
    print(error.fix)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    what, fix = done.stdout.splitlines()
    assert what.startswith(f"{place}: no room left to write (")
    assert "run the same command again" in fix
    assert place.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_kill_at_any_moment_leaves_one_whole_version(tmp_path: Path) -> None:
    place = tmp_path / "f"
    code = f"""
from edgexfer.core.files import write_atomic
for n in range(100_000):
    write_atomic({str(place)!r}, bytes([n % 256]) * 20_000)
    print(n, flush=True)
"""
    for lines in (1, 3, 7, 20, 55):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None
        for _ in range(lines):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        content = place.read_bytes()
        assert len(content) == 20_000
        assert len(set(content)) == 1


def test_other_faults_of_the_system_are_not_dressed_up(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.disk_errors(tmp_path):
        raise FileNotFoundError(2, "No such file or directory")


def test_a_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(DiskError, match="f: is a file, not a folder") as caught:
        files.make_dir(tmp_path / "f")
    assert caught.value.fix == "choose another --out"
    with pytest.raises(DiskError, match="cannot be written"):
        files.make_dir(tmp_path / "f" / "below")


def test_a_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    assert files.make_dir(tmp_path / "a" / "b").is_dir()
    assert files.make_dir(tmp_path / "a" / "b") == tmp_path / "a" / "b"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(DiskError, match="cannot be written"):
        files.make_dir(tmp_path / "locked")


def test_free_bytes_are_those_of_the_nearest_folder(tmp_path: Path) -> None:
    assert files.free_bytes(tmp_path / "not" / "yet") == pytest.approx(
        files.free_bytes(tmp_path), rel=0.05
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 0


def test_a_file_of_the_user_s_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "notes.txt"
    files.refuse_foreign(place, "made: ")
    place.write_text("made: here")
    files.refuse_foreign(place, "made: ")
    place.write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt: is not from edgexfer") as caught:
        files.refuse_foreign(place, "made: ")
    assert caught.value.fix == "name another file"


def test_a_folder_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder") as caught:
        files.read_json(tmp_path)
    assert caught.value.fix == "name a JSON file in it"


@pytest.mark.parametrize("text", ["NaN", "[1, -Infinity]"])
def test_what_is_no_json_number_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(InputError, match="is not a JSON number"):
        files.read_json(tmp_path / "f.json")


def test_an_interrupted_write_leaves_the_old_content_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "f"
    place.write_text("old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(place, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert place.read_text() == "old"
