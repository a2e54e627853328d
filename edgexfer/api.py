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
    from edgexfer.bench.verify import Finding
    from edgexfer.core.bundle import Manifest
    from edgexfer.core.record import Record
    from edgexfer.core.rundir import RunInfo
    from edgexfer.data.audit import Audit
    from edgexfer.distill.sweep import Outcome
    from edgexfer.export.evaluate import Evaluation
    from edgexfer.export.load import LoadedBundle
    from edgexfer.pipeline import Trip


def finetune(data: str | DataSection, teacher: str | TeacherSection, out: PathLike) -> RunInfo:
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

    section = TeacherSection(ModelSection(teacher)) if isinstance(teacher, str) else teacher
    info, sweep = finetune_all(_data(data), check_section(section), Path(out))
    refuse_harm(sweep, out)
    return info


def pretrain(data: str | DataSection, model: str | PretrainSection, out: PathLike) -> RunInfo:
    """Pre-train a model on images without labels; an unfinished run in ``out`` goes on.

    Args:
        data: folder of the images, or a whole section.
        model: name of the architecture, or a whole section.
        out: the run's folder; ``ModelSection(weights="OUT/model/weights.safetensors")`` starts from
            what it learned.
    """
    from edgexfer.transfer.pretrain import pretrain as stage

    section = PretrainSection(ModelSection(model)) if isinstance(model, str) else model
    return stage(_data(data), check_section(section), out)


def distill(
    data: str | DataSection,
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
    teachers = (teacher,) if isinstance(teacher, (str, os.PathLike)) else tuple(teacher)
    return distill_all(_data(data), teachers, check_section(section), Path(out))


def evaluate(subject: PathLike, data: str | DataSection | None = None) -> list[Evaluation]:
    """Measure the accuracy of a run, or of each artefact of a bundle, on a data set's test split.

    Args:
        subject: a run or a bundle.
        data: where the images are; ``None`` takes what the run was trained on.
    """
    from edgexfer.export.evaluate import evaluate as stage

    return stage(Path(subject), None if data is None else _data(data))


def export(run: PathLike, targets: str | Sequence[str] | ExportSection, out: PathLike) -> Manifest:
    """Export a run for targets into a sealed bundle, every hop checked.

    Args:
        run: a finished run.
        targets: profiles by name, alias or path, or a whole section.
        out: the bundle's folder.
    """
    from edgexfer.core.progress import Progress
    from edgexfer.export.stage import export as stage

    if isinstance(targets, ExportSection):
        section = targets
    else:
        section = ExportSection((targets,) if isinstance(targets, str) else tuple(targets))
    return stage(Path(run), check_section(section), Path(out), progress=Progress)


def bench(
    bundle: PathLike,
    out: PathLike,
    *,
    targets: Sequence[str] | None = None,
    section: BenchSection | None = None,
) -> list[Record]:
    """Measure a bundle's artefacts on this machine, each in fresh processes.

    Args:
        bundle: a sealed bundle.
        out: folder for the records, one JSON file per artefact.
        targets: profiles; ``None`` takes all that are meant for a machine like this one.
        section: how long and how often.
    """
    from edgexfer.core.progress import Progress
    from edgexfer.core.record import read_record
    from edgexfer.remote.bench import How, bench_bundles

    how = How(targets, check_section(section or BenchSection()), Progress)
    paths = bench_bundles([Path(bundle)], Path(out), how)
    return [read_record(path) for path in paths]


def verify(bundle: PathLike) -> list[Finding]:
    """Check a bundle's hashes, preprocess and golden outputs on this machine.

    Returns:
        One finding per check; ``status`` is ``ok``, ``failed`` or ``skipped``.
    """
    from edgexfer.remote.verify import verify as stage

    return stage(Path(bundle))


def check_data(data: str | DataSection) -> Audit:
    """Look at a data set before training on it; ``clean`` says whether anything would spoil one."""
    from edgexfer.core.progress import Progress
    from edgexfer.data.audit import audit

    how = _data(data)
    return audit(how.path, val=how.val, test=how.test, split_seed=how.split_seed, progress=Progress)


def report(inputs: Sequence[PathLike], out: PathLike = "report.html") -> Path:
    """Draw trips, runs, bundles and records into one HTML page, and return its path."""
    from edgexfer.report.page import build

    return build([Path(p) for p in inputs], Path(out))


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


def _data(data: str | DataSection) -> DataSection:
    return check_section(DataSection(data) if isinstance(data, str) else data)
