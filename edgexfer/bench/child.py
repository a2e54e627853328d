"""A child process with a limit of time, and what its end means for a job.

A child gets a process group of its own, and the whole group dies with it: a runtime that hangs or
forks leaves nothing behind. Arguments are lists; no shell is ever involved.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Optional, Sequence

from edgexfer.bench.job import SCHEMA, Failure, Job, Result
from edgexfer.core.codec import decode
from edgexfer.core.errors import BackendError, EdgexferError
from edgexfer.core.files import read_json

# What a job does beside measuring, building an engine above all, is over by then.
_BESIDE_S = 1800.0
# More than a bisection of the scenario server takes.
_TRIALS = 12
_TEXT_LIMIT = 200


@dataclass(frozen=True)
class Completed:
    """How a child ended.

    Attributes:
        argv: what was run.
        code: its exit code; negative for the signal that killed it; ``None`` where the
            time ran out.
        stdout: what it wrote.
        stderr: likewise.
        reason: what became of it, where it has no exit code of its own.
    """

    argv: Sequence[str]
    code: Optional[int]
    stdout: str
    stderr: str
    reason: str = ""


def run_child(
    argv: Sequence[str], timeout_s: float, environment: Optional[Mapping[str, str]] = None
) -> Completed:
    """Run a program to its end, or kill it and all its children after ``timeout_s`` seconds.

    An exception in the meantime (Ctrl-C) kills them too. ``None`` hands this process's own
    environment on.

    Raises:
        BackendError: the program cannot be started.
    """
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise BackendError(
            f"{argv[0]}: cannot be started ({error.strerror})",
            "check that it is there and that you may run it",
        ) from error
    with child:  # closes the pipes, whatever happens
        try:
            stdout, stderr = child.communicate(timeout=timeout_s)
            return Completed(argv, child.returncode, stdout, stderr)
        except subprocess.TimeoutExpired:
            _kill_group(child)
            stdout, stderr = child.communicate()
            return Completed(argv, None, stdout, stderr)
        finally:
            _kill_group(child)


def _kill_group(child: subprocess.Popen[str]) -> None:
    """Kill whatever is left of a child's group, and wait for the child itself."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left of it
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def limit_of(job: Job) -> float:
    """Return how long a job may take, in seconds; a server measures once for each rate it tries."""
    return _BESIDE_S + job.seconds * (_TRIALS if job.scenario == "server" else 1)


def result_of(job: Job, done: Completed, path: Path, limit_s: float) -> Result:
    """Return the result that a job's process wrote, or one that says how the process ended.

    Args:
        job: what was asked.
        done: how the process ended.
        path: where its result should be.
        limit_s: the time that it had, in seconds.
    """
    if done.code is not None and path.is_file():
        try:
            result = decode(Result, read_json(path), str(path))
        except EdgexferError as error:
            failure = Failure(error.what, "measure it again", error.exit_code)
            return Result(SCHEMA, job, failure)
        if result.job == job:
            return result
        what = f"{path}: is the result of another job, artefact {result.job.artefact}"
        return Result(SCHEMA, job, Failure(what, "measure it again", 3))
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    last = f" ({lines[-1][:_TEXT_LIMIT]})" if lines else ""
    if done.reason:
        how, fix = f"did not end: {done.reason}", "run the same command again"
    elif done.code is None:
        how = f"did not end within {limit_s:.0f} s and was killed"
        fix = "measure for less time, or a smaller model"
    elif done.code < 0:
        how, fix = f"was killed by {_signal_name(-done.code)}{last}", "check memory and runtime"
    else:
        how, fix = f"ended with exit code {done.code}{last}", "check the runtime's installation"
    return Result(SCHEMA, job, Failure(f"artefact {job.artefact}: its process {how}", fix, 3))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
