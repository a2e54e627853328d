"""Tables as plain text, aligned by the width that a terminal gives each character."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence


def aligned(
    heads: Sequence[str], rows: Sequence[Mapping[str, str]], left: Collection[str]
) -> list[str]:
    """Return a heading, a rule and the rows as lines of equal columns.

    Args:
        heads: the columns in their order.
        rows: one cell for each head; others are left out.
        left: heads whose column is aligned to the left.
    """
    widths = {h: max([_width(h), *(_width(row[h]) for row in rows)]) for h in heads}
    rule = "  ".join("─" * widths[h] for h in heads)
    return [
        _line({h: h for h in heads}, widths, left),
        rule,
        *(_line(row, widths, left) for row in rows),
    ]


def _line(cells: Mapping[str, str], widths: Mapping[str, int], left: Collection[str]) -> str:
    parts = []
    for head, width in widths.items():
        pad = " " * (width - _width(cells[head]))
        parts.append(cells[head] + pad if head in left else pad + cells[head])
    return "  ".join(parts).rstrip()


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    marks = sum(unicodedata.category(c) in ("Mn", "Me", "Cf") for c in text)
    return len(text) + wide - marks
