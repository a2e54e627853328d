"""The Python API: what the verbs do, as functions with the same names and options.

Every function imports what it needs when it is called, so that ``import edgexfer`` costs nothing.
The functions return what a verb would print; errors are those of ``edgexfer.core.errors``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgexfer.core.files import PathLike
from edgexfer.recipe import (
    BenchSection,
    DataSection,
    ExportSection,
    ModelSection,
    PretrainSection,
    Recipe,
    StudentSection,
    TeacherSection,
    check_section,
    load_recipe,
)

if TYPE_CHECKING:
    from edgexfer.advise.advice import Advice, Wishes
    from edgexfer.bench.verdict import Verdict
    from edgexfer.bench.verify import Finding
    from edgexfer.core.bundle import Manifest
    from edgexfer.core.record import Record
    from edgexfer.core.rundir import RunInfo
    from edgexfer.data.audit import Audit
    from edgexfer.distill.sweep import Outcome
    from edgexfer.export.audit import Audit as GroupAudit
    from edgexfer.export.evaluate import Evaluation
    from edgexfer.export.load import LoadedBundle
    from edgexfer.pipeline import Trip
    from edgexfer.transfer.cluster import Clustering
    from edgexfer.transfer.curve import Curve
    from edgexfer.transfer.fewshot import Shots


def advise(
    data: PathLike | DataSection, wishes: PathLike | Sequence[PathLike] | Wishes = ()
) -> Advice:
    """Say which source, layers, strategy and student to take for images, before any training.

    Args:
        data: the images to train on, or a whole section.
        wishes: the sources to compare, each a finished run, ``MODEL=FILE`` or a model with
            pre-trained weights; or ``Wishes``, which have the target and the students too.

    Returns:
        What was found; ``recipe`` is what ``run`` takes.
    """
    from edgexfer.advise.advice import Wishes
    from edgexfer.advise.advice import advise as stage

    asked = wishes if isinstance(wishes, Wishes) else Wishes([str(w) for w in _several(wishes)])
    return stage(_data(data), asked)


def finetune(data: PathLike | DataSection, teacher: str | TeacherSection, out: PathLike) -> RunInfo:
    """Fine-tune a teacher; an unfinished run in ``out`` goes on where it stopped.

    Args:
        data: where the images are, or a whole section.
        teacher: name of the architecture, or a whole section.
        out: the run's folder.

    Returns:
        What the finished run says of itself; ``result["test"]`` holds its accuracy.

    Raises:
        GateError: ``guard`` was asked for, and the source weights hurt; the runs are kept.
    """
    from edgexfer.transfer.guard import finetune_all, refuse_harm

    info, sweep = finetune_all(_data(data), _teacher(teacher), Path(out))
    refuse_harm(sweep, out)
    return info


def curve(
    data: PathLike | DataSection,
    teacher: str | TeacherSection,
    out: PathLike,
    *,
    fractions: Sequence[float] = (0.125, 0.25, 0.5, 1.0),
    seeds: int = 2,
    task: str | None = None,
) -> Curve:
    """Fine-tune on growing parts of the images; ``verdict`` says what twice as many would gain.

    Args:
        data: where the images are, or a whole section.
        teacher: name of the architecture, or a whole section.
        out: folder of the runs; those that are done are not made again.
        fractions: parts of the training images, at least three.
        seeds: trainings of each part.
        task: of several, the one to look at; ``None`` for all together.
    """
    from edgexfer.transfer.curve import learning_curve

    return learning_curve(
        _data(data), _teacher(teacher), out, fractions=fractions, seeds=seeds, task=task
    )


def pretrain(data: PathLike | DataSection, model: str | PretrainSection, out: PathLike) -> RunInfo:
    """Pre-train a model on images without labels; an unfinished run in ``out`` goes on.

    Args:
        data: folder of the images, or a whole section.
        model: name of the architecture, or a whole section.
        out: the run's folder; ``ModelSection(NAME, weights="OUT")`` starts from what it learned.
    """
    from edgexfer.transfer.pretrain import pretrain as stage

    section = PretrainSection(ModelSection(model)) if isinstance(model, str) else model
    return stage(_data(data), check_section(section), out)


def cluster(
    data: PathLike | DataSection,
    model: PathLike | ModelSection,
    out: PathLike,
    *,
    clusters: int | None = None,
    seed: int = 0,
) -> Clustering:
    """Sort images without labels into clusters of a model's features.

    Args:
        data: folder of the images, or a whole section.
        model: a run, or an architecture with weights as a section.
        out: folder of the table and the page.
        clusters: how many; ``None`` takes the number of the best silhouette.
        seed: of the first centres.
    """
    from edgexfer.transfer.cluster import cluster as stage

    return stage(_data(data), _model(model), out, clusters=clusters, seed=seed)


def fewshot(
    data: PathLike | DataSection,
    model: PathLike | ModelSection,
    *,
    shots: Sequence[int] = (1, 5, 10),
    episodes: int = 100,
    ways: int | None = None,
    seed: int = 0,
) -> tuple[Shots, ...]:
    """Measure, without training, how far a few images of each class would get.

    Args:
        data: where the images are, or a whole section.
        model: a run, or an architecture with weights as a section.
        shots: training images of each class.
        episodes: draws that are averaged.
        ways: classes of an episode; ``None`` takes all.
        seed: of all draws.

    Returns:
        One row for each of ``shots``.
    """
    from edgexfer.transfer.fewshot import Protocol, few_shot

    protocol = Protocol(tuple(shots), episodes, ways, seed)
    return few_shot(_data(data), _model(model), protocol)


def distill(
    data: PathLike | DataSection,
    teacher: PathLike | Sequence[PathLike],
    student: str | StudentSection,
    out: PathLike,
) -> Outcome:
    """Distil a student from its teacher, and train all that its section asks for beside it.

    Args:
        data: where the images are, or a whole section.
        teacher: a run, a bundle or an ONNX file; several are averaged.
        student: name of the architecture, or a whole section; it says whether a control, further
            seeds or losses are trained.
        out: the run's folder; an unfinished run there goes on.

    Returns:
        ``student`` is what the finished run says of itself, ``student.result["test"]`` holds its
        accuracy; ``control`` and ``sweep`` where they were asked for.
    """
    from edgexfer.distill.sweep import distill_all

    section = StudentSection(ModelSection(student)) if isinstance(student, str) else student
    return distill_all(_data(data), _several(teacher), check_section(section), Path(out))


def evaluate(subject: PathLike, data: PathLike | DataSection | None = None) -> list[Evaluation]:
    """Measure the accuracy of a run, or of each artefact of a bundle, on a data set's test split.

    Args:
        subject: a run or a bundle.
        data: where the images are; ``None`` takes what the run was trained on.
    """
    from edgexfer.export.evaluate import evaluate as stage

    return stage(Path(subject), None if data is None else _data(data))


def audit(
    subjects: PathLike | Sequence[PathLike],
    data: PathLike | DataSection | None = None,
    by: str | Sequence[str] = (),
) -> GroupAudit:
    """Measure accuracy by class and subgroup, and who loses from the first model to the others.

    Args:
        subjects: runs or bundles; the first is the reference.
        data: where the images are; ``None`` takes what the first, a run, was trained on.
        by: further divisions: ``folder:N`` or ``FILE.csv:COLUMN``.
    """
    from edgexfer.export.audit import audit as stage

    places = [Path(subject) for subject in _several(subjects)]
    return stage(places, None if data is None else _data(data), _names(by))


def export(
    run: PathLike,
    targets: str | Sequence[str] | ExportSection,
    out: PathLike,
    *,
    on: str = "local",
    remote_python: str = "python3",
) -> Manifest:
    """Export a run for targets into a sealed bundle, every hop checked.

    Args:
        run: a finished run.
        targets: profiles by name, alias or path, or a whole section.
        out: the bundle's folder.
        on: ``ssh:HOST`` is a board on which what is made for other machines than this is timed.
        remote_python: the board's Python, such as ``~/venv/bin/python``.
    """
    from edgexfer.core.progress import Progress
    from edgexfer.export.measure import board_of
    from edgexfer.export.stage import export as stage
    from edgexfer.remote.fleet import fleet_of

    section = targets if isinstance(targets, ExportSection) else ExportSection(_names(targets))
    board = board_of(fleet_of(on, remote_python))
    return stage(Path(run), check_section(section), Path(out), progress=Progress, board=board)


def bench(
    bundle: PathLike,
    out: PathLike,
    *,
    targets: str | Sequence[str] | None = None,
    section: BenchSection | None = None,
    on: str = "local",
    remote_python: str = "python3",
) -> list[Record]:
    """Measure a bundle's artefacts on one machine or several, each in fresh processes.

    Args:
        bundle: a sealed bundle.
        out: folder for the records, one JSON file per artefact and machine.
        targets: profiles; ``None`` takes all that are meant for a machine of its kind.
        section: how long and how often.
        on: ``local`` and ``ssh:HOST``, with commas between them; several work side by side.
        remote_python: the boards' Python, such as ``~/venv/bin/python``.
    """
    from edgexfer.core.progress import Progress
    from edgexfer.core.record import read_record
    from edgexfer.remote.bench import How
    from edgexfer.remote.fleet import bench_on, fleet_of

    wanted = None if targets is None else _names(targets)
    how = How(wanted, check_section(section or BenchSection()), Progress)
    paths = bench_on([Path(bundle)], Path(out), how, fleet_of(on, remote_python))
    return [read_record(path) for path in paths]


def compare(
    first: PathLike | Record,
    second: PathLike | Record,
    *,
    delta_pct: float = 2.0,
    delta_pt: float = 0.5,
    across: str | Sequence[str] = (),
) -> Verdict:
    """Say of each metric whether the second record is faster, slower, the same or inconclusive.

    Args:
        first: a record, or its file; the yardstick.
        second: likewise; what is judged.
        delta_pct: changes of time up to so many percent are the same.
        delta_pt: changes of accuracy up to so many points are the same.
        across: what differs on purpose, such as ``precision``.
    """
    from edgexfer.bench.verdict import Delta
    from edgexfer.bench.verdict import compare as stage
    from edgexfer.core.record import Record, read_record

    one, other = (r if isinstance(r, Record) else read_record(r) for r in (first, second))
    return stage(one, other, Delta(delta_pct, delta_pt), _names(across))


def verify(bundle: PathLike, *, on: str = "local", remote_python: str = "python3") -> list[Finding]:
    """Check a bundle's hashes, preprocess and golden outputs on one machine.

    Args:
        bundle: a sealed bundle.
        on: ``local`` or ``ssh:HOST``.
        remote_python: the board's Python, such as ``~/venv/bin/python``.

    Returns:
        One finding per check; ``status`` is ``ok``, ``failed`` or ``skipped``.
    """
    from edgexfer.remote.fleet import fleet_of
    from edgexfer.remote.verify import verify as stage

    fleet = fleet_of(on, remote_python)
    return stage(Path(bundle), transport=fleet.reach(fleet.only))


def check_data(data: PathLike | DataSection) -> Audit:
    """Look at a data set before training on it; ``clean`` says whether anything would spoil one."""
    from edgexfer.core.progress import Progress
    from edgexfer.data.audit import audit as stage

    how = _data(data)
    return stage(how.path, val=how.val, test=how.test, split_seed=how.split_seed, progress=Progress)


def report(inputs: PathLike | Sequence[PathLike], out: PathLike = "report.html") -> Path:
    """Draw trips, runs, bundles and records into one HTML page, and return its path."""
    from edgexfer.report.page import build

    return build([Path(p) for p in _several(inputs)], Path(out))


def run(recipe: PathLike | Recipe, out: PathLike | None = None) -> Trip:
    """Run a whole recipe; stages whose inputs have not changed are skipped.

    Args:
        recipe: a YAML file or a ``Recipe``.
        out: the trip's folder; ``None`` takes ``runs/NAME``.
    """
    from edgexfer.pipeline import run_recipe

    wanted = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    return run_recipe(wanted, None if out is None else Path(out))


def load_bundle(path: PathLike) -> LoadedBundle:
    """Open a sealed bundle for predictions on this machine, after checking its hashes."""
    from edgexfer.export.load import load_bundle as load

    return load(Path(path))


def _data(data: PathLike | DataSection) -> DataSection:
    return check_section(data if isinstance(data, DataSection) else DataSection(os.fspath(data)))


def _teacher(teacher: str | TeacherSection) -> TeacherSection:
    return check_section(
        TeacherSection(ModelSection(teacher)) if isinstance(teacher, str) else teacher
    )


def _model(model: PathLike | ModelSection) -> ModelSection:
    return check_section(
        model if isinstance(model, ModelSection) else ModelSection(os.fspath(model))
    )


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _several(given: PathLike | Sequence[PathLike]) -> tuple[PathLike, ...]:
    return (given,) if isinstance(given, (str, os.PathLike)) else tuple(given)
