"""Short trainings that adapt: in this process, one that is stopped, or one of several.

``python -m tests.transfer.adapt_worker SOURCE TARGET RUNS`` trains all, as torchrun starts it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from edgexfer.core.errors import Interrupted
from edgexfer.recipe import DataSection, ModelSection, TeacherSection, TrainSection
from edgexfer.training import loop
from edgexfer.transfer.finetune import finetune

STRATEGIES = ("coral", "dann", "mmd", "pseudo", "reconstruction")
# So low a threshold that the classes of some images count.
OPTIONS: dict[str, dict[str, Any]] = {"pseudo": {"threshold": 0.5}}


def section(strategy: str, **changes: Any) -> TeacherSection:
    """Return two epochs of a small net; an option of the strategy is taken for one."""
    settings: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 16,
        "lr": 1e-2,
        "warmup": 0.0,
        "augment": "flip",
    }
    settings |= {"precision": "fp32", "compile": "off"}
    options = dict(OPTIONS.get(strategy, {}))
    for key, value in changes.items():
        (settings if key in TrainSection.__dataclass_fields__ else options)[key] = value
    model = ModelSection("resnet8", size=16)
    return TeacherSection(model, strategy, strategy_options=options, train=TrainSection(**settings))


def train(strategy: str, data: DataSection, place: Path) -> dict[str, Any]:
    """Train, or go on; returns the result."""
    torch.set_num_threads(1)
    return finetune(data, section(strategy), place).result


def interrupted(data: DataSection, place: Path) -> None:
    """Begin each training and stop it after its third step."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    step = loop._Training._step
    for strategy in STRATEGIES:
        calls = iter(range(1, 10**6))

        def stopping(*args: Any, calls: Any = calls) -> Any:
            outcome = step(*args)
            if next(calls) == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return outcome

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(loop._Training, "_step", stopping)
            train(strategy, data, place / strategy)


if __name__ == "__main__":
    source, target, runs = sys.argv[1:]
    for name in STRATEGIES:
        train(name, DataSection(source, unlabelled=target), Path(runs) / name)
