"""``edgexfer report``: trips, runs, bundles and records as one page."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("report")
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--out", default="report.html", show_default=True, type=click.Path(path_type=Path)
)
def command(inputs: tuple[Path, ...], out: Path) -> None:
    """Draw everything found in INPUTS into one HTML page that opens offline.

    Beside report.html come report.md, for a pull request or a wiki, and report.csv, one row per
    record. Name the records of many runs and machines to compare them; what was measured in unlike
    ways stands apart and is not ranked together.

    Examples:
      edgexfer report runs/quickstart
      edgexfer report bundle bundle-bench -o report.html
    """
    from edgexfer.report.page import build

    click.echo(build(inputs, out))
