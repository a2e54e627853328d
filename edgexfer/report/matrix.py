"""Each artefact on all machines: a table whose rows are artefacts and whose columns are machines.

Machines of one way of measuring alone come into one table, and artefacts of another precision or of
other files have rows of their own. What a cell says of its record is the verdict on its machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgexfer.report.rows import Group, Row

# So many columns fit on a sheet of paper; more machines take further tables.
MOST_MACHINES = 6


@dataclass(frozen=True)
class Line:
    """One artefact.

    Attributes:
        first: the first of its records, which has its names.
        cells: for each machine the records of it: one, unless it was measured again or not at all.
    """

    first: Row
    cells: tuple[tuple[Row, ...], ...]


def lines(groups: Sequence[Group]) -> tuple[Line, ...]:
    """Return the artefacts of groups that differ by machine alone, in the first one's order."""
    found: dict[tuple[object, ...], list[list[Row]]] = {}
    for place, group in enumerate(groups):
        for row in group.rows:
            found.setdefault(_identity(row), [[] for _ in groups])[place].append(row)
    return tuple(
        Line(next(row for cell in cells for row in cell), tuple(map(tuple, cells)))
        for cells in found.values()
    )


def _identity(row: Row) -> tuple[object, ...]:
    """Return what is equal for records of one artefact."""
    artefact = row.record.artefact
    return row.full_name, artefact.get("precision"), artefact.get("sha256")
