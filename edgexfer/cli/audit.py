"""``edgexfer audit``: who is served worse, and who pays for the compression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgexfer.cli.options import (
    json_option,
    make_section,
    refuse_without_data,
    section_options,
)
from edgexfer.recipe import DataSection


@click.command("audit")
@click.argument(
    "subjects",
    metavar="RUN|BUNDLE...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
)
@click.option("--data", "path", help="The images; without it, those the first run trained with.")
@click.option(
    "--by",
    multiple=True,
    metavar="DIVISION",
    help="Also by folder:N below the class (of several tasks, below the data), or by a table: "
    "FILE.csv:COLUMN; repeatable.",
)
@click.option(
    "--max-gap",
    type=click.FloatRange(0, 100),
    help="Exit 1 where a group may be behind the others by more points.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    help="Exit 1 where a group may lose more points from the first model to another.",
)
@section_options(DataSection, leave_out=("path",))
@json_option
def command(
    subjects: tuple[Path, ...],
    path: str | None,
    by: tuple[str, ...],
    max_gap: float | None,
    max_drop: float | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Measure accuracy by class and subgroup, for the teacher, the student and its INT8.

    The first model is the reference: of each other one, the images and groups are named that lose.
    A limit is kept only where the whole interval is within it. Several tasks (--labels) are audited
    each for itself.

    Examples:
      edgexfer audit runs/teacher runs/student bundle --data photos/
      edgexfer audit runs/teacher runs/student --data photos/ --by cameras.csv:site --max-drop 5
    """
    import json

    from edgexfer.core.codec import encode
    from edgexfer.export.audit import audit, over_limit, to_text

    if path is None:
        refuse_without_data(given)
    data = None if path is None else make_section(DataSection, given, path=path)
    found = audit(subjects, data, by)
    missed = over_limit(found, max_gap, max_drop)
    if as_json:
        click.echo(json.dumps({**encode(found), "missed": missed}, indent=2))
    else:
        click.echo("\n".join([to_text(found), *(f"limit: {line}" for line in missed)]))
    return 1 if missed else 0
