"""Every strategy that is killed goes on to the same weights, to the bit, and runs in two processes.

Those that adapt to images without labels have such tests of their own, in ``test_adapt.py``.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edgexfer.core.rundir import RunInfo, read_run
from edgexfer.distill.stage import distill
from edgexfer.recipe import (
    DataSection,
    ModelSection,
    StudentSection,
    TeacherSection,
    TrainSection,
)
from edgexfer.training import loop
from edgexfer.transfer import finetune as stage
from edgexfer.transfer.finetune import finetune
from edgexfer.transfer.plan import strategy_names
from tests.pictures import write_folder, write_table
from tests.training.test_resume import start
from tests.transfer import adapt_worker
from tests.transfer.ddp_worker import REMEMBERING, RUNS, main
from tests.transfer.tiny import TRAIN, from_weights

pytestmark = pytest.mark.torch

NAMES = [name for name in strategy_names() if name not in adapt_worker.STRATEGIES]
# Two epochs of two steps; what is saved after each is what the next process begins with.
OFTEN = replace(TRAIN, checkpoint_s=1e-9, ema=0.5, augment="flip")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned other colours before."""
    place = tmp_path_factory.mktemp("old")
    colours = {"amber": (230, 180, 30), "green": (40, 180, 60), "pink": (230, 130, 160)}
    first = DataSection(str(write_folder(place / "first", 12, colours)))
    section = TeacherSection(ModelSection("resnet8", size=16), "scratch", train=TRAIN)
    finetune(first, section, place / "run")
    return place / "run"


def section_of(name: str, weights: Path, old: Path) -> TeacherSection:
    if name in REMEMBERING:
        model = ModelSection("resnet8", size=16)
        return TeacherSection(model, name, strategy_options={"old": str(old)}, train=OFTEN)
    section = from_weights(weights, name, OFTEN)
    needs = importlib.import_module(f"edgexfer.transfer.{name}").NEEDS_WEIGHTS
    return section if needs else replace(section, model=replace(section.model, weights=None))


def train_until_killed(train: Callable[..., object], *args: Any) -> None:
    """Die without a word in the fourth step; a strategy that takes none, before it is stored."""
    torch.set_num_threads(1)
    calls = iter(range(1, 10**6))
    step = loop._Training._step

    def dying_step(*args: Any) -> Any:
        if next(calls) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args)

    def dying_finish(*_: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Training, "_step", dying_step)
        patch.setattr(stage, "finish", dying_finish)
        train(*args)


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_training_ends_with_the_same_bits(
    tmp_path: Path, data: DataSection, weights: Path, old: Path, name: str
) -> None:
    check_resumed(tmp_path, OFTEN, finetune, data, section_of(name, weights, old))


def test_a_killed_probe_begins_its_perceptron_anew(
    tmp_path: Path, data: DataSection, weights: Path
) -> None:
    section = from_weights(weights, "probe", OFTEN, head="mlp", hidden=8)
    check_resumed(tmp_path, section.train, finetune, data, section)


def test_a_killed_training_of_several_tasks_does_so_too(
    tmp_path: Path, tabled: DataSection
) -> None:
    """What weighs the tasks moves from step to step, and must go on from where it stood."""
    train = replace(OFTEN, balance="uncertainty", mixup=0.2)
    model = ModelSection("resnet8", size=16)
    section = TeacherSection(model, "scratch", train=train)
    check_resumed(tmp_path, train, finetune, tabled, section)


def test_so_does_a_killed_distillation_of_several_tasks(
    tmp_path: Path, tabled: DataSection
) -> None:
    model = ModelSection("resnet8", size=16)
    finetune(tabled, TeacherSection(model, "scratch", train=TRAIN), tmp_path / "teacher")
    train = replace(OFTEN, balance="gradnorm", seed=1)
    student = StudentSection(model, loss="dkd", train=train)
    check_resumed(tmp_path, train, distill, tabled, [tmp_path / "teacher"], student)


def check_resumed(
    tmp_path: Path, schedule: TrainSection, train: Callable[..., RunInfo], *args: Any
) -> None:
    child = start(train_until_killed, train, *args, tmp_path / "run")
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    whole = train(*args, tmp_path / "whole").result
    again = train(*args, tmp_path / "run").result
    assert again["weights_sha256"] == whole["weights_sha256"]
    if whole["fit"]["epochs"] == schedule.epochs:
        assert again["fit"]["resumed_from"] == 3


def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    """A transformer has no batch norm, whose statistics each process takes of its own share."""
    pictures = write_folder(tmp_path / "pictures", 16)
    write_table(pictures, tmp_path / "pictures-tasks.csv", gaps=False)
    write_table(pictures, tmp_path / "pictures-gaps.csv")
    main(pictures, tmp_path / "one", tmp_path / "one")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "-m", "tests.transfer.ddp_worker"]
    done = subprocess.run(
        [*command, str(pictures), str(tmp_path / "one"), str(tmp_path / "two")],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in RUNS:
        runs = [tmp_path / processes / name for processes in ("one", "two")]
        assert read_run(runs[1]).status == "done", name
        one, two = (load_file(run / "model" / "weights.safetensors") for run in runs)
        # Of bss each process looks at the spectrum of its own share. The gradient of that on the
        # features is 2 η σ, in four steps at this rate 8e-5 σ, with σ below 0.1.
        for tensor, value in one.items():
            apart = float((two[tensor] - value).abs().max())
            assert apart < 1e-4, f"{name}: {tensor}"
