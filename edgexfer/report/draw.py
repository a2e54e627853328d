"""How a chart becomes an element of the page: matplotlib's SVG without fonts, colours or styles.

An SVG holds numbers, letters and fixed words alone; names stand in the page's own legends and
tables. Colours leave here as CSS variables, so that one drawing serves light, dark and print, and
no style attribute is left, which the page's content policy would refuse. What is drawn stands in
``charts.py``, ``bars.py`` and ``series.py``.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Drawn in these, then replaced: the page's style sheet decides what they look like.
INK, MUTED, GRID, PAPER, WARN = "#010101", "#020202", "#030303", "#040404", "#050505"
SERIES = tuple(f"#0000{n:02x}" for n in range(0xA0, 0xA8))
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
# Of the parts of a bar, told apart without colour as well; large parts are mostly every second.
HATCHES = ("////", "", "....", "", "xxxx", "")
# Inches; a phone shows a drawing at about this size, so that 9 points stay readable on it.
WIDTH, HEIGHT = 4.8, 3.4
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    WARN: "var(--warn)",
    **{colour: f"var(--s{n})" for n, colour in enumerate(SERIES)},
}
_TIP = "tip."
_RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edgexfer",
    "text.parse_math": False,
    "font.size": 9,
    "hatch.linewidth": 0.7,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "figure.constrained_layout.use": True,
}


def slot_of(number: int) -> int:
    """Return the slot of the page's palette for the n-th series."""
    return number % len(SERIES)


def tip(key: str) -> str:
    """Return the group id that gives a drawn thing the tooltip of a row."""
    return _TIP + key


def chart(
    draw: Callable[[Axes], None], title: str, size: tuple[float, float] = (WIDTH, HEIGHT)
) -> str:
    """Draw on one pair of axes and return the SVG element.

    Args:
        draw: what fills the axes.
        title: what the chart shows, read out in its place.
        size: in inches.
    """
    return drawing(lambda figure: draw(figure.add_subplot()), title, size)


def drawing(draw: Callable[[Figure], None], title: str, size: tuple[float, float]) -> str:
    """Draw on a fresh figure, leave matplotlib's global state alone, and return the SVG element."""
    import io

    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_RC):
        figure = Figure(figsize=size)
        draw(figure)
        figure.patch.set_visible(False)
        for axes in figure.axes:
            axes.patch.set_visible(False)
        stream = io.StringIO()
        none: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(stream, metadata=none)
    return _inline(stream.getvalue(), title)


def letter(
    axes: Axes, key: str, at: tuple[float, float], colour: str, offset: tuple[float, float]
) -> None:
    """Write a row's letter beside a point; the offset is in points."""
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


def plain_log(axis: Any, low: float, high: float) -> None:
    """Label a logarithmic axis that spans these values with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    wide = math.log10(high / low) > 2
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())


def latency_axis(axes: Axes, values: Sequence[float]) -> None:
    """Use a logarithmic x axis where the values spread over more than a factor of five."""
    low, high = min(values), max(values)
    if low <= 0 or high / low < 5:
        axes.set_xlim(left=0)
        return
    axes.set_xscale("log")
    plain_log(axes.xaxis, low, high)


def _inline(text: str, title: str) -> str:
    """Turn matplotlib's document into an element of a page."""
    text = text[text.index("<svg") :]
    # Its style element would hold for the whole page; the page's own says the same for charts.
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    width, height = re.findall(r'(?:width|height)="([\d.]+)pt"', text[:400])[:2]
    head = (
        f'<svg class="chart" role="img" aria-label="{escape(title)}" '
        f'viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    text = head + text[text.index(">") + 1 :]
    text = re.sub(r'\bstyle="([^"]*)"', lambda m: _attributes(m[1]), text)
    tips = re.escape(_TIP)
    text = re.sub(rf'\bid="{tips}(\w+)"', r'class="tip" data-key="\1"', text)
    text = _only_used_ids(text)
    # Ids are unique in one drawing; a page holds several.
    salt = f"c{zlib.crc32(text.encode()):08x}-"
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{salt}", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    # A hundredth of a point is finer than any screen.
    text = re.sub(r"(\d\.\d\d)\d+", r"\1", text)
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _attributes(style: str) -> str:
    """Return a style as presentation attributes; the font is the page's."""
    pairs = [pair.partition(":") for pair in style.split(";") if pair.strip()]
    kept = [(n.strip(), v.strip()) for n, _, v in pairs if n.strip() != "font-family"]
    return " ".join(f'{name}="{value}"' for name, value in kept)


def _only_used_ids(text: str) -> str:
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    return re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", text)
