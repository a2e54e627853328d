"""What the teacher brings to a training: checked, timed, kept, and turned into an objective."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from edgexfer.bench.tasks import by_task
from edgexfer.core.codec import encode
from edgexfer.core.errors import DataError, ModelError
from edgexfer.core.progress import say
from edgexfer.core.rundir import RunDir
from edgexfer.data.feed import TrainFeed
from edgexfer.data.images import Images
from edgexfer.distill.cache import CachedTeacher
from edgexfer.distill.cache_plan import CachePlan, plan_cache
from edgexfer.distill.engine import Engine, choose_engine, engine_names, make_engine
from edgexfer.distill.features import Features
from edgexfer.distill.health import Health, at_chance, check_health
from edgexfer.distill.objective import Distillation
from edgexfer.distill.teacher import Teacher
from edgexfer.distill.terms import Term, hard_weight
from edgexfer.models.normalise import PixelModel
from edgexfer.recipe import StudentSection
from edgexfer.training import host
from edgexfer.training.distributed import World
from edgexfer.training.job import Job
from edgexfer.training.multitask import Balance
from edgexfer.training.stage import Built, train_along

# The paper's warm-up of dkd, and its share of the paper's epochs where there are fewer.
_WARMUP_EPOCHS, _WARMUP_SHARE = 20.0, 1 / 12
_WARMED = ("dkd", "tckd", "nckd")
_BATCH = 64


@dataclass(frozen=True)
class Pupil:
    """Who is taught.

    Attributes:
        section: what was asked for.
        terms: its losses.
        built: the student.
        feed: its training batches.
        val: images to judge the teacher by.
        classes: names, in the order of the logits.
        balance: weighs several tasks; ``None`` for one.
    """

    section: StudentSection
    terms: tuple[Term, ...]
    built: Built
    feed: TrainFeed
    val: Images
    classes: tuple[str, ...]
    balance: Balance | None = None


@dataclass(frozen=True)
class Lesson:
    """A teacher ready to teach.

    Attributes:
        objective: what the student minimises.
        features: its feature losses, which look into both models until they are closed; ``None``
            for none.
        health: what the teacher knows.
    """

    objective: Distillation
    features: Features | None
    health: Health

    def join(self, job: Job) -> None:
        """Have the projectors of the feature losses trained along with the student."""
        assert self.features is not None, "only feature losses have projectors"
        train_along(job, self.features, "projectors")


def prepare_lesson(
    guide: Teacher, place: str, pupil: Pupil, run: RunDir, here: World, *, shared: bool
) -> Lesson:
    """Check the teacher, choose what computes it and whether its answers are kept.

    Args:
        guide: answers in the student's class order.
        place: its name in errors.
        pupil: who is taught.
        run: the student's run; health, engine and cache are recorded in it.
        here: this process.
        shared: other runs ask about the same views.

    Raises:
        DataError: there are no val images to look at it with.
        ModelError: the teacher knows no more than chance, answers with what is not finite, or lacks
            a layer.
        RecipeError: its answers are to be kept, and they cannot be.
        MachineError: likewise, for want of room.
    """
    # Before the teacher's first large tensor, so that the race between engines is fair to torch.
    host.tune_malloc()
    section = pupil.section
    guide = guide.to(memory_format=torch.channels_last).to(here.device)
    for note in guide.notes:
        _tell(note, here)

    # 1. Is it worth listening to?
    health = _examine(guide, place, pupil, run, here)

    # 2. What computes it; a training that goes on takes what it began with.
    looks_inside = any(term.facts.features for term in pupil.terms)
    if looks_inside:
        # Feature maps are not kept, and to make them is to ask it.
        pupil = replace(pupil, section=replace(section, teacher_cache="off"))
    engine = _engine(guide, pupil, run, here, looks_inside=looks_inside, shared=shared)
    features = _features(guide, place, pupil) if looks_inside else None

    # 3. Whether its answers are kept.
    plan = _plan(guide, engine.name, pupil, shared=shared)
    if plan.use:
        _tell(plan.text, here)
    run.set(
        lineage={
            **run.info.lineage,
            "teacher_cache": {"use": plan.use, "why": plan.why, "bytes": plan.bytes},
        }
    )
    objective = Distillation(
        teacher=CachedTeacher(engine, plan, pupil.feed, run.log),
        terms=tuple(term for term in pupil.terms if not term.facts.features),
        w_hard=hard_weight(pupil.terms, section.w_hard),
        temperature=section.temperature,
        standardise=section.standardise,
        soft_warmup=soft_warmup(section, pupil.terms),
        label_smoothing=section.train.label_smoothing,
        features=features,
        tasks=pupil.val.tasks,
        balance=pupil.balance,
    )
    return Lesson(objective, features, health)


def soft_warmup(section: StudentSection, terms: Sequence[Term]) -> float:
    """Return over how many epochs the weights of logit losses grow.

    Unset, it is the paper's 20 of 240 epochs for ``dkd`` (Zhao et al., CVPR 2022, section 5), as
    many but no larger share of a shorter training, and none for the other losses.
    """
    if section.soft_warmup is not None:
        return section.soft_warmup
    if not any(term.name in _WARMED for term in terms):
        return 0.0
    return min(_WARMUP_EPOCHS, _WARMUP_SHARE * section.train.epochs)


def _examine(guide: Teacher, place: str, pupil: Pupil, run: RunDir, here: World) -> Health:
    """Ask the teacher about the val images, just as the student will ask it.

    Raises:
        DataError: there are none.
        ModelError: it knows no more than chance, or its answers are not finite.
    """
    val, classes = pupil.val, len(pupil.classes)
    if not len(val):
        raise DataError(
            "the data has no val images to look at the teacher with",
            "add images, at least 3 of each class, or give a val folder",
        )
    device = guide.order.device
    batches = [range(i, min(i + _BATCH, len(val))) for i in range(0, len(val), _BATCH)]
    logits = torch.cat([guide(val.pixels(b).to(device).float()).cpu() for b in batches])
    if not logits.isfinite().all():
        raise ModelError(
            f"{place}: the teacher's logits are not finite, or larger than float16 can hold",
            "fine-tune the teacher again, with a smaller --lr",
        )
    health = check_health(logits, val.labels, pupil.section.temperature, val.tasks)
    asked = [("", health.n, round(health.val_top1_pct * health.n / 100), classes)]
    if val.tasks:
        scores = by_task(logits.numpy(), val.labels.numpy(), val.tasks)
        both = zip(val.tasks, scores, strict=True)
        asked = [(f" in task {t.name}", s.n, s.correct, len(t.classes)) for t, s in both]
    for task, n, correct, among in asked:
        if at_chance(correct, n, among):
            raise ModelError(
                f"{place}: the teacher has {100 * correct / n:.1f} %{task} on {n} val images, "
                f"chance is {100 / among:.1f} %",
                "fine-tune the teacher on this data first, and check its class names",
            )
    known = {**encode(health), "reordered_classes": guide.reordered}
    run.log({"event": "teacher", "step": 0, **known})
    for warning in health.warnings:
        _tell(f"warning: {warning}", here)
    return health


def _plan(guide: Teacher, engine: str, pupil: Pupil, *, shared: bool) -> CachePlan:
    return plan_cache(
        pupil.section, guide.identity, engine, pupil.classes, pupil.feed, shared=shared
    )


def _engine(
    guide: Teacher, pupil: Pupil, run: RunDir, here: World, *, looks_inside: bool, shared: bool
) -> Engine:
    """Return what the run began with, or choose it now and record it."""
    known = here.share(run.info.lineage.get("teacher_engine"))
    if known is not None:
        return make_engine(guide, str(known["name"]), here.device)
    chosen: Engine | None = None
    if here.leader:
        names = engine_names(
            guide, asked=pupil.section.teacher_engine, device=here.device, features=looks_inside
        )
        chosen = _kept(guide, names, pupil, here) or _raced(
            guide,
            _plan(guide, names[0], pupil, shared=shared),
            pupil,
            here,
            looks_inside=looks_inside,
        )
        run.set(lineage={**run.info.lineage, "teacher_engine": chosen.encode()})
    # To export, compile and time a large teacher may take minutes.
    here.follow()
    name = here.share(chosen.name if chosen else None)
    return chosen or make_engine(guide, name, here.device)


def _kept(guide: Teacher, names: Sequence[str], pupil: Pupil, here: World) -> Engine | None:
    """Return the engine whose answers to these views are kept already, ``None`` for none.

    They differ between engines in their last bits, so that each has files of its own.
    """
    if pupil.section.teacher_cache == "off":
        return None
    asked = replace(pupil, section=replace(pupil.section, teacher_cache="auto"))
    plans = {name: _plan(guide, name, asked, shared=False) for name in names}
    there = {name: plan.there for name, plan in plans.items() if plan.use and plan.there}
    if not there:
        return None
    most = max(there, key=lambda name: there[name])
    return make_engine(guide, most, here.device, "its answers to these views are kept")


def _raced(
    guide: Teacher, plan: CachePlan, pupil: Pupil, here: World, *, looks_inside: bool
) -> Engine:
    with closing(pupil.feed.epoch(0)) as batches:
        pixels = next(batches).images.float()
    # Where its answers are kept, it is asked about each view once.
    epochs = plan.epochs - plan.there if plan.use else pupil.section.train.epochs
    return choose_engine(
        guide,
        pixels,
        asked=pupil.section.teacher_engine,
        device=here.device,
        features=looks_inside,
        calls=epochs * pupil.feed.steps_per_epoch,
    )


def _features(guide: Teacher, place: str, pupil: Pupil) -> Features:
    """Open the taps of the feature losses.

    Raises:
        ModelError: the teacher's layers cannot be seen, or one that is named does not exist.
    """
    inner = guide.modules_for_features
    if inner is None:
        first = next(term.label for term in pupil.terms if term.facts.features)
        raise ModelError(
            f"{place}: loss {first} looks at the teacher's layers, which only a single run shows",
            "name the folder of a finished run as the teacher, or take logit losses alone",
        )
    device = guide.order.device
    pixels = pupil.val.pixels(range(min(2, len(pupil.val)))).to(device)
    ours = PixelModel(pupil.built.model.to(device), pupil.built.preprocess).to(device)
    return Features(
        pupil.terms,
        pupil.built.model,
        inner,
        ours.normalise(pixels),
        guide.members()[0].normalise(pixels),
        seed=pupil.section.train.seed,
    )


def _tell(text: str, here: World) -> None:
    if here.leader:
        say(text)
