"""Charts of accuracy, latency and training: scatter, distributions, curves, devices side by side.

How a drawing becomes an element of the page stands in ``draw.py``, bars in ``bars.py``, courses in
time in ``series.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgexfer.report.draw import (
    DASHES,
    MUTED,
    PAPER,
    SERIES,
    chart,
    latency_axis,
    letter,
    slot_of,
    tip,
)
from edgexfer.report.rows import Row, value_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Curve:
    """One training's course.

    Attributes:
        slot: which colour and dash it has.
        epochs: of each point, from 1.
        values: of each point.
    """

    slot: int
    epochs: tuple[float, ...]
    values: tuple[float, ...]


def accuracy_latency(rows: Sequence[Row], slots: dict[str, int]) -> str | None:
    """Draw top-1 accuracy against p50 latency, with error bars and the Pareto front.

    Where a throughput was measured, the time that one image costs at it takes the latency's place.

    Args:
        rows: comparable rows; those without accuracy or usable latency are left out.
        slots: the palette's slot for each row's key.

    Returns:
        An ``<svg>`` element; ``None`` where there is nothing to draw.
    """
    shown = [r for r in rows if r.usable and r.record.accuracy]
    if not shown:
        return None

    by_throughput = any(r.per_s is not None for r in shown)
    label = "time for one image at full load, ms" if by_throughput else "p50 latency, ms"

    def draw(axes: Axes) -> None:
        front = pareto(shown)
        xs, ys = _staircase(front)
        axes.plot(xs, ys, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for row in shown:
            _point(axes, row, SERIES[slots[row.key]])
        latency_axis(axes, [(r.pace_ns or 0) / 1e6 for r in shown])
        axes.set_xlabel(label)
        axes.set_ylabel("top-1 accuracy, %")
        axes.margins(x=0.12, y=0.18)
        _letters(axes, shown, slots)

    keys = ", ".join(
        f"{r.key} {(r.pace_ns or 0) / 1e6:.3g} ms {r.top1_pct:.1f} %" for r in shown if r.top1_pct
    )
    return chart(draw, f"Top-1 accuracy in percent against {label}: {keys}")


def latency_distribution(rows: Sequence[Row], slots: dict[str, int]) -> str | None:
    """Draw the share of inferences that were done within a time, for each row with raw samples.

    Returns:
        An ``<svg>`` element; ``None`` where no row has samples.
    """
    samples = {
        r.key: sorted(ns / 1e6 for p in r.record.processes for ns in p.infer_ns) for r in rows
    }
    drawn = [r for r in rows if samples[r.key]]
    if not drawn:
        return None

    def draw(axes: Axes) -> None:
        for number, row in enumerate(drawn):
            x, y = _thinned(samples[row.key])
            slot = slots[row.key]
            line = DASHES[slot % len(DASHES)]
            axes.plot(x, y, color=SERIES[slot], linestyle=line, linewidth=1.6, gid=tip(row.key))
            # Letters of neighbours stand at different heights, or they would cover each other.
            share = 0.85 - 0.15 * (number % 5)
            at = samples[row.key][int(share * len(samples[row.key]))]
            letter(axes, row.key, (at, 100 * share), SERIES[slot], (8, -4))
        ends = {r.key: samples[r.key][int(0.995 * (len(samples[r.key]) - 1))] for r in drawn}
        latency_axis(axes, [m for r in drawn for m in (samples[r.key][0], ends[r.key])])
        axes.set_xlim(right=1.05 * max(ends.values()))
        axes.set_xlabel("latency of one inference, ms")
        axes.set_ylabel("inferences done, %")
        axes.set_ylim(0, 101)

    return chart(draw, "Share of inferences that were done within a time, for each artefact")


def devices_side_by_side(rows: Sequence[tuple[str, Row]], slots: dict[str, int]) -> str | None:
    """Draw p50, p90 and p99 of one artefact on each of several devices.

    Args:
        rows: for each device the text that stands for it in the page, and the row.
        slots: the palette's slot for each row's key.

    Returns:
        An ``<svg>`` element; ``None`` where there is nothing to draw.
    """
    if not rows:
        return None

    def draw(axes: Axes) -> None:
        shown: list[float] = []
        for place, (_, row) in enumerate(rows):
            found = [value_of(row.record.latency.get(q)) for q in ("p50", "p90", "p99")]
            values = [ns / 1e6 for ns in found if ns is not None]
            colour = SERIES[slots[row.key]]
            axes.plot(values, [place] * len(values), color=colour, linewidth=2.5, alpha=0.45)
            for ns, mark, side in zip(found, "o|d", (9, 11, 6), strict=True):
                if ns is not None:
                    axes.plot(
                        ns / 1e6, place, mark, color=colour, markersize=side, gid=tip(row.key)
                    )
            shown += values
        axes.set_yticks(range(len(rows)), [text for text, _ in rows], weight="bold")
        axes.set_ylim(len(rows) - 0.4, -0.6)
        latency_axis(axes, shown)
        axes.set_xlabel("latency, ms: p50 ●, p90 |, p99 ◆")

    said = ", ".join(f"{text} {(row.p50_ns or 0) / 1e6:.3g} ms" for text, row in rows)
    size = (5.6, 0.9 + 0.42 * len(rows))
    return chart(draw, f"Latency on each device, p50: {said}", size)


def training_curves(curves: Sequence[Curve], label: str) -> str | None:
    """Draw a quantity of one or several trainings over the epochs.

    Args:
        curves: their courses.
        label: the quantity with its unit, in fixed words.

    Returns:
        An ``<svg>`` element; ``None`` where no training has a point.
    """
    drawn = [c for c in curves if c.values]
    if not drawn:
        return None

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for curve in drawn:
            axes.plot(
                curve.epochs,
                curve.values,
                color=SERIES[curve.slot],
                linestyle=DASHES[curve.slot % len(DASHES)],
                linewidth=1.6,
                marker="o" if len(curve.values) < 2 else None,
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)

    return chart(draw, f"{label} over the epochs of training")


def accuracy_of_seeds(arms: Sequence[Sequence[float]], letters: Sequence[str]) -> str:
    """Draw the accuracies of several ways of training: a point for each seed, a bar at the mean.

    Args:
        arms: accuracies in percent, of each way and seed.
        letters: the key of each way.
    """

    def draw(axes: Axes) -> None:
        for number, values in enumerate(arms):
            colour = SERIES[slot_of(number)]
            mean = sum(values) / len(values)
            axes.plot([mean, mean], [number - 0.3, number + 0.3], color=colour, linewidth=2.5)
            axes.plot(values, [number] * len(values), "o", color=colour, markeredgecolor=PAPER)
        axes.set_yticks(range(len(arms)), letters)
        axes.set_ylim(len(arms) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.set_xlabel("top-1 accuracy on the test images, %")

    return chart(draw, "Top-1 accuracy in percent of each seed, for each way of training")


def pareto(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that no other beats in both accuracy and p50 latency, by rising latency."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda r: (r.pace_ns or 0, -(r.top1_pct or 0))):
        if not front or (row.top1_pct or 0) > (front[-1].top1_pct or 0):
            front.append(row)
    return front


def _point(axes: Axes, row: Row, colour: str) -> None:
    accuracy = row.record.accuracy
    if accuracy is None or row.pace_ns is None:
        return
    x, y = row.pace_ns / 1e6, accuracy.top1_pct
    right = max((row.pace_upper_ns or row.pace_ns) / 1e6 - x, 0)
    below, above = max(y - accuracy.low_pct, 0), max(accuracy.high_pct - y, 0)
    drawn = axes.errorbar(
        x,
        y,
        xerr=[[0.0], [right]],
        yerr=[[below], [above]],
        fmt="o",
        color=colour,
        markersize=7,
        markeredgecolor=PAPER,
        elinewidth=1.2,
        capsize=3,
        zorder=3,
    )
    drawn.lines[0].set_gid(tip(row.key))


def _letters(axes: Axes, rows: Sequence[Row], slots: dict[str, int]) -> None:
    """Write each point's letter above its bar, higher where its left neighbour is near."""
    last, level, height = -math.inf, 0, -math.inf
    for row in sorted(rows, key=lambda r: r.pace_ns or 0):
        x = (row.pace_ns or 0) / 1e6
        own = row.record.accuracy.high_pct if row.record.accuracy else 0.0
        share = axes.transAxes.inverted().transform(axes.transData.transform((x, own)))[0]
        near = share - last < 0.04
        level = (level + 1) % 3 if near else 0
        last, height = share, max(own, height) if near else own
        letter(axes, row.key, (x, height), SERIES[slots[row.key]], (0, 4 + 10 * level))


def _staircase(front: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Return the line below which accuracy can be had within a latency."""
    xs: list[float] = []
    ys: list[float] = []
    for row in front:
        x, y = (row.pace_ns or 0) / 1e6, row.top1_pct or 0.0
        if xs:
            xs.append(x)
            ys.append(ys[-1])
        xs.append(x)
        ys.append(y)
    return xs, ys


def _thinned(ordered: Sequence[float], most: int = 400) -> tuple[list[float], list[float]]:
    """Return an empirical distribution in percent, at ``most`` + 1 of its points or fewer."""
    n = len(ordered)
    ranks = sorted({round(i * (n - 1) / most) for i in range(most + 1)})
    return [ordered[r] for r in ranks], [100 * (r + 1) / n for r in ranks]
