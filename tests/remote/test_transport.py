from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgexfer.bench.child import Completed
from edgexfer.core.errors import BackendError
from edgexfer.remote.transport import Local, checked, understood


def test_what_is_here_already_is_not_copied(tmp_path: Path) -> None:
    source = tmp_path / "bundle"
    source.mkdir()
    way = Local(tmp_path / "scratch")
    assert way.push(source) == str(source)
    assert not (tmp_path / "scratch").exists()


def test_pull_brings_a_file_and_says_when_there_is_none(tmp_path: Path) -> None:
    way = Local(tmp_path)
    there = Path(way.scratch("r.json"))
    there.write_text("{}")
    assert way.pull(str(there), there)
    assert way.pull(str(there), tmp_path / "copy.json")
    assert (tmp_path / "copy.json").read_text() == "{}"
    assert not way.pull(way.scratch("none"), tmp_path / "none")


def test_the_environment_of_the_host_does_not_leak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    way = Local(tmp_path)
    done = way.run([*way.python, "-c", "import numpy, sys; print(sys.executable)"], timeout_s=30)
    assert done.code == 0, done.stderr
    assert done.stdout.strip() == sys.executable


def test_what_libraries_left_behind_is_not_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KMP_INIT_AT_FORK", "FALSE")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    way = Local(tmp_path)
    code = "import os; print(os.environ.get('KMP_INIT_AT_FORK'), os.environ['OMP_NUM_THREADS'])"
    assert way.run([*way.python, "-c", code], timeout_s=30).stdout == "None 3\n"


def test_a_device_side_that_does_not_run_says_why(tmp_path: Path) -> None:
    way = Local(tmp_path)
    assert checked(Completed([], 0, "text", ""), way) == "text"
    with pytest.raises(BackendError, match=r"this machine: .* \(SyntaxError: x\)") as caught:
        checked(Completed([], 1, "", "Traceback\nSyntaxError: x\n"), way)
    assert sys.executable in caught.value.fix
    with pytest.raises(BackendError, match=r"\(its time ran out\)"):
        checked(Completed([], None, "", ""), way)
    with pytest.raises(BackendError, match=r"^this machine: numpy is missing$") as caught:
        checked(Completed([], 3, "", "error: numpy is missing\nfix: pip install numpy\n"), way)
    assert caught.value.fix == "pip install numpy"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{\n  "machine": "aarch64"\n}\n', {"machine": "aarch64"}),
        ('Welcome!\n[1] 42\n{ok}\n{"a": {}}\nbye\n', {"a": {}}),
        ('[ info ] loaded\n[{"name": "files"}]\n', [{"name": "files"}]),
    ],
)
def test_an_answer_is_found_among_other_words(tmp_path: Path, text: str, value: object) -> None:
    assert understood(text, Local(tmp_path)) == value


@pytest.mark.parametrize("text", ["", "Welcome!\n", '{"machine": ', '[{"name": }]', "[]"])
def test_words_without_an_answer_are_shown(tmp_path: Path, text: str) -> None:
    with pytest.raises(BackendError, match="this machine: its answer is not understood") as caught:
        understood(text, Local(tmp_path))
    assert repr(text) in caught.value.what
    assert caught.value.fix.startswith("try it by hand: ")
