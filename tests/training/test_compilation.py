"""Compiled training: when ``auto`` takes it, and that it trains and resumes like any other."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgexfer.core.errors import MachineError
from edgexfer.core.progress import say
from edgexfer.core.rundir import RunDir
from edgexfer.models.normalise import PixelModel
from edgexfer.training import compilation, setup
from edgexfer.training.compilation import Compilation
from edgexfer.training.distributed import World
from edgexfer.training.loop import fit
from tests.training.toy import PREPROCESS, Net, bits, make_job, make_run

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
PIXELS, TARGETS = torch.rand(8, 3, 8, 8) * 255, torch.eye(10)[:8]
FOREVER = 10**9


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def squared(model: nn.Module, pixels: Tensor, targets: Tensor) -> Tensor:
    loss: Tensor = (model(pixels) - targets).square().mean()
    return loss


def test_only_one_process_whose_loss_sees_logits_alone_may_be_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/g++")
    unsuited = partial(compilation.unsuited, thaws=False)
    assert unsuited(World(device=CPU), None) is None
    assert "thawed" in str(compilation.unsuited(World(device=CPU), None, thaws=True))
    assert "several processes" in str(unsuited(World(size=2, device=CPU), None))
    assert "layers" in str(unsuited(World(device=CPU), nn.Linear(1, 1)))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert unsuited(World(device=CPU), None) == "there is no C++ compiler"


def test_a_compiler_must_be_worth_its_minute_and_gain_a_tenth() -> None:
    # 50,000 images in batches of 64, 240 epochs.
    steps = 240 * 781
    assert compilation.long_enough(5.0, steps) and not compilation.long_enough(4.0, steps)
    slow = compilation.judge({"eager": 10.9, "compiled": 10.0}, 30.0, steps)
    assert (slow.compiled, slow.why) == (
        False,
        "a compiled step is 1.09 times as fast as an eager one",
    )
    fast = compilation.judge({"eager": 11.0, "compiled": 10.0}, 30.0, steps)
    assert fast.compiled and fast.compile_s == 30.0
    assert fast.saves_s == pytest.approx(187.44)
    dear = compilation.judge({"eager": 11.0, "compiled": 10.0}, 188.0, steps)
    assert not dear.compiled and "does not make up for compiling it" in dear.why


def test_a_compiled_step_that_computes_something_else_is_not_taken() -> None:
    assert compilation.deviation((2.0, 10.0), (2.03, 9.1)) is None
    assert (
        compilation.deviation((2.0, 10.0), (2.05, 10.0))
        == "compiled, the loss is 2.05 instead of 2"
    )
    assert "the gradient is 11.1 instead of 10" in str(
        compilation.deviation((2.0, 10.0), (2.0, 11.1))
    )
    assert "the loss is nan" in str(compilation.deviation((2.0, 10.0), (math.nan, 10.0)))


def test_a_short_training_is_not_compiled_for_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: object) -> nn.Module:
        raise AssertionError("compiled")

    monkeypatch.setattr(compilation, "compile_model", never)
    model = PixelModel(Net(), PREPROCESS).train()
    said: list[str] = []
    found = compilation.race(model, squared, (PIXELS, TARGETS), "fp32", 100, said.append)
    assert not found.compiled and set(found.step_ms) == {"eager"}
    assert "before a compiler pays off" in found.why and not said


def test_where_the_compiler_fails_the_training_stays_eager(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_: object) -> nn.Module:
        raise RuntimeError("Cannot find a working triton installation\nlong trace")

    monkeypatch.setattr(compilation, "compile_model", broken)
    model = PixelModel(Net(), PREPROCESS).train()
    said: list[str] = []
    found = compilation.race(model, squared, (PIXELS, TARGETS), "fp32", FOREVER, said.append)
    assert not found.compiled
    assert found.why == "compiling failed (Cannot find a working triton installation)"
    assert "takes about a minute" in said[0]
    assert said[1:] == [f"{found.why}: the training runs without"]


def test_where_it_computes_something_else_the_training_stays_eager(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Wrong(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels: Tensor) -> Tensor:
            logits: Tensor = self.model(pixels) + 1
            return logits

    monkeypatch.setattr(compilation, "compile_model", Wrong)
    model = PixelModel(Net(), PREPROCESS).train()
    said: list[str] = []
    found = compilation.race(model, squared, (PIXELS, TARGETS), "fp32", FOREVER, said.append)
    assert not found.compiled and found.why.startswith("compiled, the loss is ")
    assert said[1:] == [f"{found.why}: the training runs without"]


def test_memory_that_runs_out_keeps_the_training_eager() -> None:
    def too_large(*_: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    found = compilation.race(nn.Linear(1, 1), too_large, (PIXELS, TARGETS), "fp32", FOREVER, say)
    assert found == Compilation(False, "memory ran out while steps were timed", {})

    def wrong(*_: object) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        compilation.race(nn.Linear(1, 1), wrong, (PIXELS, TARGETS), "fp32", FOREVER, say)


def test_the_choice_is_made_once_and_kept(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    raced: list[int] = []

    def race(
        _model: object,
        _objective: object,
        _batch: object,
        _precision: str,
        steps: int,
        _tell: object,
    ) -> Compilation:
        raced.append(steps)
        return Compilation(True, "a compiled step is 1.50 times as fast as an eager one", {})

    monkeypatch.setattr(compilation, "race", race)
    monkeypatch.setattr(compilation, "unsuited", lambda *_, **__: None)
    job = make_job(run, accumulate=2, compile="auto")
    model = PixelModel(job.model, job.preprocess)
    choose = partial(setup.choose_compilation, job, World(), model, "fp32")
    # One that was begun before there was a choice has been eager.
    assert not choose(begun=True) and "compile" not in run.info.lineage
    assert choose(begun=False)
    assert choose(begun=True)
    assert raced == [4 * 10 * 2]
    assert run.info.lineage["compile"]["compiled"] is True
    assert not setup.choose_compilation(job, World(size=2), model, "fp32", begun=True)
    for asked, expected in (("on", True), ("off", False)):
        job.section = replace(job.section, compile=asked)  # type: ignore[arg-type]
        assert choose(begun=False) is expected
    assert len(raced) == 1


def test_a_run_that_was_begun_compiled_is_not_resumed_without_a_compiler(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.set(lineage={"compile": asdict(Compilation(True, "", {}))})
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MachineError, match="which needs the C\\+\\+ compiler") as caught:
        fit(make_job(run, compile="auto"))
    assert "install g++" in caught.value.fix


def test_why_a_training_is_not_tried_is_kept(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "unsuited", lambda *_, **__: "there is no C++ compiler")
    job = make_job(run, compile="auto")
    model = PixelModel(job.model, job.preprocess)
    assert not setup.choose_compilation(job, World(), model, "fp32", begun=False)
    assert run.info.lineage["compile"]["why"] == "there is no C++ compiler"


@pytest.mark.slow
def test_a_compiled_copy_races_and_the_model_is_left_alone() -> None:
    torch.manual_seed(0)
    model = PixelModel(Net(), PREPROCESS).train()
    before = bits(model)
    found = compilation.race(model, squared, (PIXELS, TARGETS), "fp32", FOREVER, say)
    assert set(found.step_ms) == {"eager", "compiled"}, found.why
    assert found.compile_s is not None
    assert found == compilation.judge(found.step_ms, found.compile_s, FOREVER)
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
