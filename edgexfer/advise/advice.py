"""The advice stage: data and sources in, a ranking, a depth, a strategy and a recipe out.

Nothing is trained. It looks at the training images alone, so that what is measured later on val and
test has not decided anything.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgexfer.advise.distance import Distance, measure, pictures_seen
from edgexfer.advise.features import Features, Source, open_source, read_features
from edgexfer.advise.layers import Depth, probe_layers
from edgexfer.advise.ranking import Ranking, decision, rank
from edgexfer.advise.strategy import Choice, choose
from edgexfer.advise.students import (
    LARGE,
    SMALL,
    SMALL_PX,
    Student,
    check_fleet,
    make_candidates,
    rank_students,
)
from edgexfer.core.errors import InputError
from edgexfer.data.dataset import Dataset
from edgexfer.data.sides import SMALL_PX as SIDE_PX
from edgexfer.data.sides import median_side
from edgexfer.data.task import of_task
from edgexfer.profiles import find_profile
from edgexfer.recipe import (
    DataSection,
    ExportSection,
    ModelSection,
    Recipe,
    StudentSection,
    TeacherSection,
    TrainSection,
    dump_recipe,
)
from edgexfer.remote.fleet import Fleet
from edgexfer.training.stage import open_data


@dataclass(frozen=True)
class Wishes:
    """What is to be looked at.

    Attributes:
        sources: as ``open_source`` takes them.
        source_pictures: a folder of the pictures that the source was trained on.
        images: training images to look at, at most.
        size: of the input in pixels, for pre-trained weights; ``None`` takes each model's own.
        students: candidates; empty for some that suit the images.
        target: where the student is to run: a profile by name, alias or path.
        fleet: a machine of that kind, to measure on.
        task: which of several the advice is for.
    """

    sources: Sequence[str] = ()
    source_pictures: str | None = None
    images: int = 1000
    size: int | None = None
    students: Sequence[str] = ()
    target: str | None = None
    fleet: Fleet | None = None
    task: str | None = None


@dataclass(frozen=True)
class Advice:
    """What was found, and what to do.

    Attributes:
        images: training images that were looked at, and there are in all.
        classes: how many.
        rankings: of the sources, by each score.
        chosen: the source that the recipe starts from; the first by the first score, also where the
            scores cannot decide.
        decided: whether they can.
        decision: why, as a sentence.
        depth: the probes of the chosen source's layers.
        distance: of the target from the source's pictures.
        foreign: keys of the target's pictures and how foreign they are, the most foreign first.
        students: candidates for the target.
        choice: the strategy.
        recipe: what would be run.
        notes: what limits all this, one line each.
    """

    images: tuple[int, int]
    classes: int
    rankings: tuple[Ranking, ...]
    chosen: str | None
    decided: bool
    decision: str
    depth: Depth | None
    distance: Distance | None
    foreign: tuple[tuple[str, float], ...]
    students: tuple[Student, ...]
    choice: Choice
    recipe: Recipe
    notes: tuple[str, ...] = field(default=())


def advise(data: DataSection, wishes: Wishes) -> Advice:
    """Look at data and sources, and recommend what to train.

    Args:
        data: the target's images.
        wishes: what is to be looked at.

    Raises:
        DataError: the images are unusable.
        RunError, ModelError, MachineError: a source cannot be opened.
        InputError: a source is named twice, pictures of a source without a source, a size that no
            source could take, or fewer images than two of each class; the images have several
            tasks and none is named, or one that is not there.
        ProfileError: the target is unknown.
    """
    _refuse(wishes)
    profile = None if wishes.target is None else find_profile(wishes.target)
    if profile is not None:
        check_fleet(profile, wishes.fleet)
    whole = open_data(data)
    dataset = _one_task(whole, wishes)
    _refuse_few(dataset, wishes)
    train = dataset.splits["train"]

    # 1. Which source. Of a pre-trained one no more is kept than what it sees.
    sources = [open_source(text, wishes.size) for text in wishes.sources]
    _refuse_size(sources, wishes)
    seen = {s.name: read_features(s, dataset, "train", wishes.images) for s in sources}
    _refuse_unlike(seen)
    rankings = rank(seen) if seen else ()
    best, why = decision(rankings)
    chosen = best or (rankings[0].tied[0] if rankings else None)

    # 2. Which of its layers, and how far its own pictures are.
    source = next((s for s in sources if s.name == chosen), None)
    depth = probe_layers(seen[chosen].layers, seen[chosen].labels) if chosen else None
    distance: Distance | None = None
    foreign: tuple[tuple[str, float], ...] = ()
    if source is not None and wishes.source_pictures is not None:
        distance, foreign = _far(source, seen[source.name], wishes)

    # 3. Which strategy, and which student.
    per_class = len(train) / len(dataset.classes)
    choice = choose(per_class, depth, distance, several=bool(whole.tasks))
    size = _size(dataset, source, wishes)
    names = tuple(wishes.students) or (SMALL if size <= SMALL_PX else LARGE)
    students: tuple[Student, ...] = ()
    if profile is not None:
        with tempfile.TemporaryDirectory(prefix="edgexfer-") as scratch:
            candidates = make_candidates(names, len(whole.classes), size, Path(scratch))
            students = rank_students(candidates, profile, wishes.fleet)

    # 4. The recipe, and what all this cannot know.
    student = students[0].name if students else names[0]
    return Advice(
        images=(min(wishes.images, len(train)), len(train)),
        classes=len(dataset.classes),
        rankings=rankings,
        chosen=chosen,
        decided=best is not None,
        decision=why,
        depth=depth,
        distance=distance,
        foreign=foreign,
        students=students,
        choice=choice,
        recipe=_recipe(data, wishes, source, choice, ModelSection(student, size)),
        notes=_notes(dataset, source, distance, students, wishes.task),
    )


def recipe_text(advice: Advice) -> str:
    """Return the recipe as YAML, with the reasons as comments above it."""
    reasons = [advice.decision, f"Strategy {advice.choice.strategy}: {advice.choice.why}."]
    if advice.depth is not None:
        reasons.append(advice.depth.verdict)
    lines = "".join(f"# {_one_line(reason)}\n" for reason in (*reasons, *advice.notes))
    return lines + dump_recipe(advice.recipe)


def _refuse(wishes: Wishes) -> None:
    twice = [s for i, s in enumerate(wishes.sources) if s in wishes.sources[:i]]
    if twice:
        raise InputError(f"source {twice[0]} is named twice", "name it once")
    if wishes.source_pictures is not None and not wishes.sources:
        raise InputError(
            "--source-data is given, but no source that looks at the pictures",
            "add --source or --models",
        )
    if wishes.students and wishes.target is None:
        raise InputError("--students is given, but no target to rank them for", "add --target")
    if wishes.fleet is not None and wishes.target is None:
        raise InputError("--on is given, but no target to measure students for", "add --target")


def _one_task(whole: Dataset, wishes: Wishes) -> Dataset:
    """Return what the advice is for: of several tasks the one that is named."""
    if wishes.task is not None:
        return of_task(whole, wishes.task)
    if whole.tasks:
        names = ", ".join(task.name for task in whole.tasks)
        raise InputError(
            f"the images have labels of {len(whole.tasks)} tasks, and advice is for one",
            f"add --task, one of {names}; the recipe trains them all",
        )
    return whole


def _refuse_few(dataset: Dataset, wishes: Wishes) -> None:
    """Refuse to look at fewer images than two of each class: of one alone nothing is learned."""
    least = 2 * len(dataset.classes)
    if wishes.sources and wishes.images < least:
        raise InputError(
            f"--images {wishes.images}: are too few for {len(dataset.classes)} classes",
            f"give at least {least}, two of each class",
        )


def _refuse_unlike(seen: dict[str, Features]) -> None:
    """Refuse sources that did not see the same images: one image was unreadable at one size."""
    keys = {found.keys for found in seen.values()}
    if len(keys) > 1:
        raise InputError(
            "the sources could not read the same images", "see `edgexfer data check`, remove them"
        )


def _far(
    source: Source, seen: Features, wishes: Wishes
) -> tuple[Distance, tuple[tuple[str, float], ...]]:
    assert wishes.source_pictures is not None
    theirs = pictures_seen(source, wishes.source_pictures, wishes.images)
    distance = measure(theirs, seen.last)
    keys = [seen.keys[i] for i in distance.foreign]
    return distance, tuple(zip(keys, distance.foreignness, strict=True))


def _refuse_size(sources: Sequence[Source], wishes: Wishes) -> None:
    """Refuse a size where every source has its own, as students take that of their source."""
    if wishes.size is None or any(source.section.pretrained for source in sources):
        return
    for source in sources:
        height, width = source.preprocess.size
        raise InputError(
            f"source {source.name}: was trained at {height} x {width} pixels, and is looked at so",
            "leave out --size",
        )


def _size(dataset: Dataset, source: Source | None, wishes: Wishes) -> int:
    """Return the size of the input in pixels: the source's, or one that suits the images."""
    if source is not None:
        return source.preprocess.size[0]
    side = median_side(dataset)
    return wishes.size or (16 if side <= 16 else 32 if side <= SIDE_PX else 224)


def _recipe(
    data: DataSection, wishes: Wishes, source: Source | None, choice: Choice, student: ModelSection
) -> Recipe:
    size = student.size or 0
    anew = ModelSection("resnet20" if size <= SMALL_PX else "resnet18", size)
    model = source.section if source is not None else anew
    # Digits and the like are as small as that, and have no mirror image.
    views = TrainSection(augment="crop" if size > SMALL_PX else "flip" if size > 16 else "shift")
    schedule = replace(views, epochs=30, batch_size=32, backbone_lr=choice.backbone_lr)
    teacher = TeacherSection(
        model, choice.strategy, choice.options, guard=choice.guard, train=schedule
    )
    students = replace(views, epochs=60, batch_size=64, lr=2e-3)
    export = ExportSection()
    if wishes.target is not None:
        export = replace(export, targets=(wishes.target,))
    return Recipe(
        name=Path(data.path.rpartition(":")[2]).name.split(".")[0] or "advice",
        data=data,
        teacher=teacher,
        student=StudentSection(student, control=True, train=students),
        export=export,
    )


def _notes(
    dataset: Dataset,
    source: Source | None,
    distance: Distance | None,
    students: Sequence[Student],
    task: str | None,
) -> tuple[str, ...]:
    notes = []
    if source is None:
        notes.append("Name sources with --source or --models to have them compared.")
    elif distance is None:
        notes.append("How far the source's own pictures are was not looked at (--source-data).")
    if students and students[0].measured_ms is None:
        what = "Latencies are lower bounds, no predictions"
        if students[0].bound_ms is None:
            what = "Without a bound or a measurement, students are ranked by size"
        notes.append(f"{what}; --on measures where it can.")
    if task is not None:
        notes.append(f"Looked at is the task {task} alone; the recipe trains all of them.")
    notes.extend(dataset.notes)
    return tuple(notes)


def _one_line(text: str) -> str:
    return " ".join(text.split())
