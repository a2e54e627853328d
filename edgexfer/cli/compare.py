"""``edgexfer compare``: is one measured artefact faster than another, or more accurate?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgexfer.cli.gates import check_gates, gate_options, read_gates
from edgexfer.cli.options import json_option

if TYPE_CHECKING:
    from edgexfer.bench.verdict import Row, Verdict
    from edgexfer.core.record import Record


# What a record says of itself may hold anything; so much of it is shown.
_WIDEST = 1000


@click.command("compare")
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option(
    "--delta",
    type=click.FloatRange(0, 100, min_open=True),
    default=2.0,
    show_default=True,
    help="Changes of time up to so many percent are the same.",
)
@click.option(
    "--delta-pt",
    type=click.FloatRange(0, 100, min_open=True),
    default=0.5,
    show_default=True,
    help="Changes of accuracy up to so many points are the same.",
)
@click.option(
    "--across",
    default="",
    metavar="LIST",
    help="What differs on purpose: batch, streams, threads, precision, power_mode, machine, data.",
)
@gate_options
@json_option
def command(
    first: Path,
    second: Path,
    delta: float,
    delta_pt: float,
    across: str,
    gate: str | None,
    junit: Path | None,
    as_json: bool,
) -> None:
    """Compare the record SECOND with the record FIRST: faster, slower, same or inconclusive.

    Records of one `edgexfer bench` are compared process by process, as they were interleaved: take
    ten processes to see 3 %. What was not measured alike is refused.

    Examples:
      edgexfer compare bundle-bench/x86-onnxruntime-fp32.json record.json --across precision
      edgexfer compare before.json after.json --gate 'latency_p50_change_pct<3'
    """
    import json

    from edgexfer.bench.gate import judge_pair
    from edgexfer.bench.verdict import Delta, compare
    from edgexfer.core.codec import encode
    from edgexfer.core.record import read_record

    gates = read_gates(gate, junit)
    records = (read_record(first), read_record(second))
    allowed = [part.strip() for part in across.split(",") if part.strip()]
    found = compare(*records, Delta(delta, delta_pt), allowed)
    if as_json:
        click.echo(json.dumps(encode(found), indent=2))
    else:
        click.echo(_in_words(records, (first, second), found, delta))
    check_gates(judge_pair(*records, found.rows, gates), junit, f"{first} {second}")


def _in_words(
    records: Sequence[Record], places: Sequence[Path], found: Verdict, delta: float
) -> str:
    from edgexfer.report.words import clean

    lines = [
        f"{letter}  {place}: {record.artefact.get('name')}, {record.status}"
        for letter, place, record in zip("AB", places, records, strict=True)
    ]
    lines += [f"   note: {doubt}" for doubt in found.doubts]
    if found.across:
        lines.append(f"   note: they differ in {', '.join(found.across)}, as was allowed")
    table: list[tuple[str, ...]] = [("metric", "A", "B", "B against A", "99 % interval", "verdict")]
    table += [_cells(row) for row in found.rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    one, other = found.processes
    how = (
        f"{one} pairs of interleaved processes" if found.paired else f"{one} and {other} processes"
    )
    lines.append(f"{how}; the same is within {delta:g} %; 1 % of false alarms in all rows together")
    return "\n".join(clean(line, _WIDEST) for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    unit = "points" if row.unit == "%" else "%"
    figures = [
        "-" if value is None else f"{value:.4g} {row.unit}" for value in (row.first, row.second)
    ]
    name = row.metric.replace("_", " ")
    verdict = f"{row.verdict}: {row.reason}" if row.reason else row.verdict
    if row.change is None:
        return (name, *figures, "-", "-", verdict)
    interval = f"{row.low:+.2f} to {row.high:+.2f}"
    return (name, *figures, f"{row.change:+.2f} {unit}", interval, verdict)
