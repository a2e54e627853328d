"""Several artefacts measured side by side: the order of their processes, and their records.

Who starts a process is left to the caller: ``remote`` does it through a transport, the device's own
command line as a child. Nothing here imports numpy or a runtime.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from edgexfer.bench.job import SCHEMA as JOB_SCHEMA
from edgexfer.bench.job import Job, Result, read_profile
from edgexfer.core.bundle import MANIFEST, Artefact, Manifest
from edgexfer.core.codec import encode
from edgexfer.core.errors import InputError
from edgexfer.core.files import sha256_file
from edgexfer.core.pooled import pooled_quantiles
from edgexfer.core.profile import Limits
from edgexfer.core.record import SCHEMA, ProcessRun, Record
from edgexfer.core.stats import Quantile, median, samples_needed

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
WARMUP_FACTOR = 4.0
WARMUP_CAP_S = 60.0
SPREAD_LIMIT_PCT = 5.0


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
    """

    processes: int
    seconds: float
    samples: int
    threads: int
    seed: int
    accuracy: bool = True

    @property
    def warmup_s(self) -> float:
        """Most time that a process may take to reach its steady state, in seconds."""
        return min(WARMUP_CAP_S, WARMUP_FACTOR * self.seconds)


@dataclass(frozen=True)
class Subject:
    """One artefact that is to be measured.

    Attributes:
        bundle: the folder that it is in, on this machine.
        manifest: of that bundle.
        artefact: the artefact.
    """

    bundle: Path
    manifest: Manifest
    artefact: Artefact


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
        )
        cell.results.append(execute(job))
        cell.missing -= 1
        if cell.has_failed() or not cell.missing:
            yield cell.subject, make_record(cell.subject, settings, cell.results)


def make_record(subject: Subject, settings: Settings, results: Sequence[Result]) -> Record:
    """Put the results of one artefact's processes together."""
    bundle, manifest, artefact = subject.bundle, subject.manifest, subject.artefact
    runs = tuple(r.run for r in results if r.run is not None)
    first = results[0]
    accuracy = next((r.accuracy for r in results if r.accuracy is not None), None)
    status, reasons = judge(results)
    profile = read_profile(bundle, manifest, artefact)
    gpu = [run.gpu_ns for run in runs]
    latency = _quantiles([run.infer_ns for run in runs])
    described = describe(artefact)
    active = next((r.active for r in results if r.active), {})
    absent = {key: reason for result in results for key, reason in result.absent.items()}
    if accuracy is None and "accuracy" not in absent:
        absent["accuracy"] = "the job failed" if settings.accuracy else "was not asked for"
    return Record(
        schema=SCHEMA,
        status=status,
        reasons=reasons,
        warnings=(
            *_warnings(results, settings),
            *missed_limits(profile.limits, latency["p90"], described["size_bytes"]),
        ),
        bundle={
            "name": manifest.name,
            "model": manifest.model,
            "parameters": manifest.parameters,
            "manifest_sha256": sha256_file(bundle / MANIFEST),
        },
        artefact=described,
        profile=encode(profile),
        active=active,
        device=first.device,
        settings={
            "scenario": "single_stream",
            "batch": 1,
            **encode(settings),
            "warmup_s": settings.warmup_s,
            # Every process has just hashed the artefact's files.
            "page_cache": "warm",
        },
        latency=latency,
        stages={
            "pre": _quantiles([run.pre_ns for run in runs]),
            "post": _quantiles([run.post_ns for run in runs]),
            **({"gpu": _quantiles(gpu)} if any(gpu) else {}),
        },
        accuracy=accuracy,
        power=None,
        absent=absent,
        processes=runs,
        lineage=manifest.lineage,
        created_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


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


def judge(results: Sequence[Result]) -> Tuple[str, Tuple[str, ...]]:
    """Return the status of a record and the reasons for it, each with the count of processes."""
    failures = [f"{r.failure.what}; fix: {r.failure.fix}" for r in results if r.failure is not None]
    if failures:
        return "failed", tuple(failures)
    invalid = _counted([text for r in results for text in r.invalid], len(results))
    if invalid:
        return "invalid", invalid
    doubts = _counted([text for r in results for text in r.doubts], len(results))
    n = sum(len(r.run.infer_ns) for r in results if r.run is not None)
    if n < samples_needed(0.9):
        doubts += (f"{n} samples are too few to bound p90, which takes {samples_needed(0.9)}",)
    return ("partial", doubts) if doubts else ("ok", ())


def _counted(texts: Sequence[str], processes: int) -> Tuple[str, ...]:
    """Join reasons of one kind: the text of the first, and in how many processes it came up."""
    kinds: Dict[str, List[str]] = {}
    for text in texts:
        # Two reasons are of one kind when they differ in figures alone.
        kinds.setdefault("".join(c for c in text if not c.isdigit()), []).append(text)
    return tuple(
        same[0] if processes == 1 else f"{same[0]} (in {len(same)} of {processes} processes)"
        for same in kinds.values()
    )


def _warnings(results: Sequence[Result], settings: Settings) -> Tuple[str, ...]:
    found = list(dict.fromkeys(text for result in results for text in result.warnings))
    for name, value in sorted(results[0].device.get("environment", {}).items()):
        found.append(f"the environment sets {name}={value}")
    if settings.processes < 5:
        found.append(f"measured in {settings.processes} processes; publish from 5 upwards")
    spread = spread_pct([r.run for r in results if r.run is not None])
    if spread is not None and spread > SPREAD_LIMIT_PCT:
        found.append(f"medians of the processes differ by {spread:.0f} %")
    return tuple(found)


def missed_limits(limits: Limits, p90: Quantile, size_bytes: int) -> List[str]:
    """Say which limits of its profile an artefact misses, one line each.

    The limit of accuracy is not among them: only who has FP32 beside it can judge that.
    """
    found = []
    allowed_ms, allowed_bytes = limits.latency_p90_ms, limits.size_bytes
    if allowed_ms is not None and p90.value is not None and p90.value / 1e6 > allowed_ms:
        found.append(f"over the profile's limit: p90 {p90.value / 1e6:.3f} ms, not {allowed_ms:g}")
    if allowed_bytes is not None and size_bytes > allowed_bytes:
        found.append(f"over the profile's limit: {size_bytes} bytes, not {allowed_bytes}")
    return found


def spread_pct(runs: Sequence[ProcessRun]) -> Optional[float]:
    """Return by how much the largest median of a process exceeds the smallest, in percent."""
    medians = [median(run.infer_ns) for run in runs if run.infer_ns]
    return 100.0 * (max(medians) / min(medians) - 1.0) if len(medians) > 1 else None


def _quantiles(runs: Sequence[Sequence[int]]) -> Dict[str, Quantile]:
    return dict(zip(QUANTILES, pooled_quantiles(runs, list(QUANTILES.values()))))
