"""Compiled training: when ``auto`` takes it, and that it trains and resumes like any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgexfer.core.rundir import RunDir
from edgexfer.models.normalise import PixelModel
from edgexfer.training import compilation, setup
from edgexfer.training.compilation import Compilation
from edgexfer.training.distributed import World
from edgexfer.training.loop import fit
from tests.training.toy import PREPROCESS, Net, bits, make_job, make_run

pytestmark = pytest.mark.torch

GPU, CPU = torch.device("cuda"), torch.device("cpu")
PIXELS, TARGETS = torch.rand(8, 3, 8, 8) * 255, torch.eye(10)[:8]
FOREVER = 10**9


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def squared(model: nn.Module, pixels: Tensor, targets: Tensor) -> Tensor:
    loss: Tensor = (model(pixels) - targets).square().mean()
    return loss


def test_only_one_process_on_a_gpu_whose_loss_sees_logits_alone_may_be_compiled() -> None:
    assert compilation.unsuited(World(device=GPU), None) is None
    assert "GPUs alone" in str(compilation.unsuited(World(device=CPU), None))
    assert "several processes" in str(compilation.unsuited(World(size=2, device=GPU), None))
    assert "layers" in str(compilation.unsuited(World(device=GPU), nn.Linear(1, 1)))


def test_a_compiler_must_be_worth_its_minute_and_gain_a_tenth() -> None:
    # 50,000 images in batches of 64, 240 epochs.
    steps = 240 * 781
    assert compilation.long_enough(5.0, steps) and not compilation.long_enough(4.0, steps)
    slow = compilation.judge({"eager": 10.9, "compiled": 10.0})
    assert (slow.compiled, slow.why) == (
        False,
        "a compiled step is 1.09 times as fast as an eager one",
    )
    assert compilation.judge({"eager": 11.1, "compiled": 10.0}).compiled


def test_a_short_training_is_not_compiled_for_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: object) -> nn.Module:
        raise AssertionError("compiled")

    monkeypatch.setattr(compilation, "compile_model", never)
    model = PixelModel(Net(), PREPROCESS).train()
    found = compilation.race(model, squared, (PIXELS, TARGETS), "fp32", steps=100)
    assert not found.compiled and set(found.step_ms) == {"eager"}
    assert "before a compiler pays off" in found.why


def test_where_the_compiler_fails_the_training_stays_eager(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_: object) -> nn.Module:
        raise RuntimeError("Cannot find a working triton installation\nlong trace")

    monkeypatch.setattr(compilation, "compile_model", broken)
    model = PixelModel(Net(), PREPROCESS).train()
    found = compilation.race(model, squared, (PIXELS, TARGETS), "fp32", FOREVER)
    assert not found.compiled
    assert found.why == "compiling failed (Cannot find a working triton installation)"


def test_memory_that_runs_out_keeps_the_training_eager() -> None:
    def too_large(*_: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    found = compilation.race(nn.Linear(1, 1), too_large, (PIXELS, TARGETS), "fp32", FOREVER)
    assert found == Compilation(False, "memory ran out while steps were timed", {})

    def wrong(*_: object) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        compilation.race(nn.Linear(1, 1), wrong, (PIXELS, TARGETS), "fp32", FOREVER)


def test_the_choice_is_made_once_and_kept(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    raced: list[int] = []

    def race(
        _model: object, _objective: object, _batch: object, _precision: str, steps: int
    ) -> Compilation:
        raced.append(steps)
        return Compilation(True, "a compiled step is 1.50 times as fast as an eager one", {})

    monkeypatch.setattr(compilation, "race", race)
    monkeypatch.setattr(compilation, "unsuited", lambda *_: None)
    job = make_job(run, accumulate=2)
    model = PixelModel(job.model, job.preprocess)
    assert setup.choose_compilation(job, World(), model, "fp32")
    assert setup.choose_compilation(job, World(), model, "fp32")
    assert raced == [4 * 10 * 2]
    assert run.info.lineage["compile"]["compiled"] is True
    for asked, expected in (("on", True), ("off", False)):
        job.section = replace(job.section, compile=asked)  # type: ignore[arg-type]
        assert setup.choose_compilation(job, World(), model, "fp32") is expected
    assert len(raced) == 1


def test_auto_leaves_a_cpu_eager_and_says_nothing(run: RunDir) -> None:
    job = make_job(run, epochs=1)
    model = PixelModel(job.model, job.preprocess)
    assert not setup.choose_compilation(job, World(device=CPU), model, "fp32")
    assert "compile" not in run.info.lineage


@pytest.mark.slow
def test_a_compiled_copy_races_and_the_model_is_left_alone() -> None:
    torch.manual_seed(0)
    model = PixelModel(Net(), PREPROCESS).train()
    before = bits(model)
    found = compilation.race(model, squared, (PIXELS, TARGETS), "fp32", FOREVER)
    assert set(found.step_ms) == {"eager", "compiled"}, found.why
    assert found == compilation.judge(found.step_ms)
    assert bits(model) == before
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.slow
def test_a_compiled_training_learns_and_resumes_to_the_bit(tmp_path: Path) -> None:
    results = {}
    for asked in ("off", "on"):
        with make_run(tmp_path / asked) as run:
            job = make_job(run, Net(dropout=0.0), compile=asked)
            results[asked] = fit(job).val_top1_pct
            whole = bits(job.model)
    assert results["on"] == pytest.approx(results["off"], abs=5)
    with make_run(tmp_path / "broken") as run:
        job = make_job(run, Net(dropout=0.0), compile="on", checkpoint_s=1e-6)
        plain, calls = job.objective, iter(range(10**6))

        def breaking(*args: Any) -> Any:
            if next(calls) == 15:
                raise ZeroDivisionError
            return plain(*args)

        job.objective = breaking
        with pytest.raises(ZeroDivisionError):
            fit(job)
    with make_run(tmp_path / "broken") as run:
        job = make_job(run, Net(dropout=0.0), compile="on")
        assert fit(job).resumed_from == 15
        assert bits(job.model) == whole
