"""A training that is killed goes on to the same weights, to the bit, whenever the kill comes."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from edgexfer.core.errors import DiskError, Interrupted
from edgexfer.core.rundir import read_events
from edgexfer.training import checkpoint
from edgexfer.training.loop import fit
from tests.training.toy import bits, make_job, make_run

pytestmark = pytest.mark.torch

CLEAN = multiprocessing.get_context("forkserver")
CLEAN.set_forkserver_preload(
    ["tests.training.test_resume", "sklearn.datasets", "torch._dynamo", "torch._inductor"]
)

# All kinds of state at once: momentum, average, best weights, batch norm, dropout, micro-batches.
# Checkpoints come so often that many kills fall into a save.
SETTINGS: dict[str, Any] = {
    "ema": 0.9,
    "patience": 3,
    "clip_grad": 1.0,
    "accumulate": 2,
    "label_smoothing": 0.1,
    "mixup": 0.2,
    "checkpoint_s": 0.03,
}


def train(path: Path, **changes: Any) -> dict[str, bytes]:
    torch.set_num_threads(1)
    with make_run(path) as run:
        job = make_job(run, **{**SETTINGS, **changes})
        fit(job)
        return bits(job.model)


def train_in_child(path: Path, **changes: Any) -> BaseProcess:
    """Train in a process of its own."""
    return start(train, path, **changes)


def start(body: Callable[..., object], *args: Any, **changes: Any) -> BaseProcess:
    """Run a function in a new process that nothing but torch was ever loaded into.

    A fork of the process of the tests would inherit the locks, threads and signal handlers of all
    that ran before it. A fork of the server is as quick, and clean.
    """
    child = CLEAN.Process(target=_with_own_signals, args=(body, *args), kwargs=changes)
    child.start()
    return child


def _with_own_signals(body: Callable[..., object], *args: Any, **changes: Any) -> None:
    """Undo what a shell in the background does: it starts its programs with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    body(*args, **changes)


def finish(child: BaseProcess) -> None:
    child.join(60)
    assert child.exitcode == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The weights of a training that nobody disturbs."""
    return train(tmp_path_factory.mktemp("whole") / "run")


def kill_after(path: Path, step: int, more_s: float) -> None:
    """Begin a training and kill it so many seconds after the checkpoint of a step."""
    child = train_in_child(path)
    end = time.monotonic() + 60
    while saved_step(path) < step and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(more_s)
    child.kill()
    child.join()


def saved_step(path: Path) -> int:
    names = [p.name for p in (path / checkpoint.FOLDER).glob("step-*")]
    # One that another of the same step is about to replace ends in -old.
    return max((int(name.split("-")[1]) for name in names), default=0)


def kill_and_resume(path: Path, step: int, more_s: float) -> tuple[dict[str, bytes], int]:
    """Kill a training about a step, and let another process finish it."""
    kill_after(path, step, more_s)
    with make_run(path) as run:
        job = make_job(run, **SETTINGS)
        result = fit(job)
        return bits(job.model), result.resumed_from


@pytest.mark.parametrize("kills", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_at_random_moments_change_no_bit(
    kills: int, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    chance = random.Random(0)
    resumed = []
    for trial in range(kills):
        path = tmp_path / f"run{trial}"
        found, steps = kill_and_resume(path, chance.randrange(36), chance.uniform(0, 0.05))
        assert found == whole, f"trial {trial}, resumed from step {steps}"
        resumed.append(steps)
    # The kills must have hit trainings under way, or this proves nothing.
    assert sum(0 < steps < 40 for steps in resumed) >= kills // 2, resumed
    assert len(set(resumed)) >= kills // 4, resumed


def test_when_checkpoints_are_written_does_not_change_the_weights(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    assert train(tmp_path / "run", checkpoint_s=1e9) == whole


def test_another_seed_gives_other_weights(tmp_path: Path, whole: dict[str, bytes]) -> None:
    assert train(tmp_path / "run", seed=1) != whole


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    path = tmp_path / "run"
    train(path)
    newest, older = sorted((path / checkpoint.FOLDER).glob("step-*"), reverse=True)
    tensors = newest / checkpoint.TENSORS
    data = bytearray(tensors.read_bytes())
    data[len(data) // 2] ^= 1
    tensors.write_bytes(bytes(data))
    assert train(path) == whole
    resume = [e for e in read_events(path) if e["event"] == "resume"][-1]
    assert resume["step"] == int(older.name.removeprefix("step-"))
    assert resume["skipped"] == [
        f"{newest.name}: {checkpoint.TENSORS} differs from MANIFEST.json (size or sha256)"
    ]


def test_metrics_after_a_resume_have_each_step_once(tmp_path: Path) -> None:
    path = tmp_path / "run"
    kill_after(path, 13, 0.02)
    train(path)
    assert any(e["event"] == "resume" for e in read_events(path))
    steps = [e["step"] for e in read_events(path) if e["event"] == "train"]
    assert steps == list(range(1, 41))


def train_and_signal(path: Path, number: signal.Signals) -> None:
    """Train and, in the objective of step 13, send this process a signal."""
    with pytest.raises(Interrupted) as caught, make_run(path) as run:
        job = make_job(run, **{**SETTINGS, "checkpoint_s": 1e9})
        job.objective = _signal_at_call(job.objective, 2 * 13, number)
        fit(job)
    assert caught.value.exit_code == 130
    assert number.name in caught.value.what
    assert "after step 13 of 40; the state is saved" in caught.value.what
    assert "same command" in caught.value.fix
    assert run.info.status == "interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_a_resume_changes_no_bit(
    tmp_path: Path, whole: dict[str, bytes], number: signal.Signals
) -> None:
    path = tmp_path / "run"
    finish(start(train_and_signal, path, number))
    assert train(path, checkpoint_s=1e9) == whole


def interrupt_last_validation(path: Path) -> None:
    with pytest.raises(Interrupted) as caught, make_run(path) as run:
        job = make_job(run, **{**SETTINGS, "checkpoint_s": 1e9})
        per_epoch = 2  # one look at the images' size, one batch
        last: Any = job.val
        last.pixels = _signal_at_call(last.pixels, 4 * per_epoch, signal.SIGINT)
        fit(job)
    assert "after step 40 of 40; the state is saved" in caught.value.what


def test_ctrl_c_in_the_last_validation_is_not_lost(tmp_path: Path, whole: dict[str, bytes]) -> None:
    path = tmp_path / "run"
    finish(start(interrupt_last_validation, path))
    assert train(path) == whole


def interrupt_twice(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), make_run(path) as run:
        job = make_job(run, **{**SETTINGS, "checkpoint_s": 0.0})
        inner = _signal_at_call(job.objective, 26, signal.SIGINT)
        job.objective = _signal_at_call(inner, 26, signal.SIGINT)
        fit(job)


def test_a_second_ctrl_c_ends_at_once_and_leaves_the_last_checkpoint(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    path = tmp_path / "run"
    finish(start(interrupt_twice, path))
    snapshot, skipped = checkpoint.newest(path)
    assert snapshot is not None and snapshot.step == 12 and not skipped
    assert train(path) == whole


def test_a_full_disk_leaves_the_checkpoint_before_intact(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    path = tmp_path / "run"
    with pytest.raises(DiskError) as caught, make_run(path) as run:
        job = make_job(run, **{**SETTINGS, "checkpoint_s": 0.0})
        job.objective = _limit_files_at_call(job.objective, 2 * 13)
        with _files_limited_again():
            fit(job)
    assert "no room left" in caught.value.what
    assert "run the same command again" in caught.value.fix
    snapshot, skipped = checkpoint.newest(path)
    assert snapshot is not None and snapshot.step == 12 and not skipped
    assert not list((path / checkpoint.FOLDER).glob(".*"))
    assert train(path) == whole


def _signal_at_call(objective: Any, call: int, number: signal.Signals) -> Any:
    calls = iter(range(1, 10**6))

    def signalling(*args: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return objective(*args)

    return signalling


def _limit_files_at_call(objective: Any, call: int) -> Any:
    import resource

    calls = iter(range(1, 10**6))

    def limiting(*args: Any) -> Any:
        if next(calls) == call:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
        return objective(*args)

    return limiting


class _files_limited_again:  # noqa: N801 - reads as a phrase where it is used
    """Ignore SIGXFSZ inside, and lift the limit on the size of files afterwards."""

    def __enter__(self) -> None:
        self._old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def __exit__(self, *_: object) -> None:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, self._old)
