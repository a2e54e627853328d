"""One row per record, and which records may be ranked together. No text layout, no judgement."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgexfer.core.fastest import Timed
from edgexfer.core.record import MACHINE, Record
from edgexfer.core.stats import Quantile, median
from edgexfer.report.words import clean, count, milliseconds

# What is ranked together was measured in one state of the machine, too.
_MACHINE = (*MACHINE, "power_mode", "memory_bytes", "l4t")
_SETTINGS = ("scenario", "batch", "streams", "threads", "bound_ns")
# Which images, in which order; their pixels differ with the model's size, which is no other data.
_DATA = ("split", "n", "labels_sha256")
_NAMES = {"labels_sha256": "labels", "n": "number of images", "bound_ns": "bound of latency, ns"}
USABLE = ("ok", "partial")


@dataclass(frozen=True)
class Row:
    """A record with what the report says about it.

    Attributes:
        key: the letter that stands for it in tables and charts.
        record: the measurement.
        role: ``teacher``, ``student``, ``control``, or ``""`` where that is not known.
        speedup: pace of the reference over its own; ``None`` where they cannot be compared.
    """

    key: str
    record: Record
    role: str = ""
    speedup: float | None = None

    @property
    def usable(self) -> bool:
        """Whether its speed may be ranked."""
        return self.record.status in USABLE and self.pace_ns is not None

    @property
    def scenario(self) -> str:
        """What was measured: latencies one by one, or a throughput."""
        return str(self.record.settings.get("scenario", "single_stream"))

    @property
    def per_s(self) -> float | None:
        """Images in a second, of a scenario that measures them."""
        found = self.record.throughput or self.record.server
        return found.per_s if found else None

    @property
    def pace_ns(self) -> float | None:
        """What records of the same settings are ranked by, in nanoseconds.

        The p50 latency of a call, which of a batch or of several streams is that of several images;
        where a rate was measured, what one image costs at it.
        """
        if self.record.throughput or self.record.server:
            return 1e9 / self.per_s if self.per_s else None
        return self.p50_ns

    @property
    def pace_upper_ns(self) -> float | None:
        """The 99 % upper bound of the p50, or the pace of the slowest process."""
        found = self.record.throughput or self.record.server
        if found is None:
            return upper_of(self.record.latency.get("p50"))
        return max((1e9 / rate for rate in found.each_per_s if rate), default=None)

    @property
    def p50_ns(self) -> float | None:
        """Median latency in nanoseconds."""
        return value_of(self.record.latency.get("p50"))

    @property
    def p90_ns(self) -> float | None:
        """90th percentile of latency in nanoseconds."""
        return value_of(self.record.latency.get("p90"))

    @property
    def top1_pct(self) -> float | None:
        """Accuracy in percent."""
        return self.record.accuracy.top1_pct if self.record.accuracy else None

    @property
    def size_bytes(self) -> int | None:
        """Size of the artefact's files."""
        size = self.record.artefact.get("size_bytes")
        return size if isinstance(size, int) else None

    @property
    def memory_bytes(self) -> int | None:
        """Most memory of the host over the processes, less what was there before the artefact."""
        return self.record.memory.get("host_bytes")

    @property
    def timed(self) -> Timed:
        """Its pace as ``core/fastest`` compares it, under its key; only of a usable row.

        A size that is not known counts as the largest.
        """
        found = self.record.throughput or self.record.server
        if found is None:
            each = tuple(median(p.infer_ns) for p in self.record.processes if p.infer_ns)
        else:
            each = tuple(1e9 / rate for rate in found.each_per_s if rate)
        size = sys.maxsize if self.size_bytes is None else self.size_bytes
        return Timed(self.key, each or (self.pace_ns or 0.0,), size)

    @property
    def model(self) -> str:
        """Name of the model, for people: its role and architecture."""
        bundle = self.record.bundle
        model = clean(bundle.get("model") or bundle.get("name") or "unknown model")
        name = self.role or clean(bundle.get("name") or "")
        return f"{name} ({model})" if name and name != model else model

    @property
    def artefact(self) -> str:
        """Name of the artefact."""
        return clean(self.record.artefact.get("name") or "unknown artefact")

    @property
    def full_name(self) -> str:
        """Model and artefact in one phrase."""
        return f"{self.model} {self.artefact}"


@dataclass(frozen=True)
class Group:
    """Records that may be ranked together: one machine, one way of measuring.

    Attributes:
        machine: the machine, for people.
        settings: the way of measuring, for people.
        rows: usable ones by rising pace, then the others.
        reference: the row that speed-ups refer to; ``None`` where there is none.
        apart: how its way of measuring differs from that of most groups; empty where it does not.
        method: what its figures mean and how they came about; equal for groups that differ by
            machine alone.
    """

    machine: str
    settings: str
    rows: tuple[Row, ...]
    reference: Row | None
    apart: tuple[str, ...] = ()
    method: tuple[Any, ...] = ()

    @property
    def scenario(self) -> str:
        """What was measured, of all rows."""
        return self.rows[0].scenario

    @property
    def by_throughput(self) -> bool:
        """Whether images in a second were measured, not latencies."""
        return any(r.record.throughput or r.record.server for r in self.rows)

    @property
    def usable(self) -> tuple[Row, ...]:
        """The rows whose latency may be ranked."""
        return tuple(r for r in self.rows if r.usable)


def group_rows(rows: Iterable[Row], reference: str | None = None) -> list[Group]:
    """Put rows together that may be ranked, number them, and relate them to the reference.

    Args:
        rows: in any order; their keys are given anew.
        reference: name of the artefact that speed-ups refer to; ``None`` takes the teacher's FP32
            record of the torch backend.

    Returns:
        Groups in the order in which their first row came; those whose way of measuring most share
        stand first.
    """
    groups: dict[_Facts, list[Row]] = {}
    lost = []
    for row in rows:
        if row.usable:
            groups.setdefault(_facts(row.record), []).append(row)
        else:
            lost.append(row)
    # What failed may not know its machine or its images: it belongs where all that it knows fits.
    for row in lost:
        own = _facts(row.record)
        fitting = [facts for facts in groups if facts.fits(own)]
        groups.setdefault(fitting[0] if len(fitting) == 1 else own, []).append(row)
    methods = [facts.method for facts in groups]
    usual = max(methods, key=methods.count, default=())
    done, number = [], 0
    for facts in sorted(groups, key=lambda f: f.method != usual):
        members = groups[facts]
        anchor = _reference(members, reference)
        ordered = sorted(members, key=lambda r: (not r.usable, r.pace_ns or 0, r.full_name))
        related = []
        for row in ordered:
            related.append(replace(row, key=_letter(number), speedup=_speedup(anchor, row)))
            number += 1
        found = next((r for r in related if anchor and r.record is anchor.record), None)
        names = machine_name(members[0].record), settings_name(members[0].record)
        apart = _differences(facts.method, usual)
        done.append(Group(*names, tuple(related), found, apart, facts.method))
    return done


@dataclass(frozen=True)
class _Facts:
    """What must be equal for two records to be ranked together: ``(name, value)`` each."""

    machine: tuple[tuple[str, Any], ...]
    method: tuple[tuple[str, Any], ...]

    def fits(self, other: _Facts) -> bool:
        """Say whether both agree in all that both know."""
        mine, its = self.machine + self.method, other.machine + other.method
        return all(a == b or None in (a[1], b[1]) for a, b in zip(mine, its, strict=True))


def _differences(
    mine: tuple[tuple[str, Any], ...], usual: tuple[tuple[str, Any], ...]
) -> tuple[str, ...]:
    """Say in words how one way of measuring differs from another."""
    return tuple(
        f"{_NAMES.get(name, name)} {_short(own)}, not {_short(other)}"
        for (name, own), (_, other) in zip(mine, usual, strict=True)
        if own != other
    )


def _facts(record: Record) -> _Facts:
    method = [(name, record.settings.get(name)) for name in _SETTINGS]
    method += [(name, record.data.get(name)) for name in _DATA]
    machine = [(name, record.device.get(name)) for name in _MACHINE]
    # A value that is no text or number would not be hashable.
    plain = [
        tuple((name, value if value is None else str(value)) for name, value in facts)
        for facts in (machine, [("definitions", record.definitions), *method])
    ]
    return _Facts(*plain)


def _short(value: str | None) -> str:
    return "unset" if value is None else clean(value.replace("_", " "), 16)


def machine_name(record: Record) -> str:
    """Return the machine of a record as people name it."""
    device = record.device
    # A board says more of an ARM machine than its cores do; of a PC it says next to nothing.
    first = ("board", "cpu") if device.get("machine") == "aarch64" else ("cpu", "board")
    name = next((device[f] for f in (*first, "machine") if device.get(f)), "unknown machine")
    parts = [clean(name)]
    if isinstance(device.get("usable_cores"), int):
        parts.append(count(device["usable_cores"], "core"))
    if device.get("power_mode"):
        parts.append(clean(device["power_mode"]))
    return ", ".join(parts)


def settings_name(record: Record) -> str:
    """Return how a record was measured, as far as it decides what it can be compared with."""
    settings = record.settings
    threads = settings.get("threads")
    how = "threads chosen by the runtime" if threads == 0 else f"{clean(threads)} threads"
    parts = [f"batch {clean(settings.get('batch', 1))}", "1 thread" if threads == 1 else how]
    scenario = str(settings.get("scenario", "single_stream"))
    if scenario != "single_stream":
        parts.insert(0, clean(scenario.replace("_", " ")))
    if isinstance(settings.get("streams"), int) and settings["streams"] > 1:
        parts.append(count(settings["streams"], "stream"))
    if isinstance(settings.get("bound_ns"), int):
        parts.append(f"p99 at most {milliseconds(settings['bound_ns'])}")
    return ", ".join(parts)


def value_of(quantile: Quantile | None) -> float | None:
    """Return a percentile's value, ``None`` where it is missing."""
    return quantile.value if quantile else None


def upper_of(quantile: Quantile | None) -> float | None:
    """Return a percentile's 99 % upper bound, ``None`` where it has none."""
    return quantile.upper99 if quantile else None


def _reference(rows: Sequence[Row], name: str | None) -> Row | None:
    if name is not None:
        named = [r for r in rows if r.usable and r.record.artefact.get("name") == name]
    else:
        named = [
            r
            for r in rows
            if r.usable
            and r.record.artefact.get("backend") == "torch"
            and r.record.artefact.get("precision") == "fp32"
            and r.role in ("teacher", "")
        ]
    return max(named, key=lambda r: r.record.bundle.get("parameters") or 0, default=None)


def _speedup(anchor: Row | None, row: Row) -> float | None:
    if anchor is None or not row.usable or not anchor.pace_ns or not row.pace_ns:
        return None
    return anchor.pace_ns / row.pace_ns


def _letter(number: int) -> str:
    """Return A, B, ... Z, AA, AB, ..."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
