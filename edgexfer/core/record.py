"""Record: one measurement of one artefact on one machine, with the raw samples it rests on.

History of the schema: ``edgexfer.bench/1``, November 2026, the first.

A value that could not be had is ``None`` with its reason in ``absent``; it is never 0. Times are
integers in nanoseconds of a monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from edgexfer.core.codec import decode, encode
from edgexfer.core.errors import EdgexferError, InputError
from edgexfer.core.files import PathLike, read_json, write_json
from edgexfer.core.stats import Quantile

SCHEMA = "edgexfer.bench/1"
STATUSES = ("ok", "partial", "invalid", "failed")


@dataclass(frozen=True)
class ColdStart:
    """Parts of the time from the start of the interpreter to the first output, in nanoseconds.

    Attributes:
        import_ns: importing numpy and the runtime.
        load_ns: reading and compiling the artefact.
        first_ns: the first inference.
    """

    import_ns: int
    load_ns: int
    first_ns: int


@dataclass(frozen=True)
class ProcessRun:
    """What one fresh process measured.

    Attributes:
        order: its place in the interleaved order of all processes of the benchmark.
        warmup_ns: latencies before the steady state, kept.
        warmup_converged: whether a steady state was reached.
        infer_ns: latencies, host input ready to host output readable, in their order.
        pre_ns: normalising one uint8 image.
        post_ns: turning logits into a label.
        cold_start: see there.
        peak_rss_bytes: most memory that the process had resident until its first inference had
            ended, before the harness loaded its images; ``None`` where unknown.
        rss_before_load_bytes: resident before the artefact was loaded; likewise.
        gpu_ns: the device's own time of some further runs, copies included, by its own events;
            empty where the runtime cannot tell.
        noise: what else happened on the machine meanwhile: ``foreign_pct`` and ``steal_pct`` of its
            CPU time, a fixed piece of arithmetic timed before and after, involuntary switches.
    """

    order: int
    warmup_ns: Tuple[int, ...]
    warmup_converged: bool
    infer_ns: Tuple[int, ...]
    pre_ns: Tuple[int, ...]
    post_ns: Tuple[int, ...]
    cold_start: ColdStart
    peak_rss_bytes: Optional[int]
    rss_before_load_bytes: Optional[int]
    noise: Dict[str, Any] = field(default_factory=dict)
    gpu_ns: Tuple[int, ...] = ()


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of the artefact on the bundle's evaluation images.

    Attributes:
        split: which split they are from.
        n: images.
        correct: images with the right top-1 class.
        top1_pct: the share of them, in percent.
        low_pct: lower end of the 95 % Wilson interval.
        high_pct: upper end of it.
        agreement_pct: share with the same class as the reference predictions; ``None`` without one.
        predictions: the top-1 class of each image, in the bundle's order.
        confidences: the probability that softmax gives that class, to four places; empty where a
            logit is not finite.
    """

    split: str
    n: int
    correct: int
    top1_pct: float
    low_pct: float
    high_pct: float
    agreement_pct: Optional[float]
    predictions: Tuple[int, ...]
    confidences: Tuple[float, ...] = ()


@dataclass(frozen=True)
class Record:
    """One measurement.

    Attributes:
        schema: ``edgexfer.bench/1``.
        status: ``ok``, ``partial`` (usable with care), ``invalid`` or ``failed``.
        reasons: why it is not ``ok``.
        warnings: what else the reader should know.
        bundle: name, model, parameters and manifest_sha256 of the bundle.
        artefact: name, target, backend, precision, sha256 and size_bytes of the artefact.
        profile: the profile as it was.
        active: what the runtime said of itself: provider, precision, versions.
        device: facts of the machine.
        settings: scenario, batch, threads, processes, seconds, and the order's seed.
        latency: percentiles by name (``p50 p90 p95 p99``) of ``infer_ns`` pooled over processes.
        stages: percentiles of ``pre_ns`` and ``post_ns`` likewise, and of ``gpu_ns`` where there is
            one.
        accuracy: see there; ``None`` with a reason in ``absent``.
        power: energy figures; ``None`` with a reason in ``absent``.
        absent: for each figure that could not be had, why.
        processes: the raw samples.
        created_utc: ISO 8601.
    """

    schema: str
    status: str
    reasons: Tuple[str, ...]
    warnings: Tuple[str, ...]
    bundle: Dict[str, Any]
    artefact: Dict[str, Any]
    profile: Dict[str, Any]
    active: Dict[str, Any]
    device: Dict[str, Any]
    settings: Dict[str, Any]
    latency: Dict[str, Quantile]
    stages: Dict[str, Dict[str, Quantile]]
    accuracy: Optional[Accuracy]
    power: Optional[Dict[str, Any]]
    absent: Dict[str, str]
    processes: Tuple[ProcessRun, ...] = ()
    lineage: Dict[str, Any] = field(default_factory=dict)
    created_utc: str = ""


def write_record(path: PathLike, record: Record) -> None:
    """Write a record as JSON, atomically."""
    write_json(path, encode(record))


def read_record(path: PathLike) -> Record:
    """Read a record.

    Raises:
        InputError: it is damaged, or of another schema.
    """
    place = Path(path)
    value = read_json(place)
    schema = value.get("schema") if isinstance(value, dict) else None
    if schema != SCHEMA:
        raise InputError(f"{place}: schema is {schema!r}, expected {SCHEMA!r}", "bench it again")
    try:
        return decode(Record, value, str(place))
    except EdgexferError as error:
        raise InputError(error.what, "bench it again") from error
