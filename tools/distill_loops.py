"""The loops that ``bench_distill.py`` compares, each run in a process of its own.

torchdistill and the plain loop get the images, models and loaders that a tutorial would give them;
nothing of edgexfer is in them but the architectures.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench_train import Meter, TimeOver

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import Dataset as TorchDataset

    from edgexfer.data.dataset import Dataset
    from edgexfer.data.feed import TrainFeed
    from edgexfer.distill.cache import CachedTeacher
    from edgexfer.distill.engine import Engine
    from edgexfer.distill.objective import Distillation
    from edgexfer.distill.teacher import Teacher
    from edgexfer.recipe import DataSection, StudentSection
    from edgexfer.training.stage import Built

TORCHDISTILL, PLAIN, ONLINE, CACHED = "torchdistill", "plain loop", "online", "cached"
VARIANTS = (TORCHDISTILL, PLAIN, ONLINE, CACHED)
# Not measured: chooses the engine and asks the teacher once, so that ``cached`` finds its answers.
FILL = "fill"
# Hinton's loss and the optimiser of the literature's CIFAR benchmark, the same for all.
TEMPERATURE, W_HARD = 4.0, 0.1
SGD: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}


@dataclass(frozen=True)
class Pair:
    """A teacher and a student.

    Attributes:
        teacher: its architecture.
        options: keyword arguments of it.
        pixels: height and width of the images.
        augment: as in ``TrainSection``.
        batch_size: images per step.
        warm_up: steps before the measurement.
        targets: least gain over the plain loop and torchdistill, by variant.
    """

    teacher: str
    options: dict[str, Any]
    pixels: int
    augment: Literal["flip", "crop"]
    batch_size: int
    warm_up: int
    targets: dict[str, float]


PAIRS = {
    "resnet8x4": Pair("resnet32x4", {}, 32, "flip", 64, 5, {CACHED: 5.0, ONLINE: 2.2}),
    "resnet20": Pair("resnet56", {}, 32, "flip", 64, 5, {CACHED: 3.0, ONLINE: 2.0}),
    # With timm's default the last batch norm of each block is zero, which no trained one is.
    "mobilenetv3_small_100": Pair(
        "resnet50", {"zero_init_last": False}, 224, "crop", 32, 3, {CACHED: 10.0, ONLINE: 3.5}
    ),
}


@dataclass(frozen=True)
class Task:
    """One measurement.

    Attributes:
        student: key of ``PAIRS``.
        variant: one of ``VARIANTS``, or ``FILL``.
        folder: of class folders.
        seconds: how long to measure.
        device: ``cpu`` or ``cuda``.
        engine: what computes edgexfer's teacher, as ``FILL`` chose it.
    """

    student: str
    variant: str
    folder: str
    seconds: float
    device: str
    engine: str | None = None

    @property
    def pair(self) -> Pair:
        """The student's teacher and how both are fed."""
        return PAIRS[self.student]

    def meter(self) -> Meter:
        """Return what measures the steps."""
        return Meter(self.seconds, self.pair.warm_up)


def measure(task: Task) -> dict[str, Any]:
    """Measure one variant in this process."""
    import torch

    torch.manual_seed(0)
    loops = {TORCHDISTILL: _torchdistill, PLAIN: _plain, FILL: _fill}
    return {**loops.get(task.variant, _edgexfer)(task), "threads": torch.get_num_threads()}


def _torchdistill(task: Task) -> dict[str, Any]:
    import torch
    from torchdistill.core.distillation import DistillationBox

    images, teacher, student = _tutorial(task)
    wanted = {"forward_proc": "forward_batch_only", "sequential": []}
    logits = {f"{who}_module_path": "." for who in ("student", "teacher")}
    logits |= {f"{who}_module_io": "output" for who in ("student", "teacher")}
    loss = {"temperature": TEMPERATURE, "alpha": W_HARD, "reduction": "batchmean"}
    term = {"criterion": {"key": "KDLoss", "kwargs": {**logits, **loss}}, "weight": 1.0}
    loader = {"batch_size": task.pair.batch_size, "num_workers": 2, "drop_last": True}
    box = DistillationBox(
        teacher,
        student,
        {"train": images},
        {
            "num_epochs": 1,
            "train_data_loader": {
                "dataset_id": "train",
                "sampler": {"class_or_func": torch.utils.data.RandomSampler},
                "kwargs": {**loader, "pin_memory": task.device == "cuda"},
            },
            "teacher": {**wanted, "requires_grad": False},
            "student": {**wanted, "requires_grad": True},
            "optimizer": {"key": "SGD", "kwargs": dict(SGD)},
            "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": term}}},
        },
        torch.device(task.device),
        None,
        distributed=False,
        lr_factor=1,
    )
    meter = task.meter()
    while True:
        box.pre_epoch_process(epoch=0)
        for pixels, labels, extra in box.train_data_loader:
            if meter.step(len(labels)):
                how = f"torchdistill {importlib.metadata.version('torchdistill')}, fp32, 2 workers"
                return {"images_per_s": meter.rate, "how": how}
            labels = labels.to(task.device)
            loss = box.forward_process(pixels.to(task.device), labels, extra)
            box.post_forward_process(loss=loss)
            loss.item()  # its examples log it at each step


def _plain(task: Task) -> dict[str, Any]:
    import torch
    import torch.nn.functional as F
    from torch.utils.data import DataLoader

    images, teacher, student = _tutorial(task)
    loader: DataLoader[Any] = DataLoader(
        images,
        task.pair.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=2,
        pin_memory=task.device == "cuda",
    )
    optimizer = torch.optim.SGD(student.parameters(), **SGD)
    meter = task.meter()
    student.train()
    while True:
        for pixels, labels in loader:
            if meter.step(len(labels)):
                return {"images_per_s": meter.rate, "how": "fp32, 2 workers"}
            pixels, labels = pixels.to(task.device), labels.to(task.device)
            with torch.no_grad():
                soft_targets = F.softmax(teacher(pixels) / TEMPERATURE, dim=1)
            logits = student(pixels)
            log_q = F.log_softmax(logits / TEMPERATURE, dim=1)
            soft = F.kl_div(log_q, soft_targets, reduction="batchmean") * TEMPERATURE**2
            loss = (1 - W_HARD) * soft + W_HARD * F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            loss.item()  # a tutorial prints it, and edgexfer looks whether it is finite


def _tutorial(task: Task) -> tuple[TorchDataset[Any], nn.Module, nn.Module]:
    """Return images, teacher and student as torchvision and torch have them by default."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    from edgexfer.models.create import create_model, default_preprocess

    pair = task.pair
    preprocess = default_preprocess(task.student, pair.pixels)
    cut: list[Any] = [transforms.RandomResizedCrop(pair.pixels)]
    if pair.augment == "flip":
        size = (pair.pixels, pair.pixels)
        cut = [transforms.Resize(size), transforms.RandomCrop(size, padding=pair.pixels // 8)]
    steps = [*cut, transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    normalise = transforms.Normalize(preprocess.mean, preprocess.std)
    images = ImageFolder(task.folder, transforms.Compose([*steps, normalise]))
    teacher, _ = create_model(pair.teacher, len(images.classes), options=pair.options)
    student, _ = create_model(task.student, len(images.classes))
    return images, teacher.to(task.device).eval(), student.to(task.device)


@dataclass(frozen=True)
class _Stage:
    """What ``edgexfer distill`` makes before it trains, here with a teacher of random weights."""

    data: DataSection
    student: StudentSection
    dataset: Dataset
    built: Built
    feed: TrainFeed
    teacher: Teacher


def _stage(task: Task) -> _Stage:
    from edgexfer.distill.teacher import Teacher
    from edgexfer.models.create import create_model, default_preprocess
    from edgexfer.models.normalise import PixelModel
    from edgexfer.recipe import DataSection, ModelSection, StudentSection, TrainSection
    from edgexfer.training import host
    from edgexfer.training.stage import build_model, make_feed, open_data

    host.tune_malloc()
    pair = task.pair
    data = DataSection(path=task.folder, val=0.0, test=0.02)
    train = TrainSection(
        epochs=10_000,
        batch_size=pair.batch_size,
        optimizer="sgd",
        lr=SGD["lr"],
        weight_decay=SGD["weight_decay"],
        augment=pair.augment,
        views=None if task.variant == ONLINE else 1,
    )
    # Without this the views of ``fill`` would be answered from the cache here too.
    kept: Literal["on", "off"] = "off" if task.variant == ONLINE else "on"
    student = StudentSection(
        ModelSection(task.student, size=pair.pixels), teacher_cache=kept, train=train
    )
    dataset = open_data(data)
    built = build_model(student.model, len(dataset.classes), train.seed)
    feed = make_feed(data, dataset, built.preprocess, train)
    model, _ = create_model(pair.teacher, len(dataset.classes), options=pair.options)
    pixel_model = PixelModel(model, default_preprocess(pair.teacher, pair.pixels))
    teacher = Teacher(pixel_model, range(len(dataset.classes)), pair.teacher)
    return _Stage(data, student, dataset, built, feed, teacher)


def _answers(stage: _Stage, engine: Engine) -> CachedTeacher:
    """Return the teacher as the stage asks it."""
    from edgexfer.distill.cache import CachedTeacher
    from edgexfer.distill.cache_plan import plan_cache

    identity, classes = stage.teacher.identity, stage.dataset.classes
    plan = plan_cache(stage.student, identity, engine.name, classes, stage.feed)
    return CachedTeacher(engine, plan, stage.feed)


def _fill(task: Task) -> dict[str, Any]:
    """Choose the engine, and ask the teacher about every view that ``cached`` will see."""
    import torch

    from edgexfer.distill.engine import choose_engine
    from edgexfer.training.objective import Views
    from edgexfer.training.setup import to_device

    stage, device = _stage(task), torch.device(task.device)
    first = next(stage.feed.epoch(0))
    pixels, _ = to_device(first.images, first.labels, device)
    engine = choose_engine(stage.teacher, pixels, device=device)
    answers = _answers(stage, engine)
    for batch in stage.feed.epoch(0):
        pixels, _ = to_device(batch.images, batch.labels, device)
        answers(pixels, Views.of(batch, stage.feed.steps_per_epoch))
    return {"engine": engine.name, "times_ms": engine.times_ms, "refused": engine.refused}


def _edgexfer(task: Task) -> dict[str, Any]:
    import torch

    from edgexfer.core.rundir import SCHEMA, RunInfo, open_run
    from edgexfer.distill.engine import make_engine
    from edgexfer.distill.objective import Distillation
    from edgexfer.distill.terms import hard_weight, parse_loss
    from edgexfer.training.loop import fit
    from edgexfer.training.stage import images_of, make_job

    stage = _stage(task)
    assert task.engine is not None
    answers = _answers(stage, make_engine(stage.teacher, task.engine, torch.device(task.device)))
    terms = parse_loss(stage.student.loss, w_soft=None)
    distillation = Distillation(answers, terms, hard_weight(terms, None), TEMPERATURE)
    meter = task.meter()
    last: dict[str, Any] = {}

    def objective(model: Any, pixels: Any, targets: Any, views: Any) -> Any:
        last.update(model=model, pixels=pixels, targets=targets, views=views)
        if not views.rehearsal and meter.step(len(pixels)):
            raise TimeOver
        return distillation(model, pixels, targets, views)

    with tempfile.TemporaryDirectory() as temp:
        info = RunInfo(SCHEMA, "bench", "running", {}, {}, stage.dataset.fingerprint)
        with open_run(Path(temp) / "run", info) as run:
            val = images_of(stage.data, stage.dataset, "val", stage.built.preprocess)
            train = stage.student.train
            job = make_job(run, stage.built, train, stage.feed, val, objective)
            job.quiet = True
            with contextlib.suppress(TimeOver):
                fit(job)
            precision = str(run.info.lineage["precision"]["precision"])
            compiled = bool(run.info.lineage["compile"]["compiled"])
    if task.variant == CACHED:
        assert answers.read and not answers.computed, "the cache was not warm"
        logits = answers(last["pixels"], last["views"])
        distillation = replace(distillation, teacher=lambda *_: logits)
    bare = _bare_step(task, distillation, last, precision)
    form = f"{precision}, {'compiled' if compiled else 'eager'}"
    how = f"{form}, teacher {task.variant}, {task.engine}"
    return {"images_per_s": meter.rate, "bare_images_per_s": bare, "how": how}


def _bare_step(
    task: Task, distillation: Distillation, last: dict[str, Any], precision: str
) -> float | None:
    """Measure forward, backward and optimiser alone, on the batch that the training saw last."""
    import torch

    from edgexfer.training.precision import autocast

    model, pixels, targets = last["model"], last["pixels"], last["targets"]
    optimizer = torch.optim.SGD(model.parameters(), **SGD, fused=True)
    meter = task.meter()
    while not meter.step(len(pixels)):
        with autocast(precision, pixels.device):
            loss, _ = distillation(model, pixels, targets, last["views"])
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
    return meter.rate
