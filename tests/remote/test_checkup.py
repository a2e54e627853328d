"""A machine looks at itself out of the packed device side; here it is this one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgexfer.bench.checkup import Finding
from edgexfer.bench.child import Completed
from edgexfer.cli import run
from edgexfer.core.errors import BackendError
from edgexfer.remote.checkup import check_machine
from edgexfer.remote.transport import Local
from tests.remote.conftest import Board


def test_this_machine_through_its_own_packed_side() -> None:
    found = {finding.name: finding for finding in check_machine(Local, "onnxruntime")}
    assert found["backend onnxruntime"].status == "ok"
    assert found["numpy"].status == "ok"
    assert "clock" not in found  # there is but one


def test_a_runtime_that_is_missing_is_a_finding_and_no_error() -> None:
    found = {finding.name: finding for finding in check_machine(Local, "tensorrt")}
    assert found["backend tensorrt"].status == "missing"
    assert "python3-libnvinfer" in found["backend tensorrt"].fix


class Told(Local):
    """A board that answers what it is told to."""

    name = "ssh:board"
    answer = Completed([], 0, "", "")
    facts: Mapping[str, Any] = {}

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Completed:
        return self.answer


def told(stdout: str, code: int = 0, stderr: str = "", skew_s: float = 0.0) -> type[Told]:
    answer = Completed([], code, stdout, stderr)
    return type("Answer", (Told,), {"answer": answer, "facts": {"clock_skew_s": skew_s}})


GOOD = json.dumps([{"name": "disk", "status": "ok", "detail": "9 GB", "fix": ""}])


@pytest.mark.parametrize(
    ("skew_s", "clock"),
    [
        (0.02, Finding("clock", "ok", "agrees with this machine's")),
        (
            -63_072_000.0,
            Finding(
                *("clock", "note", "63072000 s behind this machine's"),
                "sudo timedatectl set-ntp true",
            ),
        ),
        (
            3600.0,
            Finding(
                *("clock", "note", "3600 s ahead of this machine's"),
                "sudo timedatectl set-ntp true",
            ),
        ),
    ],
)
def test_the_skew_of_its_clock(skew_s: float, clock: Finding) -> None:
    found = check_machine(told(GOOD, skew_s=skew_s), "null")
    assert found == [Finding("disk", "ok", "9 GB"), clock]


def test_a_login_that_writes_a_banner() -> None:
    assert check_machine(told(f"Welcome!\n[ ok ]\n{GOOD}\nbye"), "null")[0].name == "disk"


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (told("<html>"), "ssh:board: its answer is not understood ('<html>')"),
        (told("[{]"), "ssh:board: its answer is not understood ('[{]')"),
        (
            told("", 1, "SyntaxError: invalid syntax"),
            "ssh:board: the device side does not run (SyntaxError: invalid syntax)",
        ),
    ],
)
def test_a_board_that_does_not_answer(answer: type[Told], what: str) -> None:
    with pytest.raises(BackendError) as caught:
        check_machine(answer, "null")
    assert caught.value.what == what
    assert caught.value.fix.startswith("try it by hand: ")


def test_the_verb_asks_a_machine_for_the_runtime_of_its_target(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["doctor", "--target", "jetson"]) == 3
    assert "missing  backend tensorrt" in capsys.readouterr().out


@pytest.mark.ssh
def test_a_board_over_ssh(
    board: Board,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The board's Python is the system's, which has no runtime."""
    monkeypatch.setenv("PATH", f"{board.command(tmp_path / 'bin')}:{os.environ['PATH']}")
    words = ["doctor", "--on", f"ssh:{board.name}", "--target", "rpi5-onnxruntime", "--json"]
    code = run(words)
    found = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}
    runtime = found["backend onnxruntime"]
    assert code == (3 if "missing" in {f["status"] for f in found.values()} else 0)
    assert runtime["status"] == "ok" or "pip install" in runtime["fix"]
    assert found["clock"]["detail"] == "agrees with this machine's"
    assert board.leftovers() == []


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--on", "ssh:-oProxyCommand=x"), "error: --on 'ssh:-oProxyCommand=x'"),
        (("--target", "jetsn"), "error: profile 'jetsn' is unknown"),
    ],
)
def test_a_machine_or_a_target_that_is_none(
    words: Sequence[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", *words]) == 2
    assert capsys.readouterr().err.startswith(what)
