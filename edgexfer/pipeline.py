"""The trip: a recipe's stages in their order, each skipped where its inputs have not changed.

::

    TRIP/recipe.yaml      what was asked
    TRIP/teacher/         run            TRIP/student/        run
    TRIP/control/         run            TRIP/student-sweep/  further losses and seeds
    TRIP/teacher-guard/   the teacher's architecture from scratch, and as a probe
    TRIP/student-assistant-1/  run       each model between teacher and student
    TRIP/bundle/          the student for its targets
    TRIP/teacher-bundle/  the teacher as it was trained, to be measured beside the student
    TRIP/bench/           records        TRIP/report.html     the page
    TRIP/trip.json        what each stage was made from

A training knows by itself whether it is done, unfinished, or asked for with other settings. What is
made from trainings is made again when the hash of its inputs changes; the former one is kept as
``NAME.previous``. A benchmark that was interrupted goes on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgexfer import __version__
from edgexfer.core.bundle import MANIFEST
from edgexfer.core.codec import encode
from edgexfer.core.errors import InputError, RecipeError
from edgexfer.core.files import (
    fingerprint,
    make_dir,
    read_json,
    sha256_file,
    write_atomic,
    write_json,
)
from edgexfer.core.progress import Progress
from edgexfer.core.stats import PairedDrop
from edgexfer.core.sweep import Sweep
from edgexfer.recipe import Recipe, StudentSection, dump_recipe

SCHEMA = "edgexfer.trip/1"
STATE = "trip.json"
TEACHER_TARGET = "x86-torch"


@dataclass(frozen=True)
class Trip:
    """What a finished trip came to.

    Attributes:
        path: its folder.
        records: the measurements, one file per artefact.
        gain: accuracy of the student minus that of the control; ``None`` without a control.
        sweep: over seeds and losses; ``None`` where there is one of each.
        report: the page.
    """

    path: Path
    records: tuple[Path, ...]
    gain: PairedDrop | None
    sweep: Sweep | None
    report: Path


def run_recipe(recipe: Recipe, out: Path | None = None) -> Trip:
    """Run a recipe from the images to the report.

    Args:
        recipe: what is asked.
        out: folder of the trip; an unfinished or finished one is taken up. ``None`` takes
            ``runs/NAME``.

    Raises:
        RecipeError: the recipe names no target, its name cannot name a folder, its student cannot
            be trained as it asks, or another recipe would be overwritten.
        EdgexferError: of whatever stage stops; what was made before it is kept and not made again.
    """
    from edgexfer.distill.stage import distill
    from edgexfer.distill.sweep import check_all, distill_all
    from edgexfer.export.stage import export
    from edgexfer.profiles import find_profile
    from edgexfer.remote.bench import How, bench_bundles
    from edgexfer.report.page import build
    from edgexfer.training.predictions import compare_runs
    from edgexfer.transfer.guard import finetune_all, refuse_harm

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(
            "a whole trip runs in one process, but torchrun started several",
            "use torchrun for single trainings: finetune and distill",
        )

    # 1. What can be known to be wrong is refused before hours are spent.
    out = _folder(recipe) if out is None else out
    if not recipe.export.targets:
        raise RecipeError("export.targets is empty", "name one: `edgexfer profiles list`")
    for target in recipe.export.targets:
        find_profile(target)
    check_all(recipe.student)
    if recipe.teacher is None:
        _refuse_comparison(recipe.student)
    asked = out / "recipe.yaml"
    if asked.exists() and not any((out / made).exists() for made in (STATE, "teacher", "student")):
        raise RecipeError(
            f"{asked}: already exists, and belongs to no trip", "choose another --out"
        )
    make_dir(out)
    state = State(out)
    if not asked.exists():
        write_atomic(asked, dump_recipe(recipe))

    # 2. The trainings: teacher, student, and the student without the teacher.
    sweep = None
    if recipe.teacher is not None:
        teacher, guard = finetune_all(recipe.data, recipe.teacher, out / "teacher")
        # Before hours are spent on a student of it.
        refuse_harm(guard, out / "teacher")
        outcome = distill_all(
            recipe.data,
            (out / "teacher",),
            recipe.student,
            out / "student",
            control=out / "control",
        )
        student, sweep = outcome.student, outcome.sweep
    else:
        student = distill(recipe.data, (), recipe.student, out / "student")
    # Only now: a recipe that a training refuses must not stand for what the trip was made by.
    write_atomic(asked, dump_recipe(recipe))

    # 3. The bundles: the student for its targets, the teacher as the eager reference.
    wanted = {"bundle": (out / "student", student, recipe.export)}
    if recipe.teacher is not None:
        eager = replace(recipe.export, targets=(TEACHER_TARGET,), precision="fp32")
        wanted["teacher-bundle"] = (out / "teacher", teacher, eager)
    bundles = []
    for name, (run, info, section) in wanted.items():
        described = [encode(find_profile(target)) for target in section.targets]
        key = [info.result["weights_sha256"], encode(section), described]
        bundles.append(state.make(name, key, partial(export, run, section, progress=Progress)))

    # 4. The measurement, of all artefacts in one interleaved run so that they compare.
    sealed = [sha256_file(bundle / MANIFEST) for bundle in bundles]
    bench = state.make(
        "bench",
        [sealed, encode(recipe.bench)],
        lambda place: bench_bundles(bundles, place, How(None, recipe.bench, Progress)),
        goes_on=True,
    )

    # 5. The report.
    controlled = recipe.teacher is not None and recipe.student.control
    gain = compare_runs(out / "student", out / "control") if controlled else None
    report = build([out], out / "report.html")
    return Trip(out, tuple(sorted(bench.glob("*.json"))), gain, sweep, report)


def _refuse_comparison(student: StudentSection) -> None:
    """Refuse what only a teacher gives a meaning to, rather than leave it undone."""
    from edgexfer.distill.terms import split_losses

    for name, asked in (
        ("seeds", student.seeds > 1),
        ("assistants", bool(student.assistants)),
        ("control", student.control),
        ("teacher_weights", bool(student.teacher_weights)),
        ("class_map", student.class_map is not None),
        ("teacher_card", student.teacher_card is not None),
        ("soft_warmup", student.soft_warmup is not None),
        ("standardise", student.standardise),
    ):
        if asked:
            raise RecipeError(
                f"student.{name} is set, but the recipe has no teacher",
                f"add a teacher, or leave out student.{name}",
            )
    if student.loss != StudentSection.loss:
        does = "compares losses" if len(split_losses(student.loss)) > 1 else "asks a teacher"
        raise RecipeError(
            f"student.loss {student.loss!r} {does}, but the recipe has no teacher",
            "add a teacher, or leave out student.loss",
        )


def _folder(recipe: Recipe) -> Path:
    """Return ``runs/NAME``; a name must not lead out of ``runs``."""
    if recipe.name == ".." or Path(recipe.name).parts != (recipe.name,):
        raise RecipeError(
            f"name {recipe.name!r} cannot name a folder", "give a plain name, or choose --out"
        )
    return Path("runs") / recipe.name


class State:
    """Which inputs each folder of the trip was made from, kept in ``trip.json``."""

    def __init__(self, trip: Path) -> None:
        """Read what an earlier run of the trip left, and note that there is one."""
        self._trip = trip
        self._keys: dict[str, str] = {}
        self._begun: dict[str, str] = {}
        saved: Any = None
        with suppress(InputError):  # a lost note only costs time: the stages are made again
            saved = read_json(trip / STATE)
        if isinstance(saved, dict) and saved.get("schema") == SCHEMA:
            self._keys = dict(saved.get("made_from") or {})
            self._begun = dict(saved.get("begun_from") or {})
        if saved is None:
            self._save()

    def make(
        self,
        name: str,
        inputs: list[Any],
        stage: Callable[[Path], object],
        *,
        goes_on: bool = False,
    ) -> Path:
        """Make a folder of the trip unless it is there and was made from the same inputs.

        Args:
            name: of the folder.
            inputs: all that decides its content, as JSON values.
            stage: makes it at the path that it is handed.
            goes_on: whether it takes up a folder that it did not finish.
        """
        place = self._trip / name
        key = fingerprint([__version__, *inputs])
        if place.is_dir() and self._keys.get(name) == key:
            return place
        if place.is_dir() and not (goes_on and self._begun.get(name) == key):
            previous = place.with_name(name + ".previous")
            shutil.rmtree(previous, ignore_errors=True)
            place.rename(previous)
        self._keys.pop(name, None)
        self._begun[name] = key
        self._save()
        stage(place)
        self._keys[name] = key
        self._save()
        return place

    def _save(self) -> None:
        noted = {"schema": SCHEMA, "made_from": self._keys, "begun_from": self._begun}
        write_json(self._trip / STATE, noted)
