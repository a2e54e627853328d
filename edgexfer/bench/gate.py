"""Gates of a benchmark: limits that figures must be shown to keep, and their JUnit file.

A gate is passed by what is shown, not by what happened to be measured: of a percentile the 99 %
upper bound must keep the limit, of a loss of accuracy the end of its 95 % interval. A figure that
is missing passes no gate; nor does one that depends on time, of a record that is not ``ok``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple
from xml.etree import ElementTree

from edgexfer.bench.analyse import QUANTILES, STAGES, missed_limits
from edgexfer.bench.verdict import Row, has_right_outputs, same_images, top1_drop
from edgexfer.core.errors import InputError, nearest
from edgexfer.core.files import write_atomic
from edgexfer.core.record import Record
from edgexfer.core.stats import Z95_TWO_SIDED, Quantile

PROFILE = "profile"
DROP = "top1_drop_pt"
# What a JUnit file begins with.
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
JUNIT = f"{_XML}<testsuites "
_TERM = re.compile(r"([a-z0-9_]+)\s*(<=|>=|<|>)\s*(-?[0-9]+(?:\.[0-9]+)?)")
_HOLDS: Dict[str, Callable[[float, float], bool]] = {
    "<": lambda figure, limit: figure < limit,
    "<=": lambda figure, limit: figure <= limit,
    ">": lambda figure, limit: figure > limit,
    ">=": lambda figure, limit: figure >= limit,
}
_PERCENTILE = re.compile(f"(latency|{'|'.join(STAGES)})_({'|'.join(QUANTILES)})_ms")
_PLAIN: Dict[str, Callable[[Record], Optional[float]]] = {
    "top1_pct": lambda r: r.accuracy.top1_pct if r.accuracy else None,
    "size_bytes": lambda r: r.artefact.get("size_bytes"),
    "memory_host_bytes": lambda r: r.memory.get("host_bytes"),
    "memory_device_bytes": lambda r: r.memory.get("device_bytes"),
    "cold_start_ms": lambda r: (
        r.cold_start["total_ns"] / 1e6 if "total_ns" in r.cold_start else None
    ),
    "throughput_per_s": lambda r: r.throughput.per_s if r.throughput else None,
    "server_per_s": lambda r: r.server.per_s if r.server else None,
    "sustained_ratio": lambda r: r.sustained.ratio if r.sustained else None,
    "energy_net_mj": lambda r: r.power.net_mj if r.power else None,
    "energy_gross_mj": lambda r: r.power.gross_mj if r.power else None,
}
# What a busy machine cannot change.
_TIMELESS = ("top1_pct", "size_bytes", DROP)
# Under which name a record says why a figure is absent, where it is not the figure's own.
_ABSENT = {
    "top1": "accuracy",
    "memory_host": "peak_pss_bytes",
    "memory_device": "device_bytes",
    "throughput_per": "throughput",
    "server_per": "server",
    "energy_net": "power",
    "energy_gross": "power",
}
_RELATIVE = (DROP, *(f"latency_{name}_change_pct" for name in QUANTILES))
FIGURES = (
    *(f"{of}_{name}_ms" for of in ("latency", *STAGES) for name in QUANTILES),
    *_PLAIN,
    *_RELATIVE,
    PROFILE,
)
# What XML 1.0 cannot hold, escaped or not.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Gate:
    """One limit.

    Attributes:
        text: as it was written.
        figure: name of the figure, or ``profile`` for the limits of the record's own profile.
        sign: ``<``, ``<=``, ``>`` or ``>=``; empty for ``profile``.
        limit: in the unit that ends the figure's name.
    """

    text: str
    figure: str
    sign: str = ""
    limit: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What became of one gate for one record.

    Attributes:
        subject: name of the artefact.
        gate: the gate, as it was written.
        passed: whether the limit was shown to be kept.
        detail: the figure, or why it cannot pass.
    """

    subject: str
    gate: str
    passed: bool
    detail: str


def parse_gates(text: str) -> Tuple[Gate, ...]:
    """Read ``latency_p90_ms<8,top1_drop_pt<0.5``.

    Raises:
        InputError: a part is no gate, or names an unknown figure.
    """
    return tuple(_parse(part.strip()) for part in text.split(","))


def _parse(part: str) -> Gate:
    if part == PROFILE:
        return Gate(part, part)
    match = _TERM.fullmatch(part)
    if match is None:
        raise InputError(f"--gate: {part!r} is not a limit", "write it like latency_p90_ms<8")
    figure, sign, limit = match.groups()
    if figure not in FIGURES:
        raise InputError(f"--gate: there is no figure {figure!r}", nearest(figure, FIGURES))
    return Gate(part, figure, sign, float(limit))


def judge_records(records: Sequence[Record], gates: Sequence[Gate]) -> List[Outcome]:
    """Hold each record against each gate; a loss of accuracy is that against the bundle's FP32."""
    return [
        _judge(record, gate, {DROP: _drop_from_fp32(record, records)})
        for record in records
        for gate in gates
    ]


def judge_pair(
    first: Record, second: Record, rows: Sequence[Row], gates: Sequence[Gate]
) -> List[Outcome]:
    """Hold the second record against each gate; a loss or a change is that against the first.

    Args:
        first: the yardstick.
        second: what is judged.
        rows: of their comparison.
        gates: the limits.
    """
    doubt = _doubt(first)
    relative = {
        f"{row.metric}_change_pct": (None, doubt) if doubt else _change(row) for row in rows
    }
    relative[DROP] = _drop(first, second)
    return [_judge(second, gate, relative) for gate in gates]


Shown = Tuple[Optional[float], str]
"""The figure at its worst, as far as is shown, and in words; or ``None`` and why it is missing."""


def _judge(record: Record, gate: Gate, relative: Mapping[str, Shown]) -> Outcome:
    subject = str(record.artefact.get("name"))
    doubt = _doubt(record, timeless=_is_timeless(record, gate))
    if gate.figure == PROFILE:
        missed = [doubt] if doubt else _missed_profile(record)
        return Outcome(subject, gate.text, not missed, "; ".join(missed) or "within its limits")
    if gate.figure in _RELATIVE:
        worst, words = relative.get(gate.figure, (None, "it takes two records to compare"))
    else:
        worst, words = _figure(record, gate)
    if doubt:
        detail = doubt if worst is None else f"{words}, but {doubt}"
        return Outcome(subject, gate.text, passed=False, detail=detail)
    if worst is None:
        return Outcome(subject, gate.text, passed=False, detail=words)
    return Outcome(subject, gate.text, _HOLDS[gate.sign](worst, gate.limit), words)


def _is_timeless(record: Record, gate: Gate) -> bool:
    if gate.figure == PROFILE:
        return "latency_p90_ms" not in (record.profile.get("limits") or {})
    return gate.figure in _TIMELESS


def _doubt(record: Record, *, timeless: bool = False) -> str:
    """Say why figures of a record pass no gate; empty where they may."""
    if record.status == "ok" or (timeless and has_right_outputs(record)):
        return ""
    reasons = "; ".join(record.reasons)
    return f"the record of {record.artefact.get('name')} is {record.status}: {reasons}"


def _missed_profile(record: Record) -> List[str]:
    """Say which limits of its profile a record is not shown to keep."""
    limits, p90 = record.profile.get("limits") or {}, record.latency["p90"]
    allowed_ms = limits.get("latency_p90_ms")
    if allowed_ms is None and limits.get("size_bytes") is None:
        return ["the profile sets no limit of latency or size"]
    missed = missed_limits(record)
    if allowed_ms is not None and not missed:
        upper, words = _percentile(p90, "<")
        if upper is None or upper > allowed_ms:
            return [f"p90 is not shown to be within {allowed_ms:g} ms: {words}"]
    return missed


def _figure(record: Record, gate: Gate) -> Shown:
    """Read a figure that a record has by itself."""
    match = _PERCENTILE.fullmatch(gate.figure)
    if match is not None:
        stage, name = match.groups()
        of = record.latency if stage == "latency" else record.stages.get(stage, {})
        if name not in of:
            return None, record.absent.get(stage, "it was not measured")
        return _percentile(of[name], gate.sign)
    value = _PLAIN[gate.figure](record)
    if value is None:
        key = gate.figure.rpartition("_")[0]
        return None, record.absent.get(_ABSENT.get(key, key), "it was not measured")
    return value, f"{value:.6g}"


def _percentile(quantile: Quantile, sign: str) -> Shown:
    """Return a percentile in milliseconds, for an upper limit its 99 % bound."""
    if quantile.value is None or quantile.upper99 is None:
        return None, quantile.reason or "it has no bound"
    value, upper = quantile.value / 1e6, quantile.upper99 / 1e6
    words = f"{value:.4g} ms, below {upper:.4g} ms with 99 % confidence"
    return (upper if sign.startswith("<") else value), words


def _change(row: Row) -> Shown:
    """Return the upper end of the 99 % interval of a change, in percent."""
    if row.high is None or row.low is None or row.change is None:
        return None, row.reason or "it could not be compared"
    return row.high, f"{row.change:+.1f} %, 99 % interval {row.low:+.1f} to {row.high:+.1f}"


def _drop_from_fp32(record: Record, records: Sequence[Record]) -> Shown:
    bundle = record.bundle.get("manifest_sha256")
    for other in records if bundle is not None else ():
        same = other.bundle.get("manifest_sha256") == bundle
        if same and other.artefact.get("precision") == "fp32":
            return _drop(other, record)
    return None, "no FP32 artefact of its bundle was measured with it"


def _drop(first: Record, second: Record) -> Shown:
    """Return the upper end of the 95 % interval of a loss of accuracy, in points."""
    for side in (first, second):
        doubt = _doubt(side, timeless=True)
        if doubt:
            return None, doubt
    one, other = first.accuracy, second.accuracy
    if one is None or other is None:
        missing = first if one is None else second
        return None, missing.absent.get("accuracy", "no accuracy was measured")
    drop = top1_drop(one, other, Z95_TWO_SIDED) if same_images(first, second) else None
    if drop is None:
        return None, "the records do not hold the predictions of the same images"
    loss, low, high, _ = drop
    if one == other and first.artefact == second.artefact:
        low = high = loss
    words = f"{loss:+.2f} points on {one.n} images, 95 % interval {low:+.2f} to {high:+.2f}"
    return high, words


def write_junit(path: Path, name: str, outcomes: Sequence[Outcome]) -> None:
    """Write outcomes as a JUnit file, one test case for each, atomically."""
    failures = str(sum(not outcome.passed for outcome in outcomes))
    counts = {"tests": str(len(outcomes)), "failures": failures, "errors": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": name, **counts})
    for outcome in outcomes:
        labels = {"classname": _clean(outcome.subject), "name": outcome.gate}
        case = ElementTree.SubElement(suite, "testcase", labels)
        if outcome.passed:
            ElementTree.SubElement(case, "system-out").text = _clean(outcome.detail)
        else:
            failure = {"message": _clean(outcome.detail), "type": "gate"}
            ElementTree.SubElement(case, "failure", failure)
    text = ElementTree.tostring(root, encoding="unicode")
    write_atomic(path, f"{_XML}{text}\n")


def _clean(text: str) -> str:
    return _NO_XML.sub("?", text)
