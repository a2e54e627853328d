"""The guard calls a planted negative transfer by its name, and a good source good."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgexfer.advise.distance import distance_of_run
from edgexfer.cli import run
from edgexfer.core.errors import GateError, RecipeError, RunError
from edgexfer.core.rundir import read_run
from edgexfer.core.stats import SeededGain
from edgexfer.core.sweep import SCHEMA, Arm, Sweep, read_sweep
from edgexfer.models.create import create_model
from edgexfer.recipe import DataSection, ModelSection, TeacherSection, TrainSection
from edgexfer.report.sweep import sweep_answer
from edgexfer.transfer.finetune import finetune
from edgexfer.transfer.guard import finetune_all, refuse_harm
from tests.pictures import write_folder

pytestmark = pytest.mark.torch

TRAIN = TrainSection(
    epochs=4, batch_size=16, lr=1e-2, warmup=0.5, augment="none", precision="fp32", compile="off"
)
MODEL = ModelSection("resnet8", size=16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSection:
    return DataSection(str(write_folder(tmp_path_factory.mktemp("data") / "pictures", 48)))


@pytest.fixture(scope="module")
def good(data: DataSection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a source that has learned these very classes."""
    place = tmp_path_factory.mktemp("source") / "run"
    finetune(data, TeacherSection(MODEL, "scratch", train=TRAIN), place)
    return place / "model" / "weights.safetensors"


@pytest.fixture(scope="module")
def bad(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a source that sees nothing: every stage but the stem is switched off."""
    tensors = load_file(good)
    spoilt = {
        n: torch.full_like(t, -3.0) if n.endswith("bn2.bias") else t for n, t in tensors.items()
    }
    place = tmp_path_factory.mktemp("source") / "spoilt.safetensors"
    save_file(spoilt, place)
    return place


def guarded(weights: Path, strategy: str = "full", seeds: int = 2) -> TeacherSection:
    model = replace(MODEL, weights=str(weights))
    # Too short for a model that begins with nothing.
    train = replace(TRAIN, epochs=1, lr=1e-5)
    return TeacherSection(model, strategy, guard=True, seeds=seeds, train=train)


def test_a_good_source_helps(tmp_path: Path, data: DataSection, good: Path) -> None:
    info, sweep = finetune_all(data, guarded(good), tmp_path / "run")
    assert sweep is not None and sweep == read_sweep(tmp_path / "run-guard")
    assert [arm.name for arm in sweep.arms] == ["full", "probe", "scratch"]
    assert sweep.baseline == "scratch" and all(arm.seeds == (0, 1) for arm in sweep.arms)
    assert info.result["test"]["top1_pct"] == sweep.arms[0].top1_pct[0]
    gain = sweep.arms[0].gain
    assert gain is not None and gain.gain_pt > 10
    refuse_harm(sweep, tmp_path / "run")
    assert "Did the source weights help? With 2 seeds: full" in (sweep_answer(sweep) or "")


def test_a_planted_negative_transfer_stops_the_command_and_keeps_the_runs(
    tmp_path: Path, data: DataSection, bad: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["finetune", "--data", data.path, "--model", "resnet8", "--size", "16"]
    words += ["--weights", str(bad), "--strategy", "probe", "--guard", "--seeds", "2"]
    words += ["--epochs", "4", "--batch-size", "16", "--lr", "1e-2", "--warmup", "0.5"]
    words += ["--augment", "none", "--precision", "fp32", "--compile", "off"]
    assert run([*words, "--out", str(tmp_path / "run")]) == 1
    out, err = capsys.readouterr()
    assert "negative transfer: probe is" in err
    assert f"use {tmp_path}/run-guard/scratch" in err
    assert "probe hurts" in out
    assert "How far the source's pictures are from yours is not known" in out
    assert (tmp_path / "run" / "model" / "weights.safetensors").is_file()
    assert (tmp_path / "run-guard" / "scratch" / "seed-1" / "model").is_dir()


def test_how_far_the_source_is_is_measured(good: Path, data: DataSection, tmp_path: Path) -> None:
    assert "No difference" in distance_of_run(str(good), data.path).verdict
    others = write_folder(tmp_path / "others", 24, {"grey": (90, 90, 90), "dark": (10, 10, 10)})
    far = distance_of_run(str(good.parent.parent), str(others))
    assert far.a_low > 1 and far.mmd_p < 0.05
    with pytest.raises(RunError, match="is not a run"):
        distance_of_run(str(tmp_path / "net" / "w.safetensors"), data.path)


def test_what_the_interval_leaves_open_is_not_called_harm(tmp_path: Path) -> None:
    def sweep(low: float, high: float) -> Sweep:
        gain = SeededGain((low + high) / 2, low, high, 2, 100)
        arms = (Arm("full", (), (0, 1), (), 0.0, (), gain), Arm("scratch", (), (0, 1), (), 0.0, ()))
        return Sweep(SCHEMA, "resnet8", None, 100, "scratch", arms)

    refuse_harm(None, tmp_path)
    refuse_harm(sweep(-5.0, 0.1), tmp_path)
    with pytest.raises(GateError, match=r"3\.00 points below .* 1\.00 to 5\.00") as caught:
        refuse_harm(sweep(-5.0, -1.0), tmp_path / "run")
    assert "run-guard/scratch" in caught.value.fix


@pytest.mark.parametrize(
    ("section", "what", "fix"),
    [
        (TeacherSection(MODEL, "scratch", guard=True), "nothing is transferred", "--weights FILE"),
        (TeacherSection(MODEL, "scratch", seeds=3), "nothing to compare", "add --guard"),
    ],
)
def test_a_guard_without_a_source_is_refused(
    tmp_path: Path, data: DataSection, section: TeacherSection, what: str, fix: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        finetune_all(data, section, tmp_path / "run")
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert not (tmp_path / "run").exists()


SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_chs": 8}


@pytest.mark.parametrize(
    ("model", "per_class"),
    [(ModelSection("resnetv2_50", 32, options=SMALL), 8), (MODEL, 2)],
    ids=("a head that is no linear layer", "no val images"),
)
def test_where_no_head_can_be_fitted_the_probe_is_trained_by_steps(
    tmp_path: Path, model: ModelSection, per_class: int
) -> None:
    """Else the guard would stop after the training that it is to judge."""
    data = DataSection(str(write_folder(tmp_path / "pictures", per_class)))
    net, _ = create_model(model.name, 5, options=model.options)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    section = guarded(tmp_path / "net.safetensors", seeds=1)
    section = replace(section, model=replace(model, weights=section.model.weights))
    _, sweep = finetune_all(data, section, tmp_path / "run")
    assert sweep is not None and [a.name for a in sweep.arms] == ["full", "probe", "scratch"]
    probe = read_run(tmp_path / "run-guard" / "probe" / "seed-0")
    assert probe.config["strategy_options"]["head"] == "trained"
