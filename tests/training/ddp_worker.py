"""One process of a distributed training, started by torchrun: RUN_FOLDER and how to behave."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from edgexfer.core.rundir import SCHEMA, RunInfo, open_run
from edgexfer.training.distributed import LostContactError, joined
from edgexfer.training.loop import fit
from tests.training.toy import Feed, Net, make_job, without_labels


def main(path: Path, behaviour: str) -> None:
    torch.set_num_threads(1)
    with joined(timeout_s=4 if behaviour == "wedge" else 60) as here:
        info = RunInfo(SCHEMA, "finetune", "running", {}, {}, "0" * 64)
        with open_run(path, info, leader=here.leader) as run:
            torch.manual_seed(0)
            job = make_job(run, Net(norm=False, dropout=0.0), ema=0.9, accumulate=2)
            feed: Any = Feed(job.section.batch_size, rank=here.rank, world=here.size)
            without_labels(feed, 7)
            job.feed = feed
            if behaviour in BREAKING and here.rank == 1:
                job.objective = _breaking_at_call(job.objective, 25, BREAKING[behaviour])
            if behaviour == "nan" and here.rank == 1:
                job.objective = _nan_from_call(job.objective, 25)
            try:
                result = fit(job)
            except LostContactError:
                # A busy machine: torchrun, which is ending all processes, is quicker than this one.
                time.sleep(1.5 if behaviour == "fail" else 0)
                raise
            if here.leader:
                run.set(status="done", result={"top1_pct": result.val_top1_pct})


def fail() -> None:
    raise ValueError("this rank breaks")


def kill() -> None:
    sys.stderr.write(f"killed at {time.time()}\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def wedge() -> None:
    sys.stderr.write(f"wedged at {time.time()}\n")
    sys.stderr.flush()
    time.sleep(600)


BREAKING = {"fail": fail, "kill": kill, "wedge": wedge}


def _breaking_at_call(
    objective: Any, call: int, break_down: Callable[[], None]
) -> Callable[..., Any]:
    calls = iter(range(1, 10**6))

    def breaking(*args: Any) -> Any:
        if next(calls) == call:
            break_down()
        return objective(*args)

    return breaking


def _nan_from_call(objective: Any, call: int) -> Callable[..., Any]:
    calls = iter(range(1, 10**6))

    def broken(*args: Any) -> Any:
        loss, parts = objective(*args)
        return loss * float("nan") if next(calls) >= call else loss, parts

    return broken


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
