"""The small parts of a training: schedule, average, seeds, objective, evaluation, host facts."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgexfer.core.errors import RecipeError
from edgexfer.core.rundir import RunDir
from edgexfer.models.normalise import PixelModel
from edgexfer.recipe import TrainSection
from edgexfer.training import host, precision
from edgexfer.training.distributed import World
from edgexfer.training.ema import Ema
from edgexfer.training.evaluate import count_right, predict_logits, top1_pct
from edgexfer.training.guards import is_out_of_memory
from edgexfer.training.objective import Views, cross_entropy
from edgexfer.training.schedule import Schedule
from edgexfer.training.seeding import seed_step
from edgexfer.training.setup import refuse
from tests.training.toy import PREPROCESS, Images, Net, make_job

pytestmark = pytest.mark.torch


VIEWS = Views(torch.zeros(1, dtype=torch.int64), epoch=0, step=0, steps_per_epoch=1)


def _loss(model: nn.Module, pixels: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy()(model, pixels, targets, VIEWS)[0]


def test_the_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    schedule = Schedule(steps=100, warmup=10, floor=0.1)
    assert [schedule.factor(s) for s in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert schedule.factor(10) == pytest.approx(1.0)
    assert schedule.factor(55) == pytest.approx(0.1 + 0.9 * 0.5)
    assert schedule.factor(100) == pytest.approx(0.1)
    falling = [schedule.factor(s) for s in range(10, 101)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("warmup", [0, 2.5, 200])
def test_any_warm_up_stays_between_nothing_and_the_peak(warmup: float) -> None:
    schedule = Schedule(steps=100, warmup=warmup, floor=0.0)
    assert all(0 <= schedule.factor(s) <= 1 for s in range(100))


def test_the_rate_falls_to_a_tenth_at_each_milestone() -> None:
    # The literature's schedule on CIFAR: 240 epochs, a tenth after 150, 180 and 210 of them.
    section = TrainSection(epochs=240, warmup=0, schedule="step", milestones=(150, 180, 210))
    schedule = Schedule.of(section, steps_per_epoch=10)
    steps = (0, 1499, 1500, 1799, 1800, 2099, 2100, 2399)
    expected = [1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    assert [schedule.factor(s) for s in steps] == pytest.approx(expected)


def test_steps_know_warm_up_and_no_floor() -> None:
    section = TrainSection(
        epochs=10, warmup=2, schedule="step", milestones=(1, 5), min_lr=0.5, lr=1.0
    )
    schedule = Schedule.of(section, steps_per_epoch=10)
    assert schedule.factor(9) == pytest.approx(0.5)
    assert schedule.factor(10) == pytest.approx(0.1 * 11 / 20)
    assert schedule.factor(49) == pytest.approx(0.1)
    assert schedule.factor(99) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("changes", "what", "fix"),
    [
        ({"milestones": (3,)}, "milestones is [3], but train.schedule is cosine", "to step"),
        ({"schedule": "step"}, "train.milestones is empty", "such as [150, 180, 210]"),
        ({"schedule": "step", "milestones": (2, 9, 9)}, "[2, 9, 9], which does not", "in order"),
        ({"schedule": "step", "milestones": (5, 2)}, "[5, 2], which does not", "in order"),
        ({"schedule": "step", "milestones": (5, 10)}, "but train.epochs is 10", "1 to 9"),
    ],
)
def test_a_schedule_that_does_not_fit_is_refused(
    run: RunDir, changes: dict[str, Any], what: str, fix: str
) -> None:
    job = make_job(run, **{"epochs": 10, **changes})
    with pytest.raises(RecipeError) as caught:
        refuse(job, World())
    assert what in caught.value.what and fix in caught.value.fix


def test_groups_keep_their_ratio() -> None:
    head, backbone = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [head], "lr": 1.0}, {"params": [backbone], "lr": 0.1}])
    schedule = Schedule(steps=10, warmup=4, floor=0.0)
    for step in (0, 1, 0):
        assert schedule.set(optimizer, step) == pytest.approx(schedule.factor(step))
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx(
            [schedule.factor(step), 0.1 * schedule.factor(step)]
        )


def test_the_average_follows_weights_and_statistics() -> None:
    net = Net()
    ema = Ema(net, 0.75)
    start = {n: t.clone() for n, t in net.state_dict().items()}
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.add_(1)
    ema.update(0)
    weight = 1 - min(0.75, 1 / 10)
    for name, tensor in ema.model.state_dict().items():
        expected = start[name] + (weight if tensor.is_floating_point() else 1)
        torch.testing.assert_close(tensor, expected)
    average, followed = ema.model.get_parameter("fc.bias"), net.get_parameter("fc.bias")
    before = average.clone()
    ema.update(10_000)
    moved = (average - before) / (followed - before)
    torch.testing.assert_close(moved, torch.full_like(moved, 0.25), rtol=1e-3, atol=1e-3)
    assert not ema.model.training and not any(p.requires_grad for p in ema.model.parameters())


def test_a_step_is_seeded_by_seed_step_and_rank_alone() -> None:
    def draw(*key: int) -> tuple[float, float, float]:
        seed_step(*key)
        return torch.rand(()).item(), float(np.random.rand()), random.random()

    assert draw(0, 5, 0) == draw(0, 5, 0)
    others = [(1, 5, 0), (0, 6, 0), (0, 5, 1)]
    assert len({draw(0, 5, 0), *(draw(*key) for key in others)}) == 4


def test_cross_entropy_smooths_as_its_formula_says() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    targets = torch.tensor([[1.0, 0.0, 0.0]])
    loss, parts = cross_entropy(0.3)(_Constant(logits), torch.zeros(1, 3, 1, 1), targets, VIEWS)
    log_p = [v - math.log(sum(math.exp(x) for x in (2, 0, -1))) for v in (2, 0, -1)]
    expected = -(0.8 * log_p[0] + 0.1 * log_p[1] + 0.1 * log_p[2])
    assert loss.item() == pytest.approx(expected, rel=1e-6) and parts == {}


def test_logits_come_in_order_in_float32_and_leave_the_modes_alone() -> None:
    torch.manual_seed(0)
    net, images = Net().train(), Images(70)
    net.bn1.eval()
    source: Any = images
    logits = predict_logits(net, PREPROCESS, source)
    assert logits.dtype == np.float32 and logits.shape == (70, 10)
    assert net.training and net.conv1.training and not net.bn1.training
    net.eval()
    with torch.no_grad():
        alone = PixelModel(net, PREPROCESS)(images.pixels(torch.tensor([42])).float())
    np.testing.assert_allclose(logits[42:43], alone.numpy(), rtol=1e-4, atol=1e-5)
    right = int((logits.argmax(1) == images.labels.numpy()).sum())
    assert count_right(PixelModel(net, PREPROCESS), source, range(70)) == right
    assert top1_pct(logits, images.labels) == pytest.approx(100 * right / 70)


def test_no_images_have_no_right_answers() -> None:
    images: Any = Images(5)
    assert count_right(PixelModel(Net(), PREPROCESS), images, range(0)) == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_real_exhaustion_counts_as_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(RecipeError) as caught:
        precision.refuse_unusable("fp16", torch.device("cpu"))
    assert "no CUDA device" in caught.value.what and "bf16" in caught.value.fix
    precision.refuse_unusable("bf16", torch.device("cpu"))


def test_a_race_changes_nothing_in_the_model_and_short_trainings_have_none() -> None:
    torch.manual_seed(0)
    model = PixelModel(Net(), PREPROCESS).train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    pixels, targets = torch.rand(8, 3, 8, 8) * 255, torch.eye(10)[:8]
    choice = precision.race(model, _loss, (pixels, targets), steps=10_000)
    assert choice.precision in ("fp32", "bf16", "fp16") and choice.why
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    short = precision.race(model, _loss, (pixels, targets), steps=10)
    assert short.precision == "fp32" and short.step_ms == {}


def test_a_race_that_runs_out_of_memory_takes_the_format_that_needs_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_large(*_: object) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(precision, "candidate", lambda _: "bf16")
    pixels, targets = torch.zeros(8, 3, 8, 8), torch.eye(10)[:8]
    choice = precision.race(nn.Linear(1, 1), too_large, (pixels, targets), steps=10_000)
    assert choice == precision.Choice("bf16", "memory ran out while formats were timed", {})


def test_lineage_names_versions_machine_and_threads() -> None:
    facts = host.lineage()
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert facts["machine"]["cores"] and facts["machine"]["cpu"]
    assert facts["git"] is None or len(facts["git"]) >= 40


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is on Linux")
def test_malloc_is_tuned_once_and_not_over_the_users_own_settings() -> None:
    code = (
        "import platform; from edgexfer.training.host import tune_malloc as tune;"
        "print(tune(), tune(), platform.libc_ver()[0] == 'glibc')"
    )
    run = [sys.executable, "-c", code]
    plain = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    assert plain[0] == plain[1] == plain[2]
    env = {"MALLOC_ARENA_MAX": "2", "PATH": "/usr/bin:/bin"}
    theirs = subprocess.run(run, capture_output=True, text=True, check=True, env=env)
    assert theirs.stdout.split()[0] == "False"


class _Constant(nn.Module):
    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits
