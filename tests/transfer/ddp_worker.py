"""Short trainings of a small transformer by one strategy after the other, in one process or more.

``python -m tests.transfer.ddp_worker PICTURES SOURCE RUNS``, as torchrun starts it; beside the
pictures lie ``PICTURES-tasks.csv`` and ``PICTURES-gaps.csv``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgexfer.recipe import DataSection, ModelSection, TeacherSection, TrainSection
from edgexfer.transfer.finetune import finetune

REMEMBERING = ("ewc", "lwf", "replay")
TRAINED = (
    "probe",
    "perceptron",
    "freeze",
    "gradual",
    "full",
    "lora",
    "adapter",
    "bitfit",
    "l2sp",
    "delta",
    "bss",
    "cotuning",
    "prototype",
)
STRATEGIES = ("scratch", *TRAINED, *REMEMBERING)
# Several tasks, with all labels and with some missing.
TABLES = ("tasks", "gaps")
RUNS = (*STRATEGIES, *TABLES)
OPTIONS: dict[str, dict[str, Any]] = {
    "delta": {"layers": ["blocks.0"]},
    "perceptron": {"head": "mlp", "hidden": 4},
}
SIZE = {"patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2}


def main(pictures: Path, source: Path, runs: Path) -> None:
    """Train from scratch, and with all the others from what ``SOURCE/scratch`` has learned.

    Plain steps: Adam's would make much of gradients that are nothing but rounding.
    """
    torch.set_num_threads(1)
    train = TrainSection(
        epochs=2,
        batch_size=16,
        optimizer="sgd",
        lr=1e-2,
        warmup=0.0,
        augment="none",
        precision="fp32",
        compile="off",
    )
    for name in STRATEGIES:
        options, weights = dict(OPTIONS.get(name, {})), None
        if name in REMEMBERING:
            options["old"] = str(source / "scratch")
        elif name in TRAINED:
            weights = str(source / "scratch" / "model" / "weights.safetensors")
        model = ModelSection("vit_tiny_patch16_224", 16, weights, options=SIZE)
        strategy = "probe" if name == "perceptron" else name
        section = TeacherSection(model, strategy, options, train=train)
        finetune(DataSection(str(pictures)), section, runs / name)
    for name in TABLES:
        table = DataSection(str(pictures), labels=f"{pictures}-{name}.csv")
        model = ModelSection("vit_tiny_patch16_224", 16, options=SIZE)
        weighed = replace(train, balance="uncertainty")
        finetune(table, TeacherSection(model, "scratch", train=weighed), runs / name)


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
