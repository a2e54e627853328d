"""Several artefacts measured side by side: the order of their processes, and their records.

Who starts a process is left to the caller: ``remote`` does it through a transport, the device's own
command line as a child. Nothing here imports numpy or a runtime.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from edgexfer.bench.analyse import analyse
from edgexfer.bench.job import SCHEMA as JOB_SCHEMA
from edgexfer.bench.job import Bare, Job, Result, read_profile
from edgexfer.bench.scenarios import SECONDS
from edgexfer.core.bundle import MANIFEST, Artefact, Manifest
from edgexfer.core.codec import encode
from edgexfer.core.errors import InputError
from edgexfer.core.files import fingerprint, sha256_file
from edgexfer.core.record import SCHEMA, Record

WARMUP_FACTOR = 4.0
WARMUP_CAP_S = 60.0


@dataclass(frozen=True)
class Settings:
    """How a benchmark measures; see ``BenchSection`` of the recipe for the first five.

    Attributes:
        processes: fresh processes per artefact.
        seconds: least time that each measures.
        samples: least number of inferences that each measures.
        threads: threads of the runtime; 0 leaves the choice to it.
        seed: of the order and of all that is drawn at random.
        accuracy: whether all evaluation images are run too, once per artefact.
        scenario: how queries are issued, see ``scenarios``.
        streams: calls that may run at the same time.
        batch: samples per call.
        bound_ns: most latency of the scenario ``server``; ``None`` for the others.
        allow_clock_changes: whether clocks are set to their highest, and put back afterwards.
        power_mode: of a Jetson, by name, for the same time; empty leaves it.
    """

    processes: int
    seconds: float
    samples: int
    threads: int
    seed: int
    accuracy: bool = True
    scenario: str = "single_stream"
    streams: int = 1
    batch: int = 1
    bound_ns: Optional[int] = None
    allow_clock_changes: bool = False
    power_mode: str = ""

    @property
    def warmup_s(self) -> float:
        """Most time that a process may take to reach its steady state, in seconds."""
        return min(WARMUP_CAP_S, WARMUP_FACTOR * self.seconds)


@dataclass(frozen=True)
class Subject:
    """One artefact that is to be measured.

    Attributes:
        bundle: the folder that it is in, on this machine.
        manifest: of that bundle; ``None`` for a bare model.
        artefact: the artefact.
        bare: how a bare model is loaded; ``None`` for a bundle's.
    """

    bundle: Path
    manifest: Optional[Manifest]
    artefact: Artefact
    bare: Optional[Bare] = None


@dataclass
class _Cell:
    """What is known of one subject so far."""

    subject: Subject
    missing: int
    results: List[Result] = field(default_factory=list)

    def has_failed(self) -> bool:
        return any(result.failure is not None for result in self.results)


def interleave(subjects: int, processes: int, seed: int) -> List[int]:
    """Return the order of all processes: in each round every subject once, in a random order.

    So a drift of the machine's speed meets all of them alike.
    """
    chance = random.Random(seed)
    order: List[int] = []
    for _ in range(processes):
        order += chance.sample(range(subjects), subjects)
    return order


def refuse_inside(out: Path, bundles: Sequence[Path]) -> None:
    """Refuse to write records into a bundle: files that its manifest does not list break its seal.

    Raises:
        InputError: ``out`` is one of the bundles, or lies in one.
    """
    place = out.resolve()
    for bundle in bundles:
        if bundle.resolve() in (place, *place.parents):
            raise InputError(
                f"--out {out}: lies in the bundle {bundle}, whose seal it would break",
                "choose another --out",
            )


def settings_from(asked: Any, *, accuracy: bool = True) -> Settings:
    """Return what a user asked for, with the scenario's own length where it is left open.

    Args:
        asked: the recipe's section, or what a command line says, under the same names.
        accuracy: whether all evaluation images are run too.

    Raises:
        InputError: options that do not go together.
    """
    bound = asked.latency_bound_ms
    settings = Settings(
        processes=asked.processes,
        seconds=SECONDS[asked.scenario] if asked.seconds is None else asked.seconds,
        samples=asked.samples,
        threads=asked.threads,
        seed=asked.seed,
        accuracy=accuracy,
        scenario=asked.scenario,
        streams=asked.streams,
        batch=asked.batch,
        bound_ns=None if bound is None else round(bound * 1e6),
        allow_clock_changes=asked.allow_clock_changes,
        power_mode=asked.power_mode or "",
    )
    check_settings(settings)
    return settings


def check_settings(settings: Settings) -> None:
    """Refuse options that do not go together.

    Raises:
        InputError: they do not.
    """
    scenario = settings.scenario
    if scenario == "server" and settings.bound_ns is None:
        raise InputError("scenario server needs a bound of latency", "give --latency-bound-ms")
    if scenario != "server" and settings.bound_ns is not None:
        raise InputError(
            f"scenario {scenario} has no bound of latency",
            "leave --latency-bound-ms out, or use --scenario server",
        )
    if scenario in ("single_stream", "sustained") and settings.streams > 1:
        raise InputError(
            f"scenario {scenario} has one stream", "use --scenario multi_stream or offline"
        )
    if scenario in ("multi_stream", "server") and settings.batch > 1:
        raise InputError(f"scenario {scenario} has one sample per call", "use --scenario offline")
    if scenario == "multi_stream" and settings.streams < 2:
        raise InputError("scenario multi_stream needs several streams", "give --streams 2 or more")
    if settings.power_mode and not settings.allow_clock_changes:
        raise InputError(
            f"power mode {settings.power_mode} would have to be set", "add --allow-clock-changes"
        )


def run_suite(
    subjects: Sequence[Subject], settings: Settings, execute: Callable[[Job], Result]
) -> Iterator[Tuple[Subject, Record]]:
    """Measure artefacts and yield each one's record as soon as its last process is done.

    An artefact that fails once is not tried again; the others go on.

    Args:
        subjects: what to measure, of one bundle or several.
        settings: how.
        execute: runs one job in a fresh process and returns its result; never raises for a job
            that failed.
    """
    cells = [_Cell(subject, settings.processes) for subject in subjects]
    # Tells which records were measured side by side, so that their processes can be paired.
    suite = os.urandom(8).hex()
    order = interleave(len(cells), settings.processes, settings.seed)
    for place, index in enumerate(order):
        cell = cells[index]
        if cell.has_failed():
            continue
        job = Job(
            schema=JOB_SCHEMA,
            bundle=str(cell.subject.bundle),
            artefact=cell.subject.artefact.name,
            order=place,
            accuracy=settings.accuracy and not cell.results,
            samples=settings.samples,
            seconds=settings.seconds,
            warmup_s=settings.warmup_s,
            threads=settings.threads,
            seed=settings.seed + place,
            scenario=settings.scenario,
            streams=settings.streams,
            batch=settings.batch,
            bound_ns=settings.bound_ns,
            bare=cell.subject.bare,
            allow_clock_changes=settings.allow_clock_changes,
            power_mode=settings.power_mode,
        )
        cell.results.append(execute(job))
        cell.missing -= 1
        if cell.has_failed() or not cell.missing:
            yield cell.subject, make_record(cell.subject, settings, cell.results, suite)


def make_record(
    subject: Subject, settings: Settings, results: Sequence[Result], suite: str
) -> Record:
    """Put the results of one artefact's processes together, and work out their figures."""
    failures = [f"{r.failure.what}; fix: {r.failure.fix}" for r in results if r.failure is not None]
    accuracy = next((r.accuracy for r in results if r.accuracy is not None), None)
    absent = _absent([r.absent for r in results if r.failure is None])
    if accuracy is None and "accuracy" not in absent:
        absent["accuracy"] = "the job failed" if settings.accuracy else "was not asked for"
    return analyse(
        Record(
            schema=SCHEMA,
            status="failed" if failures else "ok",
            reasons=tuple(failures),
            warnings=(),
            bundle=_bundle_facts(subject),
            artefact=describe(subject.artefact),
            profile=_profile_facts(subject),
            active=next((r.active for r in results if r.active), {}),
            device=results[0].device,
            settings={
                **encode(settings),
                "warmup_s": settings.warmup_s,
                "suite": suite,
                # Every process has just hashed the artefact's files, or the one before has read it.
                "page_cache": "warm",
            },
            latency={},
            stages={},
            accuracy=accuracy,
            power=None,
            absent=absent,
            processes=tuple(r.run for r in results if r.run is not None),
            lineage={} if subject.manifest is None else subject.manifest.lineage,
            created_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            data=_data_facts(subject),
        )
    )


def _absent(processes: Sequence[Dict[str, str]]) -> Dict[str, str]:
    """Return why figures are missing that no process has; the accuracy is asked of one alone."""
    return {
        key: reason
        for each in processes
        for key, reason in each.items()
        if key == "accuracy" or all(key in other for other in processes)
    }


def _bundle_facts(subject: Subject) -> Dict[str, Any]:
    manifest = subject.manifest
    if manifest is None:
        return {"name": subject.artefact.files[0].path, "model": None, "parameters": None}
    return {
        "name": manifest.name,
        "model": manifest.model,
        "parameters": manifest.parameters,
        "manifest_sha256": sha256_file(subject.bundle / MANIFEST),
    }


def _profile_facts(subject: Subject) -> Dict[str, Any]:
    if subject.manifest is None:
        return {}
    profile: Dict[str, Any] = encode(
        read_profile(subject.bundle, subject.manifest, subject.artefact)
    )
    return profile


def _data_facts(subject: Subject) -> Dict[str, Any]:
    """Return what says whether two records were measured on the same images."""
    manifest = subject.manifest
    if manifest is None or manifest.evaluation is None:
        return {}
    hashes = {entry.path: entry.sha256 for entry in manifest.files}
    chosen = manifest.evaluation
    return {
        "split": chosen.split,
        "n": chosen.n,
        "images_sha256": hashes[chosen.images],
        "labels_sha256": hashes[chosen.labels],
        "preprocess_sha256": fingerprint(encode(manifest.preprocess)),
    }


def describe(artefact: Artefact) -> Dict[str, Any]:
    """Return what a record says of an artefact; its size is that of all its files."""
    return {
        "name": artefact.name,
        "target": artefact.target,
        "backend": artefact.backend,
        "precision": artefact.precision,
        "scheme": artefact.scheme,
        "sha256": artefact.files[0].sha256 if artefact.files else None,
        "size_bytes": sum(entry.bytes for entry in artefact.files),
    }
