"""Record: one measurement of one artefact on one machine, with the raw samples it rests on.

Every figure of a record is a pure function of its raw part, ``processes`` (see ``samples.py``),
and can be made again from it. A value that could not be had is ``None`` with its reason in
``absent``; it is never 0. Times are integers in nanoseconds of a monotonic clock.

History of the schema:

- ``edgexfer.bench/1``, November 2026: one scenario, latencies and accuracy.
- ``edgexfer.bench/2``, November 2026: five scenarios, stages from the encoded image on, cold start
  in four parts, memory as PSS, sensors, energy, and when each query was issued. What a /1 lacks
  cannot be made up from it, so it is refused, not converted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from edgexfer.core.codec import decode, encode
from edgexfer.core.errors import EdgexferError, InputError
from edgexfer.core.files import PathLike, read_json, write_json
from edgexfer.core.samples import ProcessRun
from edgexfer.core.series import Change, Modes
from edgexfer.core.stats import Quantile

SCHEMA = "edgexfer.bench/2"
# What the file of a record begins with.
START = '{\n  "schema": "edgexfer.bench/'
DEFINITIONS = "metrics/2"
STATUSES = ("ok", "partial", "invalid", "failed")
# Facts of ``device`` that make a machine another one; load, clock and temperature do not.
MACHINE = ("machine", "cpu", "board", "usable_cores")
SCENARIOS = ("single_stream", "multi_stream", "offline", "server", "sustained")


@dataclass(frozen=True)
class TaskAccuracy:
    """Accuracy of one of several tasks, on the images that have a label of it.

    Attributes:
        name: of the task.
        n: images with a label.
        correct: those with the right top-1 class.
        top1_pct: the share of them, in percent; ``None`` where there are none.
        low_pct: lower end of the 95 % Wilson interval.
        high_pct: upper end of it.
        ece_pct: expected calibration error of the task's probabilities, in percent; ``None`` where
            there are none.
    """

    name: str
    n: int
    correct: int
    top1_pct: Optional[float]
    low_pct: float
    high_pct: float
    ece_pct: Optional[float] = None


@dataclass(frozen=True)
class Accuracy:
    """Accuracy of the artefact on the bundle's evaluation images.

    Attributes:
        split: which split they are from.
        n: images.
        correct: images with the right top-1 class; of several tasks, of each that has a label.
        top1_pct: the share of them, in percent.
        low_pct: lower end of the 95 % Wilson interval.
        high_pct: upper end of it.
        agreement_pct: share with the same class as the reference predictions; ``None`` without one.
        predictions: the top-1 class of each image, in the bundle's order; of several tasks a
            number that stands for all classes together.
        confidences: the probability that softmax gives that class, to four places; empty where a
            logit is not finite.
        tasks: the same for each of several tasks; empty for one.
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
    tasks: Tuple[TaskAccuracy, ...] = ()


@dataclass(frozen=True)
class Steadiness:
    """What the latencies say of themselves; see ``core/series.py``.

    Attributes:
        mean_ns: of all samples.
        mad_ns: their median absolute deviation from the median.
        rho1: lag-1 autocorrelation within the processes.
        n_eff: as how many independent samples they count.
        outliers: for each process, where in ``infer_ns`` samples lie more than 14.8 MAD off; they
            are in all figures.
        trend_p: for each process, the p-value of a monotone trend.
        drift_pct: for each process, the change over its length, in percent of its median.
        changes: for each process, where its level changes; ``None`` where that is not shown.
        modes: two levels at least 5 % apart; ``None`` where there is one.
        spread_pct: by how much the largest median of a process exceeds the smallest; ``None`` of
            one process.
    """

    mean_ns: float
    mad_ns: float
    rho1: float
    n_eff: int
    outliers: Tuple[Tuple[int, ...], ...]
    trend_p: Tuple[float, ...]
    drift_pct: Tuple[float, ...]
    changes: Tuple[Optional[Change], ...]
    modes: Optional[Modes]
    spread_pct: Optional[float]


@dataclass(frozen=True)
class Throughput:
    """Samples per second, all issued up front (``offline``).

    Attributes:
        per_s: median of the processes' rates, each samples / (last completion - first issue).
        each_per_s: the rates themselves, in the order of ``processes``.
        samples: in all processes.
        seconds: likewise.
        batch: samples per call.
        streams: calls at a time.
    """

    per_s: float
    each_per_s: Tuple[float, ...]
    samples: int
    seconds: float
    batch: int
    streams: int


@dataclass(frozen=True)
class Server:
    """The largest rate of Poisson arrivals that keeps a bound of latency (``server``).

    Attributes:
        per_s: median of the processes' rates; a process's is (n - 1) / T of the fastest trial in
            which the 99 % upper bound of p99 kept to the bound. ``None`` where none did.
        each_per_s: the rates themselves, in the order of ``processes``.
        bound_ns: the bound.
        p99: of that trial, of the process whose rate is ``per_s``.
        tolerance_pct: how near to the true limit the bisection went.
    """

    per_s: Optional[float]
    each_per_s: Tuple[Optional[float], ...]
    bound_ns: int
    p99: Optional[Quantile]
    tolerance_pct: float


@dataclass(frozen=True)
class Sustained:
    """How much slower a machine is after ten minutes (``sustained``).

    Attributes:
        ratio: ``last_ns`` / ``first_ns``; above 1 where it slowed down.
        first_ns: median latency of the first minute, or of the first tenth of a shorter run.
        last_ns: median latency of the last fifth.
        seconds: length of the run.
        minutes_ns: median latency of each minute, or of each tenth of a shorter run.
    """

    ratio: float
    first_ns: float
    last_ns: float
    seconds: float
    minutes_ns: Tuple[float, ...]


@dataclass(frozen=True)
class Energy:
    """Energy per inference of one sample from a named sensor, measured with the latencies.

    Attributes:
        gross_mj: energy of the measured part / inferences.
        net_mj: the same less what the machine draws when idle.
        idle_mw: that draw, the mean before and after.
        sensor: its kind, such as ``rapl``, ``ina3221`` or ``nvml``.
        rail: what it measures, such as ``VDD_IN`` or ``package-0``.
        period_ms: how often it was read.
        resolution_mw: its smallest step.
        u95_pct: half the 95 % interval of ``net_mj``, in percent of it; ``None`` where unknown.
        window_s: length of the measured part.
        updates: how often the sensor's value changed in it.
        inferences: how many samples fell in it; a call of a batch is several.
    """

    gross_mj: float
    net_mj: float
    idle_mw: float
    sensor: str
    rail: str
    period_ms: float
    resolution_mw: float
    u95_pct: Optional[float]
    window_s: float
    updates: int
    inferences: int


@dataclass(frozen=True)
class Record:
    """One measurement.

    Attributes:
        schema: ``edgexfer.bench/2``.
        status: ``ok``, ``partial`` (usable with care), ``invalid`` or ``failed``.
        reasons: why it is not ``ok``.
        warnings: what else the reader should know.
        bundle: name, model, parameters and manifest_sha256 of the bundle.
        artefact: name, target, backend, precision, sha256 and size_bytes of the artefact.
        profile: the profile as it was.
        active: what the runtime said of itself: provider, precision, versions.
        device: facts of the machine.
        settings: scenario, batch, streams, threads, processes, seconds, bound of latency, page
            cache, the order's seed, and ``suite``, alike where processes were interleaved.
        latency: percentiles by name (``p50 p90 p95 p99``) of ``infer_ns`` pooled over processes.
        stages: percentiles of ``decode_ns``, ``resize_ns``, ``pre_ns``, ``post_ns`` and ``e2e_ns``
            likewise, under their names without ``_ns``, and of ``gpu_ns`` where there is one.
        accuracy: see there; ``None`` with a reason in ``absent``.
        power: see there; ``None`` with a reason in ``absent``.
        absent: for each figure that could not be had, why.
        processes: the raw samples.
        lineage: of the bundle.
        created_utc: ISO 8601.
        definitions: which meaning the figures have, ``metrics/2``.
        data: of the evaluation images ``split``, ``n``, ``images_sha256``, ``labels_sha256`` and
            ``preprocess_sha256``; empty where there are none.
        throughput: of ``offline``; else ``None`` with a reason in ``absent``.
        server: of ``server``; likewise.
        sustained: of ``sustained``; likewise.
        cold_start: median over the processes of each part of ``ColdStart``, in nanoseconds, under
            its name; a part that is not known is left out.
        memory: ``host_bytes``, the most over the processes of peak less before, and
            ``device_bytes``; one that is not known is left out.
        overhead: percentiles of ``overhead_ns``.
        steadiness: of ``infer_ns``; ``None`` where there is none.
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
    power: Optional[Energy]
    absent: Dict[str, str]
    processes: Tuple[ProcessRun, ...] = ()
    lineage: Dict[str, Any] = field(default_factory=dict)
    created_utc: str = ""
    definitions: str = DEFINITIONS
    data: Dict[str, Any] = field(default_factory=dict)
    throughput: Optional[Throughput] = None
    server: Optional[Server] = None
    sustained: Optional[Sustained] = None
    cold_start: Dict[str, float] = field(default_factory=dict)
    memory: Dict[str, int] = field(default_factory=dict)
    overhead: Dict[str, Quantile] = field(default_factory=dict)
    steadiness: Optional[Steadiness] = None


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
