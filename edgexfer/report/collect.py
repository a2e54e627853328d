"""Find the runs, sweeps, bundles and records that a user names; faults are kept beside them.

Nothing is measured or judged here, and no file is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgexfer.core.bundle import MANIFEST, Manifest, is_safe, read_manifest
from edgexfer.core.errors import EdgexferError, InputError
from edgexfer.core.files import read_json, sha256_file
from edgexfer.core.model import CARD, FOLDER, ModelCard, read_card
from edgexfer.core.record import Record, read_record
from edgexfer.core.rundir import INFO, RunInfo, read_events, read_run
from edgexfer.core.sweep import FILE as SWEEP
from edgexfer.core.sweep import Sweep, read_sweep
from edgexfer.core.tasks import code_of, spans

if TYPE_CHECKING:
    import numpy as np

BENCH = "bench"
PREDICTIONS = "predictions.json"
# What the folders of a trip say of the bundles in them.
ROLES = {"teacher-bundle": "teacher", "bundle": "student", "control-bundle": "control"}


@dataclass(frozen=True)
class FoundRun:
    """A run folder.

    Attributes:
        path: where it lies.
        role: the folder's name in a trip: ``teacher``, ``student`` or ``control``.
        info: what it says of itself.
        card: its model; ``None`` while it has none.
        events: the lines of ``metrics.jsonl``.
        labels: class index of each test image; empty without any.
        predictions: what the model said of each; likewise.
        confidences: the probability it gave that; empty where it was not kept.
    """

    path: Path
    role: str
    info: RunInfo
    card: ModelCard | None
    events: tuple[dict[str, Any], ...]
    labels: tuple[int, ...] = ()
    predictions: tuple[int, ...] = ()
    confidences: tuple[float, ...] = ()


@dataclass(frozen=True)
class FoundBundle:
    """A bundle.

    Attributes:
        path: where it lies.
        role: ``teacher``, ``student`` or ``control`` in a trip, else the folder's name.
        manifest: what it holds.
        manifest_sha256: by which its records name it.
        labels: class of each evaluation image, of several tasks one number for all, as records hold
            predictions; ``None`` without any.
        labels_in: by name of the task, the class of each image in it, -1 without a label; empty for
            one task.
    """

    path: Path
    role: str
    manifest: Manifest
    manifest_sha256: str
    labels: tuple[int, ...] | None
    labels_in: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class FoundRecord:
    """A record and the file that it was read from."""

    path: Path
    record: Record


@dataclass(frozen=True)
class FoundSweep:
    """A sweep over seeds and losses, and the folder that it was read from."""

    path: Path
    sweep: Sweep


@dataclass
class Found:
    """Everything that was found, in the order in which it was named.

    Attributes:
        title: of the whole, from the folder's name.
        runs: trainings.
        bundles: what was exported.
        records: what was measured.
        sweeps: trainings of one student with several seeds or losses.
        faults: what could not be read, each with what to do about it.
    """

    title: str
    runs: list[FoundRun] = field(default_factory=list)
    bundles: list[FoundBundle] = field(default_factory=list)
    records: list[FoundRecord] = field(default_factory=list)
    sweeps: list[FoundSweep] = field(default_factory=list)
    faults: list[EdgexferError] = field(default_factory=list)

    def bundle_of(self, record: Record) -> FoundBundle | None:
        """Return the bundle that a record measured, if it is among what was found."""
        wanted = record.bundle.get("manifest_sha256")
        return next((b for b in self.bundles if b.manifest_sha256 == wanted), None)

    def run_of(self, role: str) -> FoundRun | None:
        """Return the run of a role, if it is among what was found."""
        return next((r for r in self.runs if r.role == role), None)


def collect(inputs: Sequence[Path]) -> Found:
    """Read every run, bundle and record below the places named.

    Args:
        inputs: trip folders, runs, bundles, folders of records, record files.

    Raises:
        InputError: a place does not exist, or none of them holds anything to report.
    """
    first = Path(inputs[0]).resolve() if inputs else Path()
    found = Found(title=first.stem if first.suffix == ".json" else first.name)
    for place in _places([Path(p) for p in inputs]):
        try:
            _read(place, found)
        except EdgexferError as error:
            found.faults.append(error)
    if not (found.runs or found.bundles or found.records or found.sweeps):
        if found.faults:
            raise found.faults[0]
        names = ", ".join(str(p) for p in inputs) or "nothing was named"
        raise InputError(
            f"{names}: holds no run, bundle or record",
            "name a folder that `edgexfer run`, `finetune`, `export` or `bench` has written",
        )
    return found


def _places(inputs: Sequence[Path]) -> Iterator[Path]:
    """Yield each run, bundle and record file once, however often it was named."""
    seen = set()
    for place in inputs:
        if not place.exists():
            raise InputError(f"{place}: no such file or folder", "check the path")
        for found in _below(place):
            if found.resolve() not in seen:
                seen.add(found.resolve())
                yield found


def _below(place: Path) -> Iterator[Path]:
    if place.is_file() or _is_one(place):
        yield place
        return
    children = sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))
    inner = [p for p in children if _is_one(p)]
    yield from inner
    if (place / BENCH).is_dir():
        yield from sorted((place / BENCH).glob("*.json"))
    elif not inner:
        yield from sorted(place.glob("*.json"))


def _is_one(folder: Path) -> bool:
    """Say whether a folder is itself a run, a bundle or a sweep."""
    return any((folder / name).exists() for name in (INFO, MANIFEST, SWEEP))


def _read(place: Path, found: Found) -> None:
    if place.is_file():
        found.records.append(FoundRecord(place, read_record(place)))
    elif (place / MANIFEST).exists():
        found.bundles.append(_read_bundle(place))
    elif (place / SWEEP).exists():
        found.sweeps.append(FoundSweep(place, read_sweep(place)))
    else:
        found.runs.append(_read_run(place))


def _read_run(place: Path) -> FoundRun:
    card = read_card(place) if (place / FOLDER / CARD).exists() else None
    saved: Any = read_json(place / PREDICTIONS) if (place / PREDICTIONS).exists() else {}
    try:
        names = ("labels", "predictions", "confidences")
        labels, predictions, confidences = (tuple(saved.get(name, ())) for name in names)
        if len(labels) != len(predictions) or len(confidences) not in (0, len(labels)):
            raise TypeError("their number differs from that of the labels")
    except (AttributeError, TypeError) as error:
        fix = "delete it; the report then compares totals alone"
        raise InputError(f"{place / PREDICTIONS}: holds no predictions ({error})", fix) from error
    events = tuple(read_events(place))
    name = place.resolve().name
    return FoundRun(place, name, read_run(place), card, events, labels, predictions, confidences)


def _read_bundle(place: Path) -> FoundBundle:
    manifest = read_manifest(place)
    rows, tasks = _read_labels(place, manifest), manifest.tasks
    labels: tuple[int, ...] | None = None
    labels_in: dict[str, tuple[int, ...]] = {}
    if rows is not None:
        labels = tuple(code_of(row, tasks) if tasks else row[0] for row in rows)
        labels_in = {task.name: tuple(row[i] for row in rows) for i, task in enumerate(tasks)}
    digest = sha256_file(place / MANIFEST)
    return FoundBundle(place, _role(place), manifest, digest, labels, labels_in)


def _role(bundle: Path) -> str:
    """Return the part that a bundle plays in its trip, or its folder's name outside of one."""
    place = bundle.resolve()
    role = ROLES.get(place.name)
    in_trip = role is not None and (place.parent / role / INFO).exists()
    return role if role is not None and in_trip else place.name


def _read_labels(place: Path, manifest: Manifest) -> list[list[int]] | None:
    """Return for each evaluation image its class in each task, -1 for none."""
    import numpy as np

    if manifest.evaluation is None:
        return None
    name, n = manifest.evaluation.labels, manifest.evaluation.n
    try:
        if not is_safe(name):
            raise ValueError("unsafe path")
        labels: np.ndarray[Any, Any] = np.load(place / name, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{place / name}: cannot be read ({error})", "export it again") from error
    if labels.shape != manifest.labels_shape(n):
        raise InputError(
            f"{place / name}: holds labels of shape {labels.shape}, the manifest says "
            f"{' x '.join(map(str, manifest.labels_shape(n)))}",
            "export it again",
        )
    places = spans(manifest.tasks, len(manifest.labels))
    if places[-1][1] != len(manifest.labels) or any(start == end for start, end in places):
        raise InputError(f"{place}: its tasks are not those of its labels", "export it again")
    rows = labels.reshape(n, len(places))
    for column, (start, end) in zip(rows.T, places, strict=True):
        # Of several tasks an image may lack a label.
        known = column[column != -1] if manifest.tasks else column
        if known.size and not start <= known.min() <= known.max() < end:
            raise InputError(
                f"{place / name}: holds labels outside {start}..{end - 1}", "export it again"
            )
    starts = np.array([start for start, _ in places])
    found: list[list[int]] = np.where(rows == -1, -1, rows - starts).tolist()
    return found
