"""Every figure of a record, and its status, as a pure function of the record's raw part.

``analyse`` is what a benchmark ends with, and what ``edgexfer bench --reanalyse`` does again: the
same raw samples give the same record, to the bit. What makes single samples doubtful is found in
``core/series.py`` and ``steady.py``; what follows from it for a record is decided here.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from edgexfer.bench.caching import cached_pct
from edgexfer.bench.power import Part, energy
from edgexfer.bench.scenarios import TOLERANCE, keeps, undecided
from edgexfer.bench.sensors import throttling
from edgexfer.bench.steady import clock_faults, complaints
from edgexfer.core.codec import encode
from edgexfer.core.pooled import pooled_quantile, pooled_quantiles
from edgexfer.core.record import Energy, Record, Server, Steadiness, Sustained, Throughput
from edgexfer.core.samples import ProcessRun
from edgexfer.core.series import (
    Change,
    change_point,
    correlation,
    drift,
    outliers,
    trend_p,
    two_modes,
)
from edgexfer.core.stats import Quantile, mad, median, samples_needed

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
STAGES = ("decode", "resize", "pre", "post", "e2e", "gpu")
SPREAD_LIMIT_PCT = 5.0
CHANGE_LIMIT = 0.05
DRIFT_LIMIT = 0.05
DRIFT_P = 0.01
_MINUTE_NS = 60_000_000_000
_LEAST_PROCESSES = 5
_BURST_LEAST, _BURST_SHARE = 5, 0.3


def analyse(record: Record) -> Record:
    """Return a record with every figure, its status and its reasons made from its raw part.

    The raw part is ``processes``, ``settings``, ``device``, ``artefact``, ``profile``, what the
    jobs put into ``absent``, and whether a job failed. The accuracy is raw too: its labels are not
    in the record.
    """
    runs = record.processes
    power, why_not = _power(record)
    figures = {
        "latency": _quantiles([run.infer_ns for run in runs]),
        "stages": _stages(runs),
        "overhead": _quantiles([run.overhead_ns for run in runs]),
        "cold_start": _cold_start(runs),
        "memory": _memory(runs),
        "steadiness": _steadiness(runs),
        "throughput": _throughput(runs, record.settings),
        "server": _server(runs, record.settings),
        "sustained": _sustained(runs, record.settings),
        "power": power,
    }
    absent = {**record.absent, **_absent(record, figures, why_not)}
    done = replace(record, **figures, absent=absent)  # type: ignore[arg-type]
    status, reasons = judge(done)
    return replace(done, status=status, reasons=reasons, warnings=_warnings(done))


def differing(stored: Record, rebuilt: Record) -> List[str]:
    """Name what differs between a record and what ``analyse`` made of it, such as ``latency.p90``.

    Args:
        stored: as it was read.
        rebuilt: what its raw part gives.
    """
    one, other = encode(stored), encode(rebuilt)
    found = []
    for name in other:
        parts = (one[name], other[name])
        if parts[0] == parts[1]:
            continue
        if all(isinstance(part, dict) for part in parts):
            keys = dict.fromkeys([*parts[0], *parts[1]])
            found += [f"{name}.{k}" for k in keys if parts[0].get(k) != parts[1].get(k)]
        else:
            found.append(name)
    return found


def judge(record: Record) -> Tuple[str, Tuple[str, ...]]:
    """Return the status of a record and the reasons for it, each with the count of processes.

    A record of a failed job keeps its reasons. The sustained scenario is for machines that slow
    down: there, neither throttling nor a change of level makes it invalid.
    """
    if record.status == "failed":
        return record.status, record.reasons
    runs = record.processes
    if "latency" in record.absent:
        return "invalid", (record.absent["latency"].partition(";")[0],)
    invalid = [text for run in runs for text in (*run.faults, *clock_faults(run))]
    doubts = [text for run in runs for text in _doubts(run, record.settings)]
    cached = cached_pct([(run.rotated_ns, run.repeated_ns) for run in runs])
    whole = [f"caching: one input again and again is {cached:.0f} % faster"] if cached else []
    slowed = [text for run in runs for text in _throttled(run)]
    moved = _nonstationary(record)
    if record.settings.get("scenario") != "sustained":
        invalid += slowed + moved
    if invalid or whole:
        return "invalid", (*_counted(invalid, len(runs)), *whole)
    found = (*_counted(doubts, len(runs)), *_doubts_of_all(record))
    return ("partial", found) if found else ("ok", ())


def _doubts(run: ProcessRun, settings: Dict[str, Any]) -> List[str]:
    """Say what makes one process's latencies doubtful, one line each."""
    found = []
    if not run.warmup_converged:
        found.append(f"no steady state within {settings['warmup_s']:g} s of warm-up")
    found += complaints(run)
    if run.sensors is not None:
        found += throttling(run.sensors, _measured_ns(run)).doubts
    return found


def _throttled(run: ProcessRun) -> List[str]:
    if run.sensors is None:
        return []
    words = throttling(run.sensors, _measured_ns(run)).throttled
    return [f"throttled: {word}" for word in words]


def _nonstationary(record: Record) -> List[str]:
    """Say in which processes the level of the latencies, or of a bulk's pace, moved by over 5 %."""
    found: List[str] = []
    for step, change, slope, p in _courses(record):
        if change is not None and abs(change.relative) > CHANGE_LIMIT:
            found.append(
                f"nonstationary: the level changes by {100 * change.relative:+.0f} % "
                f"at sample {step * change.index}"
            )
        elif abs(slope) > 100 * DRIFT_LIMIT and p < DRIFT_P:
            found.append(f"nonstationary: latencies drift by {slope:+.0f} %")
    return found


def _courses(record: Record) -> Iterator[Tuple[int, Optional[Change], float, float]]:
    """Yield samples per step, change of level, drift in percent and p of its trend, by process."""
    steady = record.steadiness
    if steady is not None:
        yield from zip(itertools.repeat(1), steady.changes, steady.drift_pct, steady.trend_p)
    for bulk in (run.bulk for run in record.processes if run.bulk is not None):
        lanes = record.settings["streams"]  # whose batches end about together
        whole = bulk.marks_ns[: bulk.samples // bulk.every]
        ends = (0, *whole[lanes - 1 :: lanes])
        paces = [end - start for start, end in zip(ends, ends[1:])]
        yield lanes * bulk.every, change_point(paces), 100 * drift(paces), trend_p(paces)


def _doubts_of_all(record: Record) -> Tuple[str, ...]:
    """Say what the samples of all processes together leave in doubt."""
    found = []
    steady, p90 = record.steadiness, record.latency["p90"]
    if steady is not None and steady.modes is not None:
        modes = steady.modes
        found.append(
            f"two modes: {modes.low / 1e6:.3f} ms and {modes.high / 1e6:.3f} ms, "
            f"{100 * modes.high_share:.0f} % in the higher"
        )
    if steady is not None and p90.n < samples_needed(0.9):
        found.append(f"{p90.n} samples are too few to bound p90, which takes {samples_needed(0.9)}")
    elif steady is not None and p90.upper99 is None:
        found.append(f"p90 has no bound: {p90.reason}")
    if steady is not None:
        found += _bursts(steady, p90.n)
    medians = [median(run.infer_ns) for run in record.processes if run.infer_ns]
    moved = drift(medians)
    # Of five processes all in rising or falling order, by chance one case in sixty.
    if len(medians) >= _LEAST_PROCESSES and trend_p(medians) < 0.05 and abs(moved) > DRIFT_LIMIT:
        found.append(f"drift from process to process by {100 * moved:+.0f} %")
    return tuple(found)


def _bursts(steady: Steadiness, n: int) -> List[str]:
    """Say that samples far off come in runs: something else ran, and its share is not known."""
    places = steady.outliers
    count = sum(map(len, places))
    in_runs = sum(b - a == 1 for each in places for a, b in zip(each, each[1:]))
    if count < _BURST_LEAST or in_runs < _BURST_SHARE * count:
        return []
    return [f"bursts: {100 * count / n:.1f} % of the samples lie far off, {in_runs} in a row"]


def _counted(texts: Sequence[str], processes: int) -> Tuple[str, ...]:
    """Join reasons of one kind: the text of the first, and in how many processes it came up."""
    kinds: Dict[str, List[str]] = {}
    for text in texts:
        # Two reasons are of one kind when they differ in figures alone.
        kinds.setdefault("".join(c for c in text if c not in "0123456789+-"), []).append(text)
    return tuple(
        same[0] if processes == 1 else f"{same[0]} (in {len(same)} of {processes} processes)"
        for same in kinds.values()
    )


def _warnings(record: Record) -> Tuple[str, ...]:
    """Return what the processes noted, and what else the reader should know."""
    found = [text for run in record.processes for text in run.notes]
    for name, value in sorted(record.device.get("environment", {}).items()):
        found.append(f"the environment sets {name}={value}")
    asked = record.settings["processes"]
    if asked < _LEAST_PROCESSES:
        found.append(f"measured in {asked} processes; publish from {_LEAST_PROCESSES} upwards")
    steady = record.steadiness
    if steady is not None and (steady.spread_pct or 0) > SPREAD_LIMIT_PCT:
        found.append(f"medians of the processes differ by {steady.spread_pct:.0f} %")
    needed = [
        undecided(r.trials, record.settings["bound_ns"]) for r in record.processes if r.trials
    ]
    if any(needed):
        most = max(count or 0 for count in needed)
        found.append(f"more may be served than was shown: it takes about --samples {most}")
    found += missed_limits(record)
    return tuple(dict.fromkeys(found))


def missed_limits(record: Record) -> List[str]:
    """Say which limits of its profile an artefact misses, one line each.

    The limit of accuracy is not among them: only who has FP32 beside it can judge that.
    """
    found = []
    limits = record.profile.get("limits") or {}
    allowed_ms, allowed_bytes = limits.get("latency_p90_ms"), limits.get("size_bytes")
    p90, size = record.latency["p90"].value, record.artefact["size_bytes"]
    if allowed_ms is not None and p90 is not None and p90 / 1e6 > allowed_ms:
        found.append(f"over the profile's limit: p90 {p90 / 1e6:.3f} ms, not {allowed_ms:g}")
    if allowed_bytes is not None and size > allowed_bytes:
        found.append(f"over the profile's limit: {size} bytes, not {allowed_bytes}")
    return found


def _quantiles(runs: Sequence[Sequence[int]]) -> Dict[str, Quantile]:
    return dict(zip(QUANTILES, pooled_quantiles(runs, list(QUANTILES.values()))))


def _stages(runs: Sequence[ProcessRun]) -> Dict[str, Dict[str, Quantile]]:
    samples = {name: [getattr(run, f"{name}_ns") for run in runs] for name in STAGES}
    return {name: _quantiles(each) for name, each in samples.items() if any(each)}


def _steadiness(runs: Sequence[ProcessRun]) -> Optional[Steadiness]:
    timed = [run.infer_ns for run in runs]
    pooled = [sample for each in timed for sample in each]
    if not pooled:
        return None
    rho, share = correlation(timed)
    modes = two_modes(pooled)
    medians = [median(each) for each in timed if each]
    return Steadiness(
        mean_ns=sum(pooled) / len(pooled),
        mad_ns=mad(pooled),
        rho1=rho,
        n_eff=int(len(pooled) * share),
        outliers=tuple(tuple(outliers(each)) for each in timed),
        trend_p=tuple(trend_p(each) for each in timed),
        drift_pct=tuple(100 * drift(each) for each in timed),
        changes=tuple(change_point(each) for each in timed),
        modes=modes if modes is not None and modes.high > (1 + CHANGE_LIMIT) * modes.low else None,
        spread_pct=_spread(medians) if len(medians) > 1 else None,
    )


def _spread(medians: Sequence[float]) -> float:
    """Return by how much the largest median of a process exceeds the smallest, in percent."""
    return 100.0 * (max(medians) / min(medians) - 1.0) if min(medians) > 0 else 0.0


def _cold_start(runs: Sequence[ProcessRun]) -> Dict[str, float]:
    names = ("startup", "import", "deserialise", "compile", "load", "first", "total")
    parts = {f"{n}_ns": [getattr(run.cold_start, f"{n}_ns") for run in runs] for n in names}
    known = {name: [part for part in each if part is not None] for name, each in parts.items()}
    return {name: median(each) for name, each in known.items() if each}


def _memory(runs: Sequence[ProcessRun]) -> Dict[str, int]:
    host = [
        run.peak_pss_bytes - run.pss_before_load_bytes
        for run in runs
        if run.peak_pss_bytes is not None and run.pss_before_load_bytes is not None
    ]
    device = [run.device_bytes for run in runs if run.device_bytes is not None]
    found = {"host_bytes": host, "device_bytes": device}
    return {name: max(each) for name, each in found.items() if each}


def _throughput(runs: Sequence[ProcessRun], settings: Dict[str, Any]) -> Optional[Throughput]:
    bulks = [run.bulk for run in runs if run.bulk is not None]
    if not bulks:
        return None
    seconds = [bulk.marks_ns[-1] / 1e9 for bulk in bulks]
    rates = tuple(bulk.samples / spent for bulk, spent in zip(bulks, seconds))
    return Throughput(
        per_s=median(rates),
        each_per_s=rates,
        samples=sum(bulk.samples for bulk in bulks),
        seconds=sum(seconds),
        batch=settings["batch"],
        streams=settings["streams"],
    )


def _server(runs: Sequence[ProcessRun], settings: Dict[str, Any]) -> Optional[Server]:
    tried = [run for run in runs if run.trials]
    if not tried:
        return None
    bound_ns = settings["bound_ns"]
    best = []
    for run in tried:
        kept = [trial for trial in run.trials if keeps(trial, bound_ns)]
        best.append(max(kept, key=lambda trial: trial.rate_per_s) if kept else None)
    rates = [
        None
        if t is None
        else 1e9 * (len(t.arrivals_ns) - 1) / (t.arrivals_ns[-1] - t.arrivals_ns[0])
        for t in best
    ]
    known = [rate for rate in rates if rate is not None]
    per_s = median(known) if len(known) == len(rates) else None
    shown = best[rates.index(per_s)] if per_s is not None else None
    return Server(
        per_s=per_s,
        each_per_s=tuple(rates),
        bound_ns=bound_ns,
        p99=None if shown is None else pooled_quantile([shown.latency_ns], 0.99),
        tolerance_pct=100 * TOLERANCE,
    )


def _sustained(runs: Sequence[ProcessRun], settings: Dict[str, Any]) -> Optional[Sustained]:
    if settings.get("scenario") != "sustained":
        return None
    pairs = [pair for run in runs for pair in zip(run.issued_ns, run.infer_ns)]
    if not pairs:
        return None
    end = max(issued + spent for issued, spent in pairs)
    step = _MINUTE_NS if end >= 10 * _MINUTE_NS else end // 10 + 1
    minutes: List[List[int]] = [[] for _ in range(end // step + 1)]
    for issued, spent in pairs:
        minutes[issued // step].append(spent)
    levels = [median(minute) for minute in minutes if minute]
    last = median([spent for issued, spent in pairs if issued >= 0.8 * end] or minutes[0])
    return Sustained(last / levels[0], levels[0], last, end / 1e9, tuple(levels))


def _measured_ns(run: ProcessRun) -> Optional[int]:
    """Return how long the measured part of a process took."""
    if run.bulk is not None:
        return run.bulk.marks_ns[-1]
    if run.issued_ns and run.infer_ns:
        return run.issued_ns[-1] + run.infer_ns[-1]
    return None


def _power(record: Record) -> Tuple[Optional[Energy], str]:
    parts = []
    for run in record.processes:
        measured = _measured_ns(run)
        if run.sensors is None or measured is None:
            continue
        calls = len(run.infer_ns) * run.kept_every
        images = run.bulk.samples if run.bulk is not None else calls * record.settings["batch"]
        parts.append(Part(run.sensors, measured, images))
    prefer = "nvml" if record.artefact.get("backend") == "tensorrt" else ""
    return energy(parts, prefer) if parts else (None, "no sensor was read")


def _absent(record: Record, figures: Dict[str, Any], why_no_power: str) -> Dict[str, str]:
    """Say why each figure that a scenario or a machine does not give is missing."""
    scenario = record.settings.get("scenario")
    owner = {"throughput": "offline", "server": "server", "sustained": "sustained"}
    found = {
        name: "the job failed" if scenario == of else f"the scenario is {scenario}"
        for name, of in owner.items()
        if figures[name] is None
    }
    server = figures["server"]
    if server is not None and server.per_s is None:
        lost, asked = server.each_per_s.count(None), len(server.each_per_s)
        found["server"] = f"no rate was shown to keep the bound, in {lost} of {asked} processes"
    if figures["power"] is None:
        found["power"] = record.absent.get("power", why_no_power)
    return found
