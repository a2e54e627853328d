"""Whether one measured artefact is faster than another: four verdicts, or a refusal to compare.

What is compared are figures of whole processes, as only they are independent of each other. The
table that people read is made in ``cli/compare.py``, the gate in ``gate.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from edgexfer.bench.analyse import QUANTILES
from edgexfer.core.distributions import binomial_at_most, student_t, student_t_p
from edgexfer.core.errors import InputError, nearest
from edgexfer.core.record import MACHINE, Accuracy, Record
from edgexfer.core.stats import paired_drop, quantile

CONFIDENCE = 0.99
Z99_TWO_SIDED = 2.5758293035489004
# What is asked, and what counts as right.
_DATA = ("images_sha256", "labels_sha256")
# What may differ on purpose, once it is said; a definition and a scenario never may.
FIELDS: Dict[str, Callable[[Record], Any]] = {
    "definitions": lambda r: r.definitions,
    "scenario": lambda r: r.settings.get("scenario"),
    "bound_ns": lambda r: r.settings.get("bound_ns"),
    "batch": lambda r: r.settings.get("batch"),
    "streams": lambda r: r.settings.get("streams"),
    "threads": lambda r: r.settings.get("threads"),
    "precision": lambda r: r.artefact.get("precision"),
    "power_mode": lambda r: r.device.get("power_mode"),
    "machine": lambda r: ", ".join(str(r.device[f]) for f in MACHINE if r.device.get(f)),
    "data": lambda r: ", ".join(str(r.data[f])[:16] for f in _DATA if r.data.get(f)),
}
_NEVER = ("definitions", "scenario", "bound_ns")


@dataclass(frozen=True)
class Delta:
    """Up to which difference two figures are the same.

    Attributes:
        time_pct: of latencies and rates, in percent.
        top1_pt: of accuracies, in points.
    """

    time_pct: float = 2.0
    top1_pt: float = 0.5


@dataclass(frozen=True)
class Row:
    """One metric of two records.

    Attributes:
        metric: such as ``latency_p90``, ``throughput`` or ``top1``.
        unit: of ``first`` and ``second``; the change is in percent, of ``top1`` in points.
        first: the figure of the first record.
        second: of the second.
        change: second against first, in percent or points.
        low: lower end of its 99 % interval.
        high: upper end of it.
        p: how probable so large a change is between equals, after Holm's correction.
        verdict: ``faster``, ``slower``, ``same`` or ``inconclusive``; of ``top1`` ``better`` and
            ``worse`` in their place.
        reason: why it is inconclusive.
    """

    metric: str
    unit: str
    first: Optional[float]
    second: Optional[float]
    change: Optional[float] = None
    low: Optional[float] = None
    high: Optional[float] = None
    p: Optional[float] = None
    verdict: str = "inconclusive"
    reason: Optional[str] = None


@dataclass(frozen=True)
class Verdict:
    """What two records say about each other.

    Attributes:
        rows: one for each metric.
        paired: whether processes are compared in pairs, as they were measured interleaved.
        processes: of each side.
        across: fields that differ, and were allowed to.
        doubts: why a side is not ``ok``.
    """

    rows: Tuple[Row, ...]
    paired: bool
    processes: Tuple[int, int]
    across: Tuple[str, ...]
    doubts: Tuple[str, ...]


def compare(first: Record, second: Record, delta: Delta, across: Sequence[str] = ()) -> Verdict:
    """Compare the second record with the first.

    A change of time is ``same`` where its 99 % interval lies within δ; ``slower`` or ``faster``
    where it is significant at 1 % after Holm's correction for all metrics (Holm 1979); everything
    else is ``inconclusive``. Where the processes of both were interleaved, each is compared with
    the one of its round, so that a slow change of the machine meets both alike.

    Args:
        first: the yardstick.
        second: what is judged.
        delta: see there.
        across: fields that may differ, see ``FIELDS``.

    Raises:
        InputError: the records differ in a field that must be alike.
    """
    differing = _differing(first, second, across)
    paired = _interleaved(first, second)
    times, top1 = _times(first, second, paired, delta), _top1(first, second, delta)
    unusable = [_doubt(r) for r in (first, second) if r.status in ("invalid", "failed")]
    if unusable:
        times = [replace(row, verdict="inconclusive", reason=unusable[0]) for row in times]
        rows = [*times, *corrected([top1])]
    else:
        rows = corrected([*times, top1])
    return Verdict(
        rows=tuple(rows),
        paired=paired,
        processes=(len(first.processes), len(second.processes)),
        across=differing,
        doubts=tuple(_doubt(r) for r in (first, second) if r.status != "ok"),
    )


def has_right_outputs(record: Record) -> bool:
    """Say whether what does not depend on time can be relied on, whatever the machine did.

    A record may be invalid for its times alone; a fault is an output or an input that was wrong.
    """
    return record.status != "failed" and not any(run.faults for run in record.processes)


def same_images(first: Record, second: Record) -> bool:
    """Say whether two records saw the same pictures in the same order, if only at another size.

    Their pixels differ where their models prepare them otherwise; pixels that differ although they
    were prepared alike are other pictures.
    """
    one, other = first.data, second.data
    if any(one.get(name) != other.get(name) for name in ("split", "labels_sha256")):
        return False
    alike = one.get("preprocess_sha256") == other.get("preprocess_sha256")
    return one.get("images_sha256") == other.get("images_sha256") or not alike


def _differing(first: Record, second: Record, across: Sequence[str]) -> Tuple[str, ...]:
    for name in across:
        if name not in FIELDS or name in _NEVER:
            known = [field for field in FIELDS if field not in _NEVER]
            raise InputError(f"{name!r} cannot differ on purpose", nearest(name, known))
    found = []
    for name, read in FIELDS.items():
        one, other = read(first), read(second)
        if one == other:
            continue
        if name not in across:
            mend = "" if name in _NEVER else f", or say that it is meant with --across {name}"
            raise InputError(
                f"cannot compare: {name} is {one!r} in the first and {other!r} in the second",
                f"measure both alike{mend}",
            )
        found.append(name)
    return tuple(found)


def _doubt(record: Record) -> str:
    name = record.artefact.get("name")
    return f"{name} is {record.status}: {'; '.join(record.reasons) or 'no reason is given'}"


def _interleaved(first: Record, second: Record) -> bool:
    """Say whether the processes of two records belong together one by one."""
    if first.processes == second.processes:
        return True
    suite = first.settings.get("suite")
    same = suite is not None and suite == second.settings.get("suite")
    return same and len(first.processes) == len(second.processes)


def _times(first: Record, second: Record, paired: bool, delta: Delta) -> List[Row]:
    """Compare what is measured in time, one value per process."""
    if first.throughput is not None and second.throughput is not None:
        one, other = first.throughput, second.throughput
        row = Row("throughput", "1/s", one.per_s, other.per_s)
        return [_ratio(row, (one.each_per_s, other.each_per_s), paired, delta)]
    if first.server is not None and second.server is not None:
        row = Row("server", "1/s", first.server.per_s, second.server.per_s)
        none = [r.absent["server"] for r in (first, second) if "server" in r.absent]
        if none:
            return [replace(row, reason=none[0])]
        return [_ratio(row, (first.server.each_per_s, second.server.each_per_s), paired, delta)]
    rows = []
    for name, q in QUANTILES.items():
        both = [_each(record, q) for record in (first, second)]
        if all(value is None for side in both for value in side):
            continue
        figures = [_ms(record.latency[name].value) for record in (first, second)]
        row = Row(f"latency_{name}", "ms", figures[0], figures[1])
        rows.append(_ratio(row, (both[0], both[1]), paired, delta))
    return rows


def _each(record: Record, q: float) -> List[Optional[float]]:
    """Return a percentile of each process, ``None`` where it has too few samples for one."""
    return [quantile(run.infer_ns, q).value for run in record.processes]


def _ms(value: Optional[float]) -> Optional[float]:
    return None if value is None else value / 1e6


def _ratio(
    row: Row,
    values: Tuple[Sequence[Optional[float]], Sequence[Optional[float]]],
    paired: bool,
    delta: Delta,
) -> Row:
    """Put the change of a positive figure and its interval into a row."""
    sides = [[value for value in side if value is not None] for side in values]
    if any(len(kept) < len(side) for kept, side in zip(sides, values)):
        return replace(row, reason="a process has too few samples for it")
    if min(map(len, sides)) < 2:
        return replace(row, reason="it takes two processes of each, and ten to see small changes")
    if min(map(min, sides)) <= 0:
        return replace(row, reason="a value is 0: the clock is too coarse for it")
    one, other = [[math.log(value) for value in side] for side in sides]
    shift, error, dof = _paired(one, other) if paired else _unpaired(one, other)
    half = student_t((1 + CONFIDENCE) / 2, dof) * error
    p = float(shift == 0) if error == 0 else student_t_p(shift / error, dof)
    margin = math.log1p(delta.time_pct / 100)
    rate = row.unit == "1/s"
    if abs(shift) + half <= margin:
        verdict = "same"
    else:
        verdict = "faster" if (shift < 0) != rate else "slower"
    # An interval so wide that it says nothing must still be a number.
    ends = [100 * math.expm1(min(x, 100.0)) for x in (shift, shift - half, shift + half)]
    return replace(row, change=ends[0], low=ends[1], high=ends[2], p=p, verdict=verdict)


def _paired(one: Sequence[float], other: Sequence[float]) -> Tuple[float, float, float]:
    """Return the mean difference of pairs, its standard error and degrees of freedom."""
    gaps = [b - a for a, b in zip(one, other)]
    mean, variance = _moments(gaps)
    return mean, math.sqrt(variance / len(gaps)), len(gaps) - 1


def _unpaired(one: Sequence[float], other: Sequence[float]) -> Tuple[float, float, float]:
    """Return the difference of two means, its error and degrees of freedom (Welch 1947)."""
    (mean1, variance1), (mean2, variance2) = _moments(one), _moments(other)
    parts = [(variance1 / len(one), len(one) - 1), (variance2 / len(other), len(other) - 1)]
    error2 = sum(part for part, _ in parts)
    least = min(freedom for _, freedom in parts)
    spent = sum(part**2 / freedom for part, freedom in parts)
    return mean2 - mean1, math.sqrt(error2), error2**2 / spent if spent > 0 else least


def _moments(values: Sequence[float]) -> Tuple[float, float]:
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _top1(first: Record, second: Record, delta: Delta) -> Row:
    """Compare accuracies, image by image where both saw the same ones."""
    one, other = first.accuracy, second.accuracy
    row = Row("top1", "%", one.top1_pct if one else None, other.top1_pct if other else None)
    wrong = [_doubt(record) for record in (first, second) if not has_right_outputs(record)]
    if wrong:
        return replace(row, reason=wrong[0])
    if one is not None and one == other and first.artefact == second.artefact:
        # One file and one set of images: there is nothing left to chance.
        return replace(row, change=0.0, low=0.0, high=0.0, p=1.0, verdict="same")
    if one is None or other is None:
        missing = first if one is None else second
        return replace(row, reason=missing.absent.get("accuracy", "was not measured"))
    drop = top1_drop(one, other, Z99_TWO_SIDED) if same_images(first, second) else None
    if drop is None:
        return replace(row, reason="the records do not hold the predictions of the same images")
    change, low, high, p = drop
    within = max(abs(low), abs(high)) <= delta.top1_pt
    verdict = "same" if within else "better" if change < 0 else "worse"
    return replace(row, change=-change, low=-high, high=-low, p=p, verdict=verdict)


def top1_drop(
    one: Accuracy, other: Accuracy, z: float
) -> Optional[Tuple[float, float, float, float]]:
    """Return the loss of accuracy on the same images, its interval, and McNemar's exact p.

    A record holds predictions without labels. Images with equal predictions are both right or both
    wrong; of the others it takes as many to have changed sides as can be, which errs on the wide
    side.

    Args:
        one: the yardstick.
        other: what is judged.
        z: quantile of the normal distribution that makes the interval's confidence.

    Returns:
        Loss and both ends in percentage points, and p; ``None`` where the images cannot be paired.
    """
    n = one.n
    if n == 0 or not len(one.predictions) == len(other.predictions) == n == other.n:
        return None
    lost_net = one.correct - other.correct
    differ = sum(a != b for a, b in zip(one.predictions, other.predictions))
    # As many lost as gained beyond the net loss; both must fit into who was right at all.
    gained = min((differ - abs(lost_net)) // 2, n - max(one.correct, other.correct))
    gained = min(gained, min(one.correct, other.correct))
    if gained < 0:
        return None
    lost = gained + max(lost_net, 0)
    gained += max(-lost_net, 0)
    both = one.correct - lost
    neither = n - both - lost - gained
    drop = paired_drop(
        [True] * (both + lost) + [False] * (gained + neither),
        [True] * both + [False] * lost + [True] * gained + [False] * neither,
        z,
    )
    least, changed = min(lost, gained), lost + gained
    p = min(1.0, 2 * binomial_at_most(changed, least, 0.5)) if changed else 1.0
    return drop.drop_pt, drop.low_pt, drop.high_pt, p


def corrected(rows: Sequence[Row]) -> List[Row]:
    """Apply Holm's correction, and take back verdicts that do not stand it."""
    order = sorted(
        (i for i, row in enumerate(rows) if row.p is not None), key=lambda i: _p(rows[i])
    )
    done, least = list(rows), 0.0
    for place, i in enumerate(order):
        least = min(1.0, max(least, (len(order) - place) * _p(rows[i])))
        row = replace(rows[i], p=least)
        if row.verdict != "same" and least >= 1 - CONFIDENCE:
            row = replace(row, verdict="inconclusive", reason="the interval is too wide for more")
        done[i] = row
    return done


def _p(row: Row) -> float:
    assert row.p is not None, "rows without a p are left out before"
    return row.p
