"""Figures and names as people read them: units, intervals, text without control characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

MISSING = "–"
# Characters that reorder or break a line would let a name lie about what stands beside it.
_REORDER = {chr(c) for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F)}
_BREAK = {"\u2028", "\u2029"}


def clean(text: object, most: int = 200) -> str:
    """Return a name as one line of printable text, cut at ``most`` characters.

    Control characters and those that reorder text become U+FFFD; HTML is left to the page, which
    escapes everything.
    """
    shown = "".join(
        "\ufffd" if unicodedata.category(c) == "Cc" or c in _REORDER or c in _BREAK else c
        for c in str(text)
    )
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def tied(text: str) -> str:
    """Return text in which no line breaks between a number and its unit."""
    return re.sub(r"(?<=\d) (?=(?:%|ms|mJ|B|kB|MB|GB|dB|points?)(?:\W|$))", "\u00a0", text)


def milliseconds(ns: float | None) -> str:
    """Return nanoseconds as milliseconds with three significant digits and the unit."""
    if ns is None:
        return MISSING
    return f"{significant(ns / 1e6)} ms"


def significant(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits, never in powers of ten."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    whole = len(str(int(abs(rounded)))) if abs(rounded) >= 1 else 0
    if whole:
        return f"{rounded:.{max(digits - whole, 0)}f}"
    places = digits - 1 - int(f"{rounded:e}".split("e")[1])
    return f"{rounded:.{places}f}"


def size(count: float | None) -> str:
    """Return bytes in the nearest SI unit."""
    if count is None:
        return MISSING
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{significant(count / factor)} {unit}"
    return f"{count:.0f} B"


def energy(millijoules: float | None) -> str:
    """Return an energy with three significant digits."""
    return MISSING if millijoules is None else f"{significant(millijoules)} mJ"


def percent(value: float | None) -> str:
    """Return a percentage with one place; two places above 99 %, where one hides the errors."""
    if value is None:
        return MISSING
    return f"{value:.2f} %" if 99 <= value < 100 else f"{value:.1f} %"


def points(value: float) -> str:
    """Return a difference of two percentages, unsigned."""
    text = f"{abs(value):.1f}" if abs(value) >= 0.095 or value == 0 else f"{abs(value):.2f}"
    return f"{text} point" if text == "1.0" else f"{text} points"


def signed(value: float) -> str:
    """Return a difference of two percentages with its sign, without a unit."""
    text = f"{abs(value):.1f}"
    return text if text == "0.0" or value > 0 else "−" + text


def times(value: float | None) -> str:
    """Return a ratio, ``3.2×``."""
    return MISSING if value is None else f"{significant(value, 2)}×"


def count(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: ``1 image``, ``360 images``."""
    return f"{number:,}".replace(",", "\u202f") + f" {one if number == 1 else many or one + 's'}"


def joined(names: Sequence[str]) -> str:
    """Return names as a list in a sentence: ``a, b and c``."""
    if len(names) < 2:
        return "".join(names)
    return ", ".join(names[:-1]) + " and " + names[-1]
