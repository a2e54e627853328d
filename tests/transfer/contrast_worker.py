"""One of two processes, started by torchrun: the gradient of NT-Xent, then a short pre-training."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from edgexfer.recipe import DataSection, ModelSection, PretrainSection, TrainSection
from edgexfer.training.distributed import joined
from edgexfer.transfer.pretrain import gathered_nt_xent, nt_xent, pretrain

TRAIN = TrainSection(epochs=2, batch_size=8, lr=3e-3, precision="fp32", compile="off")
SECTION = PretrainSection(ModelSection("resnet8", size=16), projection=16, train=TRAIN)


def main(out: Path, data: str) -> None:
    torch.set_num_threads(1)
    with joined() as here:
        # Four images in two views; this process has every second one, as the feed deals them.
        views = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
        alone = nt_xent(views, 0.5)
        (wanted,) = torch.autograd.grad(alone, views)
        images = torch.arange(here.rank, 4, 2)
        mine = torch.cat([images, images + 4])
        own = views.detach()[mine].requires_grad_()
        loss = gathered_nt_xent(own, 0.5)
        (found,) = torch.autograd.grad(loss, own)
        torch.testing.assert_close(loss.detach(), alone.detach())
        # DDP takes the mean over the processes.
        torch.testing.assert_close(found / here.size, wanted[mine])
    pretrain(DataSection(data), SECTION, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
