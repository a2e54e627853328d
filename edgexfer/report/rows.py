"""One row per record, and which records may be ranked together. No text layout, no judgement."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgexfer.core.fastest import Timed
from edgexfer.core.record import Record
from edgexfer.core.stats import Quantile, median
from edgexfer.report.words import clean, count

# Facts that make a machine another one. Load, clock and temperature change while it stays the same.
_MACHINE = ("board", "cpu", "machine", "usable_cores", "memory_bytes", "power_mode", "l4t")
_SETTINGS = ("scenario", "batch", "threads")
USABLE = ("ok", "partial")


@dataclass(frozen=True)
class Row:
    """A record with what the report says about it.

    Attributes:
        key: the letter that stands for it in tables and charts.
        record: the measurement.
        role: ``teacher``, ``student``, ``control``, or ``""`` where that is not known.
        speedup: p50 of the reference over its own p50; ``None`` where they cannot be compared.
    """

    key: str
    record: Record
    role: str = ""
    speedup: float | None = None

    @property
    def usable(self) -> bool:
        """Whether its latency may be ranked."""
        return self.record.status in USABLE and self.p50_ns is not None

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
        """Most memory over the processes that the artefact took, less what was there before it."""
        taken = [
            p.peak_rss_bytes - p.rss_before_load_bytes
            for p in self.record.processes
            if p.peak_rss_bytes is not None and p.rss_before_load_bytes is not None
        ]
        return max(taken) if taken else None

    @property
    def timed(self) -> Timed:
        """Its latency as ``core/fastest`` compares it, under its key; only of a usable row.

        A size that is not known counts as the largest.
        """
        each = tuple(median(p.infer_ns) for p in self.record.processes if p.infer_ns)
        size = sys.maxsize if self.size_bytes is None else self.size_bytes
        return Timed(self.key, each or (self.p50_ns or 0.0,), size)

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
        rows: usable ones by rising p50, then the others.
        reference: the row that speed-ups refer to; ``None`` where there is none.
    """

    machine: str
    settings: str
    rows: tuple[Row, ...]
    reference: Row | None

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
        Groups in the order in which their first row came.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    homeless = []
    for row in rows:
        if row.usable or row.record.device:
            groups.setdefault(_comparable(row.record), []).append(row)
        else:
            homeless.append(row)
    # What failed before it could look at its machine belongs to the only one there is.
    for row in homeless:
        only = next(iter(groups)) if len(groups) == 1 else _comparable(row.record)
        groups.setdefault(only, []).append(row)
    done, number = [], 0
    for members in groups.values():
        anchor = _reference(members, reference)
        ordered = sorted(members, key=lambda r: (not r.usable, r.p50_ns or 0, r.full_name))
        related = []
        for row in ordered:
            related.append(replace(row, key=_letter(number), speedup=_speedup(anchor, row)))
            number += 1
        found = next((r for r in related if anchor and r.record is anchor.record), None)
        first = members[0].record
        done.append(Group(machine_name(first), settings_name(first), tuple(related), found))
    return done


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
    return f"batch {clean(settings.get('batch', 1))}, {'1 thread' if threads == 1 else how}"


def value_of(quantile: Quantile | None) -> float | None:
    """Return a percentile's value, ``None`` where it is missing."""
    return quantile.value if quantile else None


def upper_of(quantile: Quantile | None) -> float | None:
    """Return a percentile's 99 % upper bound, ``None`` where it has none."""
    return quantile.upper99 if quantile else None


def _comparable(record: Record) -> tuple[Any, ...]:
    facts = [repr(record.device.get(name)) for name in _MACHINE]
    settings = [repr(record.settings.get(name)) for name in _SETTINGS]
    return (*facts, *settings)


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
    if anchor is None or not row.usable or not anchor.p50_ns or not row.p50_ns:
        return None
    return anchor.p50_ns / row.p50_ns


def _letter(number: int) -> str:
    """Return A, B, ... Z, AA, AB, ..."""
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
