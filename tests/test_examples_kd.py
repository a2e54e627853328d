"""The benchmark's pairs: every command parses, and the short form of three of them goes through."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.testing import CliRunner

from edgexfer.cli import cli
from edgexfer.core.rundir import read_run
from edgexfer.models.create import ARCHITECTURES
from tests.pictures import write_folder
from tests.test_docs import commands, parse

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "cifar100_kd"
RUNS = Path("runs/cifar100_kd")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cifar100_kd", FOLDER / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by its name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


example = load()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "pictures", 40)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("name", example.PAIRS)
def test_every_pair_is_known_and_its_commands_parse(name: str) -> None:
    pair = example.PAIRS[name]
    assert {pair.teacher, pair.student} <= set(ARCHITECTURES)
    for loss in example.LOSSES:
        for smoke in (False, True):
            for command in example.commands(pair, loss, "cifar100", RUNS, smoke=smoke):
                parse(list(command))


def test_the_readme_shows_what_is_typed_and_has_a_row_for_each_pair(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert example.main(["resnet32x4-resnet8x4", "--print"]) == 0
    printed = capsys.readouterr().out.splitlines()
    shown = commands(FOLDER / "README.md")
    assert [shlex.split(line)[1:] for line in printed] == [shlex.split(line) for line in shown]
    rows = re.findall(r"^\| `([^`-][^`]*)` \|", (FOLDER / "README.md").read_text(), flags=re.M)
    assert rows == list(example.PAIRS)


def test_options_of_distill_are_handed_on(capsys: pytest.CaptureFixture[str]) -> None:
    example.main(["vgg13-vgg8", "--loss", "dkd", "--print", "--control", "--seeds", "3"])
    teacher, student = capsys.readouterr().out.splitlines()
    assert "--model vgg13_cifar" in teacher and "--control" not in teacher
    assert "1*tckd+6*nckd" in student and student.endswith("--control --seeds 3")


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("resnet56-resnet20", "kd"),
        pytest.param("wrn_40_2-wrn_16_2", "dist", marks=pytest.mark.slow),
        pytest.param("wrn_40_2-shufflenetv1", "dkd", marks=pytest.mark.slow),
    ],
)
def test_the_short_form_goes_through(name: str, loss: str, pictures: Path, runs: Path) -> None:
    torch.set_num_threads(1)
    pair = example.PAIRS[name]
    for command in example.commands(pair, loss, str(pictures), runs, smoke=True):
        done = CliRunner().invoke(cli, command)
        assert done.exit_code == 0, done.output
    for run, model in (
        (pair.teacher, pair.teacher),
        (f"{pair.teacher}-{pair.student}-{loss}", pair.student),
    ):
        info = read_run(runs / run)
        assert (info.status, info.result["model"], info.result["fit"]["epochs"]) == (
            "done",
            model,
            8,
        )
