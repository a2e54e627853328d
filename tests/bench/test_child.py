from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgexfer.bench.child import Completed, limit_of, result_of, run_child
from edgexfer.bench.job import SCHEMA, Job, Result
from edgexfer.core.codec import encode
from edgexfer.core.errors import BackendError
from edgexfer.core.files import write_json

# A child that starts a grandchild, tells its id, ignores SIGTERM, and never ends.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(600)
"""
MakeJob = Callable[..., Job]


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def _gone(pid: int) -> bool:
    for _ in range(100):
        if not _alive(pid):
            return True
        time.sleep(0.02)
    return False


def test_it_gives_code_and_both_streams() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    done = run_child([sys.executable, "-c", code], 30)
    assert (done.code, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_arguments_reach_the_child_as_they_are() -> None:
    evil = "; touch x $(id) `id` \n 'q' \"q\" *"
    code = "import sys; sys.stdout.write(sys.argv[1])"
    assert run_child([sys.executable, "-c", code, evil], 30).stdout == evil


def test_a_time_out_kills_the_whole_group(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    start = time.monotonic()
    done = run_child([sys.executable, "-c", STUBBORN, str(mark)], 2.0)
    assert done.code is None
    assert time.monotonic() - start < 7
    assert _gone(int(mark.read_text()))


def test_an_interrupt_kills_the_whole_group(tmp_path: Path) -> None:
    mark = tmp_path / "pid"

    def interrupt() -> None:
        while not (mark.exists() and mark.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run_child([sys.executable, "-c", STUBBORN, str(mark)], 60)
    assert _gone(int(mark.read_text()))


def test_a_program_that_is_not_there_is_one_error() -> None:
    with pytest.raises(BackendError, match="no-such-python: cannot be started"):
        run_child(["/no-such-python"], 1)


def test_a_result_is_read_back(tmp_path: Path, make_job: MakeJob) -> None:
    result = Result(SCHEMA, make_job(), absent={"x": "w"})
    write_json(tmp_path / "r.json", encode(result))
    done = Completed([], 0, "", "")
    assert result_of(make_job(), done, tmp_path / "r.json", 9) == result


@pytest.mark.parametrize(
    ("done", "what"),
    [
        (Completed([], None, "", ""), "did not end within 9 s and was killed"),
        (Completed([], -9, "", ""), "was killed by SIGKILL"),
        (Completed([], -11, "", "a\nlast words\n"), "was killed by SIGSEGV (last words)"),
        (Completed([], -99, "", ""), "was killed by signal 99"),
        (Completed([], 1, "", "Traceback\nImportError: x\n"), "exit code 1 (ImportError: x)"),
        (Completed([], 0, "", ""), "ended with exit code 0"),
    ],
)
def test_a_process_without_a_result_says_how_it_ended(
    tmp_path: Path, make_job: MakeJob, done: Completed, what: str
) -> None:
    result = result_of(make_job(), done, tmp_path / "none.json", 9)
    assert result.failure is not None
    assert what in result.failure.what
    assert "x86-null-fp32" in result.failure.what
    assert result.failure.exit_code == 3


def test_a_job_has_the_time_for_which_it_is_to_measure(make_job: MakeJob) -> None:
    usual, hour_s = limit_of(make_job(seconds=2.0)), 3600.0
    assert limit_of(make_job(scenario="sustained", seconds=hour_s)) > hour_s + 0.9 * usual
    assert limit_of(make_job(scenario="server", seconds=hour_s)) > 8 * hour_s + 0.9 * usual


def test_a_damaged_result_is_a_failure(tmp_path: Path, make_job: MakeJob) -> None:
    (tmp_path / "r.json").write_text("{")
    result = result_of(make_job(), Completed([], 0, "", ""), tmp_path / "r.json", 9)
    assert result.failure is not None
    assert "not readable as JSON" in result.failure.what


def test_the_result_of_another_job_is_a_failure(tmp_path: Path, make_job: MakeJob) -> None:
    other = Result(SCHEMA, make_job(artefact="another", seed=9))
    write_json(tmp_path / "r.json", encode(other))
    result = result_of(make_job(), Completed([], 0, "", ""), tmp_path / "r.json", 9)
    assert result.job == make_job()
    assert result.failure is not None
    assert (
        result.failure.what == f"{tmp_path}/r.json: is the result of another job, artefact another"
    )
    assert result.failure.fix == "measure it again"
