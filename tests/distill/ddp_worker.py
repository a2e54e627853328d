"""One process of a distributed distillation, started by torchrun: RUN_FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgexfer.core.rundir import SCHEMA, RunInfo, open_run
from edgexfer.distill.objective import Distillation
from edgexfer.distill.terms import hard_weight, parse_loss
from edgexfer.models.normalise import PixelModel
from edgexfer.training.distributed import joined
from edgexfer.training.loop import fit
from edgexfer.training.objective import Views
from tests.training.toy import PREPROCESS, Feed, Net, make_job

# Both are means over the images of a batch, so that the mean over two processes is that of one.
LOSS = "kd+tckd"


class Answers:
    """A teacher that never trains, and answers from its weights alone."""

    def __init__(self, net: Net) -> None:
        # An untrained head is as good as silent; this one speaks as loudly as a trained one.
        with torch.no_grad():
            net.fc.weight.mul_(30)
        self._teacher = PixelModel(net.eval(), PREPROCESS)

    @torch.no_grad()
    def __call__(self, pixels: Tensor, views: Views) -> Tensor:
        logits: Tensor = self._teacher(pixels)
        return logits


def main(path: Path) -> None:
    torch.set_num_threads(1)
    with joined(timeout_s=60) as here:
        info = RunInfo(SCHEMA, "distill", "running", {}, {}, "0" * 64)
        with open_run(path, info, leader=here.leader) as run:
            torch.manual_seed(1)
            answers = Answers(Net())
            torch.manual_seed(0)
            job = make_job(run, Net(norm=False, dropout=0.0))
            feed: Any = Feed(job.section.batch_size, rank=here.rank, world=here.size)
            job.feed = feed
            terms = parse_loss(LOSS, w_soft=None)
            job.objective = Distillation(answers, terms, hard_weight(terms, None), temperature=4.0)
            result = fit(job)
            if here.leader:
                run.set(status="done", result={"top1_pct": result.val_top1_pct})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
