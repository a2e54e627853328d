"""Each strategy through a short training: what it says stands still does so, to the bit."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from edgexfer.core.errors import ModelError, RecipeError, RunError
from edgexfer.core.rundir import RunInfo, read_run
from edgexfer.recipe import DataSection, ModelSection, TeacherSection
from edgexfer.transfer import plan
from edgexfer.transfer.finetune import finetune
from tests.transfer.tiny import TRAIN, from_weights, moved

pytestmark = pytest.mark.torch

SCRATCH = TeacherSection(ModelSection("resnet8", size=16), "scratch", train=TRAIN)
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def test_probe_moves_the_new_head_alone(tmp_path: Path, data: DataSection, weights: Path) -> None:
    info = finetune(data, from_weights(weights, "probe"), tmp_path / "run")
    assert moved(tmp_path / "run", weights) == {"fc.weight", "fc.bias"}
    head = load_file(tmp_path / "run" / "model" / "weights.safetensors")["fc.weight"]
    assert tuple(head.shape) == (3, 64)
    assert info.status == "done" and info.result["fit"]["epochs"] == 1


def test_a_run_is_to_start_from_and_known_by_its_content(tmp_path: Path, data: DataSection) -> None:
    first = finetune(data, SCRATCH, tmp_path / "first")
    info = finetune(data, from_weights(tmp_path / "first", "probe"), tmp_path / "second")
    assert info.parents == {"weights": first.result["weights_sha256"]}
    went = moved(tmp_path / "second", tmp_path / "first" / "model" / "weights.safetensors")
    assert went == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("until", ["layer2", None])
def test_freeze_keeps_the_early_layers_and_their_statistics(
    tmp_path: Path, data: DataSection, weights: Path, until: str | None
) -> None:
    section = replace(from_weights(weights, "freeze"), strategy_options={"until": until})
    finetune(data, section, tmp_path / "run")
    late = {n for n in load_file(weights) if n.startswith(("layer3.", "fc."))}
    assert moved(tmp_path / "run", weights) == late


def test_full_moves_everything(tmp_path: Path, data: DataSection, weights: Path) -> None:
    finetune(data, from_weights(weights, "full"), tmp_path / "run")
    assert moved(tmp_path / "run", weights) == set(load_file(weights))


def test_head_and_backbone_have_their_own_rates(
    tmp_path: Path, data: DataSection, weights: Path
) -> None:
    section = from_weights(weights, "full", replace(TRAIN, backbone_lr=0.0))
    finetune(data, section, tmp_path / "run")
    # A rate of 0 is not frozen: the statistics follow the images.
    statistics = {n for n in load_file(weights) if n.endswith(STATISTICS)}
    assert moved(tmp_path / "run", weights) == statistics | {"fc.weight", "fc.bias"}


def test_scratch_depends_on_the_seed_alone_and_a_done_run_is_not_trained_again(
    tmp_path: Path, data: DataSection
) -> None:
    first = finetune(data, SCRATCH, tmp_path / "a")
    second = finetune(data, SCRATCH, tmp_path / "b")
    assert first.result["weights_sha256"] == second.result["weights_sha256"]
    stamp = (tmp_path / "a" / "model" / "weights.safetensors").stat().st_mtime_ns
    assert finetune(data, SCRATCH, tmp_path / "a") == first
    assert (tmp_path / "a" / "model" / "weights.safetensors").stat().st_mtime_ns == stamp
    assert not (tmp_path / "a" / "checkpoints").exists()


def test_other_weights_under_the_same_name_make_another_run(
    tmp_path: Path, data: DataSection, weights: Path
) -> None:
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(weights.read_bytes())
    finetune(data, from_weights(copy, "probe"), tmp_path / "run")
    save_file({n: t + 1 for n, t in load_file(weights).items()}, copy)
    with pytest.raises(RunError, match=r"made from\.weights") as caught:
        finetune(data, from_weights(copy, "probe"), tmp_path / "run")
    assert "choose another --out" in caught.value.fix


@pytest.mark.parametrize(
    ("strategy", "given", "what", "fix"),
    [
        ("probe", False, "strategy probe builds on trained weights", "--strategy scratch"),
        ("freeze", False, "strategy freeze builds on trained weights", "--pretrained or --weights"),
        ("scratch", True, "starts from random weights, but weights were given", "--strategy full"),
        ("prob", False, "strategy 'prob' is unknown", "probe"),
    ],
)
def test_a_strategy_that_does_not_fit_is_refused(
    tmp_path: Path,
    data: DataSection,
    weights: Path,
    strategy: str,
    given: bool,
    what: str,
    fix: str,
) -> None:
    section = from_weights(weights, strategy) if given else replace(SCRATCH, strategy=strategy)
    with pytest.raises(RecipeError) as caught:
        finetune(data, section, tmp_path / "run")
    assert what in caught.value.what
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("strategy", "options", "what", "fix"),
    [
        ("freeze", {"untill": "layer2"}, "strategy freeze: unknown key untill", "until"),
        ("freeze", {"until": 2}, "strategy freeze: until is 2", "a value of that type"),
        ("full", {"until": "layer2"}, "strategy full has no options", "leave it out"),
    ],
)
def test_an_option_that_the_strategy_does_not_have_is_refused(
    tmp_path: Path,
    data: DataSection,
    weights: Path,
    strategy: str,
    options: dict[str, object],
    what: str,
    fix: str,
) -> None:
    section = replace(from_weights(weights, strategy), strategy_options=options)
    with pytest.raises(RecipeError) as caught:
        finetune(data, section, tmp_path / "run")
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert not (tmp_path / "run").exists()


def test_a_default_spelled_out_is_the_same_run(
    tmp_path: Path, data: DataSection, weights: Path
) -> None:
    section = from_weights(weights, "freeze")
    first = finetune(data, section, tmp_path / "run")
    assert first.config["strategy_options"] == {"until": None}
    again = replace(section, strategy_options={"until": None})
    assert finetune(data, again, tmp_path / "run") == first


def test_a_layer_that_is_not_there_is_refused(
    tmp_path: Path, data: DataSection, weights: Path
) -> None:
    section = replace(from_weights(weights, "freeze"), strategy_options={"until": "layer9"})
    with pytest.raises(ModelError, match="'layer9'") as caught:
        finetune(data, section, tmp_path / "run")
    assert "layer" in caught.value.fix
    found: RunInfo = read_run(tmp_path / "run")
    assert found.status == "failed"


def test_a_file_is_a_strategy_by_how_its_docstring_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "helper.py").write_text('"""What strategies share; strategy ``helper`` is none."""')
    (tmp_path / "new.py").write_text('"""Strategy ``new``: another one."""')
    (tmp_path / "__init__.py").write_text("")
    for name in plan.strategy_names():
        module = importlib.import_module(f"edgexfer.transfer.{name}")
        assert callable(module.prepare) and isinstance(module.NEEDS_WEIGHTS, bool)
    monkeypatch.setattr(plan, "__file__", str(tmp_path / "plan.py"))
    assert plan.strategy_names() == ("new",)
