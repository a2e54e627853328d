"""Two processes under torchrun train like one; one that breaks ends the job."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgexfer.core.errors import MachineError, TrainingError
from edgexfer.core.rundir import read_events, read_run
from edgexfer.training import checkpoint
from edgexfer.training.distributed import World, joined, lost_contact, world
from tests.training.ddp_worker import main

pytestmark = pytest.mark.torch

# Sums of gradients over two processes round differently than over one.
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 1e-4, 1e-4


def torchrun(
    processes: int, path: Path, *behaviour: str, worker: str = "ddp_worker"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "-m", f"tests.training.{worker}"]
    return subprocess.run(
        [*command, str(path), *behaviour],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def losses(path: Path) -> list[float]:
    return [e["loss"] for e in read_events(path) if e["event"] == "train"]


def final_weights(path: Path) -> dict[str, torch.Tensor]:
    newest = max((path / checkpoint.FOLDER).glob("step-*"))
    tensors = load_file(newest / checkpoint.TENSORS)
    return {n: t for n, t in tensors.items() if n.startswith(("model.", "ema."))}


def test_two_processes_have_the_loss_curve_of_one(tmp_path: Path) -> None:
    main(tmp_path / "1", "train")
    done = torchrun(2, tmp_path / "2", "train")
    assert done.returncode == 0, done.stderr
    one, two = losses(tmp_path / "1"), losses(tmp_path / "2")
    assert len(one) == len(two) == 40
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < LOSS_TOLERANCE
    assert one[-1] < 0.5 * one[0]
    mine, others = final_weights(tmp_path / "1"), final_weights(tmp_path / "2")
    for name, tensor in mine.items():
        torch.testing.assert_close(others[name], tensor, rtol=0, atol=WEIGHT_TOLERANCE)
    results = [read_run(tmp_path / p).result["top1_pct"] for p in ("1", "2")]
    assert results[0] == pytest.approx(results[1], abs=1.0)


def test_a_process_that_breaks_ends_the_job_with_its_checkpoints_intact(tmp_path: Path) -> None:
    start = time.monotonic()
    done = torchrun(2, tmp_path / "run", "fail")
    assert done.returncode != 0
    assert time.monotonic() - start < 60
    assert "rank 0: rank 1 ended with ValueError: this rank breaks (" in done.stderr
    snapshot, skipped = checkpoint.newest(tmp_path / "run")
    assert snapshot is not None and snapshot.step == 10 and not skipped


def test_a_killed_process_ends_the_job_within_ten_seconds_and_is_named(tmp_path: Path) -> None:
    done = torchrun(2, tmp_path / "run", "kill")
    ended = time.time()
    assert done.returncode != 0
    assert ended - moment("killed", done.stderr) < 10
    assert "rank 0: rank 1 was killed (" in done.stderr


def test_a_wedged_process_ends_the_job_by_the_time_out_and_is_named(tmp_path: Path) -> None:
    done = torchrun(2, tmp_path / "run", "wedge")
    ended = time.time()
    assert done.returncode != 0
    # Four seconds of time-out, two to see who is to blame, eight for the wedged one to notice, and
    # the rest for two interpreters to end.
    assert ended - moment("wedged", done.stderr) < 4 + 2 + 8 + 10
    assert "rank 0: rank 1 hangs (" in done.stderr
    # Where it hangs is shown before it is ended.
    assert "in wedge" in done.stderr


def moment(what: str, text: str) -> float:
    """Return when a process said that something happens to it, in seconds since the epoch."""
    found = re.search(rf"{what} at ([\d.]+)", text)
    assert found is not None, text
    return float(found[1])


def test_a_loss_that_is_not_finite_in_one_process_is_told_by_the_one_that_writes(
    tmp_path: Path,
) -> None:
    done = torchrun(2, tmp_path / "run", "nan")
    assert done.returncode != 0
    events = [e for e in read_events(tmp_path / "run") if e["event"] == "not_finite"]
    assert [e["step"] for e in events] == [13]
    assert "step 13 (epoch 2): the gradient's norm is nan" in events[0]["error"]
    assert "step 13 (epoch 2): the loss is nan" in done.stderr


def test_processes_leave_together_and_can_join_again(tmp_path: Path) -> None:
    done = torchrun(2, tmp_path, worker="joined_worker")
    assert done.returncode == 0, done.stderr


def test_a_process_without_a_gpu_of_its_own_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MachineError) as caught, joined():
        pass
    assert "process 3 of this machine has no GPU of its own (2 here)" in caught.value.what
    assert "--nproc-per-node" in caught.value.fix


def test_alone_is_a_world_of_one() -> None:
    with joined() as here:
        assert (here.rank, here.size, here.leader) == (0, 1, True)
    assert here.sum(1.0, 2.5) == [1.0, 2.5]
    assert world().share({"a": 1}) == {"a": 1}


def test_others_that_cannot_be_reached_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MachineError) as caught, joined(timeout_s=1):
        pass
    assert "torchrun: rank 1 cannot join the others" in caught.value.what
    assert "torchrun" in caught.value.fix


def test_a_lost_process_is_one_line() -> None:
    with pytest.raises(TrainingError) as caught, lost_contact(World(rank=1, size=2)):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    assert "rank 1: another process has ended or hangs" in caught.value.what
    assert "same command again" in caught.value.fix


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), lost_contact(World(rank=1, size=2)):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
