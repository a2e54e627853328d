"""Bars: where the time of an inference and of a cold start goes, memory, energy.

``parts_of`` returns the figures themselves, which the page also shows as a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgexfer.core.record import Record
from edgexfer.report import words
from edgexfer.report.draw import HATCHES, INK, PAPER, SERIES, WIDTH, chart
from edgexfer.report.rows import Row, value_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A bar so many times as long as the one in the middle would leave nothing to see of the others.
_CUT = 4.0


@dataclass(frozen=True)
class Bars:
    """Bars of several parts.

    Attributes:
        title: what they show, in fixed words.
        label: of the axis, with the unit.
        parts: names of the parts, in fixed words.
        rows: the records, and the figure of each part in the axis's unit; ``None`` where unknown.
        note: what a reader must know of them.
    """

    title: str
    label: str
    parts: tuple[str, ...]
    rows: tuple[tuple[Row, tuple[float | None, ...]], ...]
    note: str

    @property
    def drawing(self) -> str:
        """The chart as an ``<svg>`` element."""
        return _draw(self)


def all_bars(rows: Sequence[Row]) -> list[Bars]:
    """Return the bars of all figures that at least one of the rows has."""
    kinds = (_stages(rows), _cold_start(rows), _memory(rows), _energy(rows))
    return [bars for bars in kinds if bars.rows]


def _stages(rows: Sequence[Row]) -> Bars:
    names = ("decode", "resize", "pre", "infer", "post")

    def figures(record: Record) -> tuple[float | None, ...]:
        found = {name: of.get("p50") for name, of in record.stages.items()}
        found["infer"] = record.latency.get("p50")
        return tuple(_scaled(value_of(found.get(name)), 1e6) for name in names)

    shown = [r for r in rows if value_of(r.record.latency.get("p50")) is not None]
    return Bars(
        "Where the time of one image goes",
        "p50 of each stage, ms",
        ("decode", "resize", "normalise", "infer", "post"),
        _known(shown, figures),
        "The median of each stage, timed apart; a stage that was not measured is left out.",
    )


def _cold_start(rows: Sequence[Row]) -> Bars:
    def figures(record: Record) -> tuple[float | None, ...]:
        cold = record.cold_start
        apart = "deserialise_ns" in cold and "compile_ns" in cold
        load = (cold.get("deserialise_ns"), cold.get("compile_ns")) if apart else (None, None)
        whole = None if apart else cold.get("load_ns")
        parts = (cold.get("startup_ns"), cold.get("import_ns"), *load, whole)
        return tuple(_scaled(ns, 1e6) for ns in (*parts, cold.get("first_ns")))

    return Bars(
        "Cold start",
        "from the start of the process to the first output, ms",
        ("start", "import", "deserialise", "compile", "load and compile", "first inference"),
        _known(rows, figures),
        "The median over fresh processes. A runtime that reads and compiles in one has one part.",
    )


def _memory(rows: Sequence[Row]) -> Bars:
    def figures(record: Record) -> tuple[float | None, ...]:
        return tuple(_scaled(record.memory.get(n), 1e6) for n in ("host_bytes", "device_bytes"))

    return Bars(
        "Memory",
        "peak beyond the start of the process, MB",
        ("host", "device"),
        _known(rows, figures),
        "Host memory is the process's share of pages (PSS) less what it had before the artefact "
        "was loaded; device memory is what loading and the first inference took of it.",
    )


def _energy(rows: Sequence[Row]) -> Bars:
    def figures(record: Record) -> tuple[float | None, ...]:
        power = record.power
        return (None, None) if power is None else (power.net_mj, power.gross_mj - power.net_mj)

    return Bars(
        "Energy",
        "energy of one inference, mJ",
        ("for the inference", "drawn when idle as well"),
        _known(rows, figures),
        "Gross energy is both together. Sensor and rail stand in the table of measurements.",
    )


def _known(
    rows: Sequence[Row], figures: Callable[[Record], tuple[float | None, ...]]
) -> tuple[tuple[Row, tuple[float | None, ...]], ...]:
    found = ((row, figures(row.record)) for row in rows)
    return tuple((row, values) for row, values in found if any(v is not None for v in values))


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _draw(bars: Bars) -> str:
    totals = [sum(v or 0 for v in values) for _, values in bars.rows]
    middle = sorted(totals)[len(totals) // 2]
    end = max((t for t in totals if t <= _CUT * middle), default=max(totals))
    shown = [n for n in range(len(bars.parts)) if any(values[n] for _, values in bars.rows)]

    def draw(axes: Axes) -> None:
        left = [0.0] * len(bars.rows)
        for n in shown:
            # What is longer than the axis ends with it, and says so by an arrow.
            lengths = [
                max(min(values[n] or 0.0, end - start), 0.0)
                for (_, values), start in zip(bars.rows, left, strict=True)
            ]
            axes.barh(
                range(len(lengths)),
                lengths,
                left=left,
                height=0.62,
                color=SERIES[n % len(SERIES)],
                hatch=HATCHES[n % len(HATCHES)] if len(shown) > 1 else "",
                edgecolor=PAPER,
                linewidth=0.6,
                label=bars.parts[n],
            )
            left = [a + b for a, b in zip(left, lengths, strict=True)]
        for place, total in enumerate(totals):
            text = f"{'→ ' if total > end else ''}{words.significant(total)}"
            at = (min(total, end), place)
            offset = (4, 0)
            axes.annotate(text, at, offset, textcoords="offset points", va="center", color=INK)
        axes.set_xlim(0, 1.18 * end or 1)
        axes.set_ylim(len(totals) - 0.5, -0.5)
        axes.set_yticks(range(len(totals)), [row.key for row, _ in bars.rows], weight="bold")
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(bars.label)
        if len(shown) > 1:
            figure = axes.figure
            figure.legend(loc="outside upper left", ncols=3, frameon=False, handlelength=1.4)

    said = ", ".join(
        f"{row.key} {total:.3g}" for (row, _), total in zip(bars.rows, totals, strict=True)
    )
    legend = 0.2 * ((len(shown) + 2) // 3) if len(shown) > 1 else 0.0
    size = (WIDTH, 0.75 + 0.34 * len(totals) + legend)
    return chart(draw, f"{bars.title}, {bars.label}: {said}", size)
