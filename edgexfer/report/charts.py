"""Charts as inline SVG: accuracy against latency, latency distributions, training curves.

An SVG holds numbers and fixed words alone; names stand in the page's own legends, keyed by letter.
Colours leave here as CSS variables, so that one drawing serves light, dark and print.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgexfer.report.rows import Row, upper_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Drawn in these, then replaced: the page's style sheet decides what they look like.
_INK, _MUTED, _GRID, _PAPER = "#010101", "#020202", "#030303", "#040404"
_SERIES = tuple(f"#0000{n:02x}" for n in range(0xA0, 0xA8))
_VARIABLES = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _GRID: "var(--grid)",
    _PAPER: "var(--paper)",
    **{colour: f"var(--s{n})" for n, colour in enumerate(_SERIES)},
}
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
# Inches; a phone shows the drawing at about this size, so that 9 points stay readable on it.
_WIDTH, _HEIGHT = 4.8, 3.4
_RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edgexfer",
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "text.color": _INK,
    "figure.constrained_layout.use": True,
}


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


def colour_slot(number: int) -> int:
    """Return the slot of the page's palette for the n-th series."""
    return number % len(_SERIES)


def accuracy_latency(rows: Sequence[Row], slots: dict[str, int]) -> str | None:
    """Draw top-1 accuracy against p50 latency, with error bars and the Pareto front.

    Args:
        rows: comparable rows; those without accuracy or usable latency are left out.
        slots: the palette's slot for each row's key.

    Returns:
        An ``<svg>`` element; ``None`` where there is nothing to draw.
    """
    shown = [r for r in rows if r.usable and r.record.accuracy]
    if not shown:
        return None

    def draw(axes: Axes) -> None:
        front = pareto(shown)
        xs, ys = _staircase(front)
        axes.plot(xs, ys, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for row in shown:
            _point(axes, row, _SERIES[slots[row.key]])
        _latency_axis(axes, [(r.p50_ns or 0) / 1e6 for r in shown])
        axes.set_xlabel("p50 latency, ms")
        axes.set_ylabel("top-1 accuracy, %")
        axes.margins(x=0.12, y=0.18)
        _letters(axes, shown, slots)

    keys = ", ".join(
        f"{r.key} {(r.p50_ns or 0) / 1e6:.3g} ms {r.top1_pct:.1f} %" for r in shown if r.top1_pct
    )
    return _svg(draw, f"Top-1 accuracy in percent against p50 latency in milliseconds: {keys}")


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
            line = _DASHES[slot % len(_DASHES)]
            axes.plot(x, y, color=_SERIES[slot], linestyle=line, linewidth=1.6)
            # Letters of neighbours stand at different heights, or they would cover each other.
            share = 0.85 - 0.15 * (number % 5)
            at = samples[row.key][int(share * len(samples[row.key]))]
            _letter(axes, row.key, (at, 100 * share), _SERIES[slot], (8, -4))
        ends = {r.key: samples[r.key][int(0.995 * (len(samples[r.key]) - 1))] for r in drawn}
        _latency_axis(axes, [m for r in drawn for m in (samples[r.key][0], ends[r.key])])
        axes.set_xlim(right=1.05 * max(ends.values()))
        axes.set_xlabel("latency of one inference, ms")
        axes.set_ylabel("inferences done, %")
        axes.set_ylim(0, 101)

    return _svg(draw, "Share of inferences that were done within a time, for each artefact")


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
                color=_SERIES[curve.slot],
                linestyle=_DASHES[curve.slot % len(_DASHES)],
                linewidth=1.6,
                marker="o" if len(curve.values) < 2 else None,
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)

    return _svg(draw, f"{label} over the epochs of training")


def accuracy_of_seeds(arms: Sequence[Sequence[float]], letters: Sequence[str]) -> str:
    """Draw the accuracies of several ways of training: a point for each seed, a bar at the mean.

    Args:
        arms: accuracies in percent, of each way and seed.
        letters: the key of each way.
    """

    def draw(axes: Axes) -> None:
        for number, values in enumerate(arms):
            colour = _SERIES[colour_slot(number)]
            mean = sum(values) / len(values)
            axes.plot([mean, mean], [number - 0.3, number + 0.3], color=colour, linewidth=2.5)
            axes.plot(values, [number] * len(values), "o", color=colour, markeredgecolor=_PAPER)
        axes.set_yticks(range(len(arms)), letters)
        axes.set_ylim(len(arms) - 0.4, -0.6)
        axes.margins(x=0.08)
        axes.set_xlabel("top-1 accuracy on the test images, %")

    return _svg(draw, "Top-1 accuracy in percent of each seed, for each way of training")


def pareto(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that no other beats in both accuracy and p50 latency, by rising latency."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda r: (r.p50_ns or 0, -(r.top1_pct or 0))):
        if not front or (row.top1_pct or 0) > (front[-1].top1_pct or 0):
            front.append(row)
    return front


def _point(axes: Axes, row: Row, colour: str) -> None:
    accuracy = row.record.accuracy
    if accuracy is None or row.p50_ns is None:
        return
    x, y = row.p50_ns / 1e6, accuracy.top1_pct
    upper = upper_of(row.record.latency.get("p50"))
    right = max((upper or row.p50_ns) / 1e6 - x, 0)
    below, above = max(y - accuracy.low_pct, 0), max(accuracy.high_pct - y, 0)
    axes.errorbar(
        x,
        y,
        xerr=[[0.0], [right]],
        yerr=[[below], [above]],
        fmt="o",
        color=colour,
        markersize=7,
        markeredgecolor=_PAPER,
        elinewidth=1.2,
        capsize=3,
        zorder=3,
    )


def _letters(axes: Axes, rows: Sequence[Row], slots: dict[str, int]) -> None:
    """Write each point's letter above its bar, higher where its left neighbour is near."""
    last, level = -math.inf, 0
    for row in sorted(rows, key=lambda r: r.p50_ns or 0):
        at = ((row.p50_ns or 0) / 1e6, row.record.accuracy.high_pct if row.record.accuracy else 0)
        share = axes.transAxes.inverted().transform(axes.transData.transform(at))[0]
        level = (level + 1) % 3 if share - last < 0.04 else 0
        last = share
        _letter(axes, row.key, at, _SERIES[slots[row.key]], (0, 4 + 10 * level))


def _letter(
    axes: Axes, key: str, at: tuple[float, float], colour: str, offset: tuple[float, float]
) -> None:
    axes.annotate(
        key,
        at,
        offset,
        textcoords="offset points",
        ha="center",
        color=colour,
        weight="bold",
        zorder=4,
    )


def _latency_axis(axes: Axes, values: Sequence[float]) -> None:
    """Use a logarithmic axis where the values spread over more than a factor of five."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = min(values), max(values)
    if low <= 0 or high / low < 5:
        axes.set_xlim(left=0)
        return
    axes.set_xscale("log")
    wide = math.log10(high / low) > 2
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _staircase(front: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Return the line below which accuracy can be had within a latency."""
    xs: list[float] = []
    ys: list[float] = []
    for row in front:
        x, y = (row.p50_ns or 0) / 1e6, row.top1_pct or 0.0
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


def _svg(draw: Callable[[Axes], None], title: str) -> str:
    """Draw on fresh axes, leave matplotlib's global state alone, and return the SVG element."""
    import io

    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_RC):
        figure = Figure(figsize=(_WIDTH, _HEIGHT))
        draw(figure.add_subplot())
        figure.patch.set_visible(False)
        figure.axes[0].patch.set_visible(False)
        stream = io.StringIO()
        none: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(stream, metadata=none)
    return _inline(stream.getvalue(), title)


def _inline(text: str, title: str) -> str:
    """Turn matplotlib's document into an element of a page."""
    text = text[text.index("<svg") :]
    # Its style element would hold for the whole page; the page's own says the same for charts.
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    width, height = re.findall(r'(?:width|height)="([\d.]+)pt"', text[:400])[:2]
    head = (
        f'<svg class="chart" role="img" viewBox="0 0 {width} {height}" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f"<title>{title}</title>"
    )
    text = head + text[text.index(">") + 1 :]
    text = re.sub(r"(font(?:-family)?:[^;\"]*?)'[^;\"]*", r"\1system-ui, sans-serif", text)
    # Ids are unique in one drawing; a page holds several.
    salt = f"c{zlib.crc32(text.encode()):08x}-"
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{salt}", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    return re.sub(r"\n\s*", "\n", text).strip()
