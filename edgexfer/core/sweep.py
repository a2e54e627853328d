"""The sweep: several trainings of one model, with and without a teacher or a transfer.

``sweep.json`` is written by ``distill/sweep.py`` and ``transfer/guard.py`` and read by the report;
the runs themselves stay where they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

from edgexfer.core.codec import encode
from edgexfer.core.errors import RunError
from edgexfer.core.files import PathLike, write_json
from edgexfer.core.rundir import read_as
from edgexfer.core.stats import SeededGain

SCHEMA = "edgexfer.sweep/1"
FILE = "sweep.json"
CONTROL = "control"
SCRATCH = "scratch"


@dataclass(frozen=True)
class Arm:
    """One way of training the model, with several seeds.

    Attributes:
        name: the loss, or ``control`` for labels alone; of a guard, the strategy.
        runs: their folders, relative to the sweep's.
        seeds: one of each run.
        top1_pct: test accuracy of each run, in percent.
        mean_pct: their mean.
        images_per_s: training speed of each run.
        gain: over the baseline with the same seeds; ``None`` for the baseline itself.
        task: which of several tasks the accuracies are of, on the images that have its label;
            ``None`` for the only one, or for all together.
    """

    name: str
    runs: Tuple[str, ...]
    seeds: Tuple[int, ...]
    top1_pct: Tuple[float, ...]
    mean_pct: float
    images_per_s: Tuple[float, ...]
    gain: Optional[SeededGain] = None
    task: Optional[str] = None


@dataclass(frozen=True)
class Sweep:
    """Several ways of training one model, compared.

    Attributes:
        schema: ``edgexfer.sweep/1``.
        student: the architecture.
        teacher_top1_pct: val accuracy of the teacher as the students ask it, in percent.
        n: test images.
        baseline: name of the arm that the others are compared with: the control, or the first loss
            where there is none; of a guard, ``scratch``.
        arms: the ways, the control or ``scratch`` last; of several tasks all ways again for each.
    """

    schema: str
    student: str
    teacher_top1_pct: Optional[float]
    n: int
    baseline: str
    arms: Tuple[Arm, ...]


def write_sweep(folder: Path, sweep: Sweep) -> None:
    """Write ``sweep.json`` into a folder.

    Raises:
        DiskError: it cannot be written.
    """
    write_json(folder / FILE, encode(sweep))


def read_sweep(folder: PathLike) -> Sweep:
    """Read ``sweep.json`` of a folder.

    Raises:
        RunError: it is missing, damaged or of another schema.
    """
    place = Path(folder) / FILE
    if not place.is_file():
        raise RunError(f"{folder}: holds no {FILE}", "run `edgexfer distill` with --seeds")
    return read_as(Sweep, place, SCHEMA, "run the same `edgexfer distill` again")
