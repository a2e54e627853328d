"""The loop on small trainings: what it learns, what it guards, what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgexfer.core.errors import MachineError, RecipeError, TrainingError
from edgexfer.core.rundir import RunDir, read_events
from edgexfer.data.dataset import open_dataset
from edgexfer.data.feed import TrainFeed
from edgexfer.data.images import load_images
from edgexfer.models.create import create_model, default_preprocess
from edgexfer.models.freeze import freeze_backbone
from edgexfer.models.groups import parameter_groups
from edgexfer.recipe import TrainSection
from edgexfer.training import checkpoint
from edgexfer.training.evaluate import predict_logits, top1_pct
from edgexfer.training.loop import Job, fit
from edgexfer.training.objective import cross_entropy
from edgexfer.training.setup import doubt_validation
from tests.training.toy import Net, bits, make_job, make_run, without_labels

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def digits_job(run: RunDir, **changes: Any) -> Job:
    """A training of edgexfer's own smallest model on real images through the real feed."""
    section = TrainSection(
        **{"epochs": 2, "lr": 3e-3, "precision": "fp32", "compile": "off", **changes}
    )
    dataset = open_dataset("digits", limit=400)
    preprocess = default_preprocess("resnet8", 16)
    model, _ = create_model("resnet8", len(dataset.classes), seed=section.seed)
    return Job(
        run=run,
        model=model,
        preprocess=preprocess,
        section=section,
        feed=TrainFeed(
            dataset, preprocess, batch_size=32, augment="shift", seed=section.seed, workers=1
        ),
        val=load_images(dataset, "val", preprocess),
        objective=cross_entropy(0.1),
        groups=parameter_groups(model, lr=section.lr, backbone_lr=1.0, weight_decay=0.05),
        frozen=[],
        title="digits",
        quiet=True,
    )


def test_it_learns_digits_and_goes_on_from_the_middle_of_an_epoch(tmp_path: Path) -> None:
    with make_run(tmp_path / "whole") as run:
        job = digits_job(run)
        result = fit(job)
        whole = bits(job.model)
    assert result.steps == 2 * job.feed.steps_per_epoch
    assert result.best_val_top1_pct is not None and result.best_val_top1_pct > 60
    with make_run(tmp_path / "broken") as run:
        job = digits_job(run, checkpoint_s=0.0)
        job.objective = raising_at_call(job.objective, 16)
        with pytest.raises(ZeroDivisionError):
            fit(job)
    with make_run(tmp_path / "broken") as run:
        job = digits_job(run, checkpoint_s=0.0)
        assert fit(job).resumed_from == 15
        assert bits(job.model) == whole


def test_a_finished_training_is_not_trained_again(run: RunDir) -> None:
    job = make_job(run)
    first = fit(job)
    weights = bits(job.model)
    again = make_job(run)
    again.objective = raising_at_call(again.objective, 1)
    second = fit(again)
    assert bits(again.model) == weights
    assert (second.steps, second.resumed_from) == (first.steps, first.steps)
    assert second.val_top1_pct == first.val_top1_pct


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns_with_each_optimizer_and_precision(
    run: RunDir, optimizer: str, precision: str
) -> None:
    job = make_job(run, optimizer=optimizer, precision=precision, lr=3e-2)
    result = fit(job)
    assert result.precision == precision
    assert result.val_top1_pct is not None and result.val_top1_pct > 70
    assert {p.dtype for p in job.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("unlabelled", [0, 7])
def test_micro_batches_give_the_gradient_of_the_whole_batch(
    tmp_path: Path, unlabelled: int
) -> None:
    weights = []
    for accumulate in (1, 4):
        with make_run(tmp_path / str(accumulate)) as run:
            net = Net(norm=False, dropout=0.0)
            net.load_state_dict(seeded(norm=False).state_dict())
            job = make_job(run, net, accumulate=accumulate, optimizer="sgd", epochs=1)
            without_labels(job.feed, unlabelled)
            assert fit(job).micro_batch == 32 // accumulate
            weights.append(job.model.state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=0, atol=1e-5)


def test_the_average_is_validated_and_deployed(tmp_path: Path) -> None:
    found = {}
    for ema in (0.0, 0.9):
        with make_run(tmp_path / str(ema)) as run:
            job = make_job(run, ema=ema)
            result = fit(job)
            logits = predict_logits(job.model, job.preprocess, job.val)  # type: ignore[arg-type]
            assert top1_pct(logits, job.val.labels) == result.val_top1_pct  # type: ignore[union-attr]
            found[ema] = bits(job.model)
            snapshot = checkpoint.newest(run.path)[0]
    assert snapshot is not None and found[0.0] != found[0.9]
    # The weights under training go the same way with and without the average.
    trained = {n: snapshot.tensors[f"model.{n}"].numpy().tobytes() for n in found[0.0]}
    assert trained == found[0.0]


def test_early_stopping_brings_the_best_epoch_back(run: RunDir) -> None:
    job = make_job(run, epochs=30, patience=2, lr=3e-2)
    result = fit(job)
    assert result.epochs < 30 and result.epochs == result.best_epoch + 2
    vals = [e["top1_pct"] for e in read_events(run.path) if e["event"] == "val"]
    assert vals.index(max(vals)) + 1 == result.best_epoch
    logits = predict_logits(job.model, job.preprocess, job.val)  # type: ignore[arg-type]
    assert top1_pct(logits, job.val.labels) == result.best_val_top1_pct  # type: ignore[union-attr]


def test_frozen_parts_do_not_move_nor_do_their_statistics(run: RunDir) -> None:
    net = seeded()
    before = bits(net)
    frozen = freeze_backbone(net)
    job = make_job(run, net)
    job.frozen = frozen
    fit(job)
    after = bits(net)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"fc.weight", "fc.bias"}


def test_statistics_move_where_a_layer_is_not_held_in_eval_mode(run: RunDir) -> None:
    net = seeded()
    before = bits(net)
    freeze_backbone(net)
    fit(make_job(run, net))
    assert bits(net)["bn1.running_mean"] != before["bn1.running_mean"]


def test_a_loss_that_is_not_finite_stops_before_the_step(run: RunDir) -> None:
    net = seeded()
    job = make_job(run, net)

    def poison(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        calls.append(module.training)
        return output * float("nan") if sum(calls) >= 13 else output

    calls: list[bool] = []
    net.bn2.register_forward_hook(poison)
    with pytest.raises(TrainingError) as caught:
        fit(job)
    assert "step 13 (epoch 2): the loss is nan, first in the output of layer bn2" in (
        caught.value.what
    )
    assert "images: digits/" in caught.value.what and "and 29 more" in caught.value.what
    assert "lower train.lr (now 0.00" in caught.value.fix
    event = read_events(run.path)[-1]
    assert event["event"] == "not_finite" and len(event["files"]) == 32
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())
    snapshot, _ = checkpoint.newest(run.path)
    assert snapshot is not None and snapshot.step == 10


def test_a_gradient_that_is_not_finite_is_told_with_its_layer(run: RunDir) -> None:
    net = seeded(norm=False)
    job = make_job(run, net)
    net.register_module("bn2", RootOfZero())
    with pytest.raises(TrainingError) as caught:
        fit(job)
    assert "step 1 (epoch 1): the gradient's norm is" in caught.value.what
    assert "the gradient of layer conv2" in caught.value.what


def test_out_of_memory_halves_the_micro_batch_and_says_so(run: RunDir) -> None:
    job = make_job(run)
    inner = job.objective

    def hungry(model: nn.Module, pixels: Tensor, *rest: Any) -> Any:
        if len(pixels) > 8:
            torch.empty(2**60, dtype=torch.uint8)
        return inner(model, pixels, *rest)

    job.objective = hungry
    result = fit(job)
    assert result.micro_batch == 8
    told = [e for e in read_events(run.path) if e["event"] == "out_of_memory"]
    assert [e["micro_batch"] for e in told] == [16, 8]
    assert result.val_top1_pct is not None and result.val_top1_pct > 70


def test_out_of_memory_in_validation_is_told(run: RunDir) -> None:
    def exhausted(_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    job = make_job(run)
    val: Any = job.val
    val.pixels = exhausted
    with pytest.raises(TrainingError, match="in the optimiser or validation") as caught:
        fit(job)
    assert "smaller model" in caught.value.fix


def test_out_of_memory_with_one_image_stops(run: RunDir) -> None:
    job = make_job(run)

    def hungry(*_: Any) -> Any:
        return torch.empty(2**60, dtype=torch.uint8)

    job.objective = hungry
    with pytest.raises(TrainingError) as caught:
        fit(job)
    assert "memory ran out with a single image at once" in caught.value.what
    assert "smaller model" in caught.value.fix


def test_other_errors_of_torch_are_not_taken_for_memory(run: RunDir) -> None:
    job = make_job(run)
    job.objective = lambda model, pixels, *_: (model(pixels[:, :2]).sum(), {})
    with pytest.raises(RuntimeError, match="size of tensor"):
        fit(job)


def test_events_carry_loss_parts_rate_and_speed(run: RunDir) -> None:
    job = make_job(run)
    inner = job.objective

    def with_parts(*args: Any) -> Any:
        loss, _ = inner(*args)
        return loss, {"double": 2 * loss}

    job.objective = with_parts
    fit(job)
    train = [e for e in read_events(run.path) if e["event"] == "train"]
    assert [e["step"] for e in train] == list(range(1, 41))
    assert all(e["double"] == pytest.approx(2 * e["loss"], rel=1e-5) for e in train)
    assert all(e["images_per_s"] > 0 and e["grad_norm"] > 0 for e in train)
    assert max(e["lr"] for e in train) <= 1e-2
    assert train[-1]["lr"] < 0.05 * max(e["lr"] for e in train)
    assert list((run.path / "tensorboard").glob("events.*"))


def test_fp16_without_a_gpu_is_refused(run: RunDir) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(RecipeError) as caught:
        fit(make_job(run, precision="fp16"))
    assert "fp16" in caught.value.what and "bf16" in caught.value.fix


def test_few_val_images_are_said_to_decide_nothing(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_job(run, patience=3)
    assert job.val is not None and len(job.val) == 100
    said = doubt_validation(job)
    assert said is not None and "100 val images know an accuracy to about ±8 points" in said
    assert doubt_validation(make_job(run)) is None
    job.val.labels = job.val.labels.repeat(8)
    job.val.keys = job.val.keys * 8
    assert doubt_validation(job) is None
    loud = make_job(run, patience=1, epochs=1)
    loud.quiet = False
    fit(loud)
    assert "warning: 100 val images" in capsys.readouterr().err


def test_patience_without_val_images_is_refused(run: RunDir) -> None:
    job = make_job(run, patience=3)
    job.val = None
    with pytest.raises(RecipeError) as caught:
        fit(job)
    assert "train.patience is set, but there are no val images" in caught.value.what
    assert "data.val" in caught.value.fix


def test_nothing_to_train_is_refused(run: RunDir) -> None:
    job = make_job(run)
    job.groups = []
    with pytest.raises(RecipeError) as caught:
        fit(job)
    assert "every parameter is frozen" in caught.value.what


def test_compile_without_a_compiler_is_refused(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(MachineError) as caught:
        fit(make_job(run, compile="on"))
    assert "which needs the C++ compiler g++" in caught.value.what


def test_the_precision_that_a_race_chose_is_kept(run: RunDir) -> None:
    job = make_job(run, precision="auto", epochs=20, patience=1)
    first = fit(job)
    kept = run.info.lineage["precision"]
    assert kept["precision"] == first.precision
    assert set(kept["step_ms"]) >= {"fp32"} or "no lower precision" in kept["why"]
    run.set(lineage={"precision": {**kept, "precision": "fp32"}})
    assert fit(make_job(run, precision="auto", epochs=20, patience=1)).precision == "fp32"


class RootOfZero(nn.Module):
    """Gives 0 for everything; its gradient is infinite."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(x * 0)


def raising_at_call(objective: Any, call: int) -> Any:
    calls = iter(range(1, 10**6))

    def raising(*args: Any) -> Any:
        if next(calls) == call:
            raise ZeroDivisionError
        return objective(*args)

    return raising


def seeded(*, norm: bool = True) -> Net:
    torch.manual_seed(0)
    return Net(norm=norm, dropout=0.0)
