"""Labels from a table: several questions about each image, each a task with classes of its own.

The table is a CSV file in UTF-8. Its first column ``image`` names an image as the data set does, by
its path below the folder; each further column is a task; an empty cell is no label. Which folder an
image lies in then says nothing of its class.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgexfer.core.errors import DataError, nearest
from edgexfer.core.tasks import Task, class_names, spans
from edgexfer.data.sources import Source
from edgexfer.data.split import Entry

IMAGE = "image"
_HEADER = "begin the table with the line: image,TASK,TASK"


@dataclass(frozen=True)
class Table:
    """A table of labels.

    Attributes:
        path: the file.
        tasks: its columns, their classes in the order of their names.
        cells: for each image its classes, by task; empty for none.
    """

    path: Path
    tasks: tuple[Task, ...]
    cells: dict[str, tuple[str, ...]]

    def places(self, keys: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the labels of images as places among the outputs, int64 (N, T); -1 for none."""
        starts = [start for start, _ in spans(self.tasks, 0)]
        index = [
            {"": -1, **{name: start + i for i, name in enumerate(task.classes)}}
            for task, start in zip(self.tasks, starts, strict=True)
        ]
        rows = [[i[cell] for i, cell in zip(index, self.cells[k], strict=True)] for k in keys]
        return np.array(rows, np.int64).reshape(len(keys), len(self.tasks))


def read_labels(path: str) -> Table:
    """Read a table of labels.

    Raises:
        DataError: with the line of what is wrong.
    """
    place = Path(path).expanduser()
    try:
        with place.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            # Neither empty lines nor breaks within quotes are rows.
            lines = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{place}: cannot be read as a table of labels ({reason})",
            "name a CSV file in UTF-8 with data.labels",
        ) from error
    names = _names(place, lines[0][1] if lines else [])
    cells: dict[str, tuple[str, ...]] = {}
    for number, row in lines[1:]:
        if len(row) != len(names) + 1:
            raise DataError(
                f"{place}:{number}: has {len(row)} cells, the first line has {len(names) + 1}",
                "give every row one cell for each column; an empty cell is no label",
            )
        key, *found = (cell.strip() for cell in row)
        if key in cells:
            raise DataError(f"{place}:{number}: {key} is there twice", "keep one of the rows")
        cells[key] = tuple(found)
    columns = zip(*cells.values(), strict=True) if cells else [()] * len(names)
    tasks = tuple(
        Task(name, tuple(sorted(set(column) - {""})))
        for name, column in zip(names, columns, strict=True)
    )
    for task in tasks:
        if len(task.classes) < 2:
            only = f"only the class {task.classes[0]!r}" if task.classes else "no label"
            raise DataError(
                f"{place}: task {task.name} has {only}",
                "a task needs at least two classes; leave its column out",
            )
    return Table(place, tasks, cells)


def relabel(source: Source, table: Table) -> tuple[Source, tuple[str, ...]]:
    """Give images the labels of a table; those that have none at all are left out.

    Returns:
        The images, each with its class in the first task, which they are split and limited by; and
        a note on what was left out.

    Raises:
        DataError: the table names an image that is not there, or a class has too few images.
    """
    keys = {entry.key for entries in source.splits.values() for entry in entries}
    unknown = [key for key in table.cells if key not in keys]
    if unknown:
        raise DataError(
            f"{table.path}: names {len(unknown)} images that are not there, such as {unknown[0]}",
            f"{nearest(unknown[0], sorted(keys))}; a name is a path below the folder of images",
        )
    splits = {
        name: [
            Entry(entry.key, table.cells[entry.key][0])
            for entry in entries
            if any(table.cells.get(entry.key, ()))
        ]
        for name, entries in source.splits.items()
    }
    _refuse_rare(splits, table)
    left = len(keys) - sum(len(entries) for entries in splits.values())
    notes = (f"{left} images left out: {table.path} has no label of them",) * bool(left)
    return Source(splits, source.read, class_names(table.tasks)), notes


def _names(place: Path, header: list[str]) -> list[str]:
    first, *names = [cell.strip() for cell in header] or [""]
    if first != IMAGE:
        raise DataError(f"{place}: its first column is {first!r}, expected {IMAGE!r}", _HEADER)
    if not names:
        raise DataError(f"{place}: has no column beside {IMAGE!r}", _HEADER)
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise DataError(
                f"{place}: column {name!r} cannot be the name of an output",
                "name it with letters, digits and underscores",
            )
        if names.count(name) > 1:
            raise DataError(f"{place}: column {name!r} is there twice", "keep one of them")
    return names


def _refuse_rare(splits: dict[str, list[Entry]], table: Table) -> None:
    trained = splits.get("train", splits.get("", []))
    for number, task in enumerate(table.tasks):
        counts = Counter(table.cells[entry.key][number] for entry in trained)
        for name in task.classes:
            if counts[name] < 2:
                raise DataError(
                    f"{table.path}: class {name!r} of task {task.name} has {counts[name]} training "
                    f"image{'' if counts[name] == 1 else 's'}",
                    "label at least 2 images of each class, or clear its cells",
                )
