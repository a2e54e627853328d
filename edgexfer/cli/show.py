"""What verbs print when they are done: one place, so that results look alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgexfer.core.codec import encode

if TYPE_CHECKING:
    from edgexfer.core.bundle import Manifest, Rung
    from edgexfer.core.record import Record
    from edgexfer.core.rundir import RunInfo
    from edgexfer.pipeline import Trip


def show_run(place: Path, info: RunInfo, *, as_json: bool, following: str) -> None:
    """Print what a training came to, and the command that goes on from it."""
    if not info.result:
        return  # one of several processes of a training; the leader speaks for all
    if as_json:
        click.echo(json.dumps(encode(info), indent=2))
        return
    test = info.result["test"]
    click.echo(
        f"{place}: {info.result['model']}, {info.result['parameters'] / 1e6:.2f} M parameters, "
        f"{_accuracy(test)} on {test['n']} test images"
    )
    click.echo(f"Next: {following}")


def show_control(place: Path, control: Path, infos: Sequence[RunInfo], *, as_json: bool) -> None:
    """Print whether the teacher helped: the student against the same student without it."""
    from edgexfer.training.stage import compare_runs

    gain = compare_runs(place, control)
    if as_json:
        student, without = (encode(info) for info in infos)
        found = {"student": student, "control": without, "gain": encode(gain)}
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{control}: the control, without the teacher. {gain_in_words(gain)}")


def gain_in_words(gain: Any) -> str:
    """Say what a paired difference (student minus control) shows, and no more than that."""
    span = f"{gain.drop_pt:+.2f} points (95 % interval {gain.low_pt:+.2f} to {gain.high_pt:+.2f})"
    if gain.low_pt > 0:
        return f"The teacher helps: {span}, one seed."
    if gain.high_pt < 0:
        return f"The teacher hurts: {span}, one seed."
    return f"No difference shown: {span}, one seed, {gain.n} images."


def show_manifest(place: Path, manifest: Manifest, *, as_json: bool) -> None:
    """Print a bundle's artefacts and its parity ladder."""
    if as_json:
        click.echo(json.dumps(encode(manifest), indent=2))
        return
    for rung in manifest.parity:
        click.echo(f"  {_rung(rung)}")
        for note in rung.notes:
            click.echo(f"      note: {note}")
    for artefact in manifest.artefacts:
        size = sum(f.bytes for f in artefact.files)
        click.echo(f"  {artefact.name}: {artefact.files[0].path}, {size / 1e6:.2f} MB")
    click.echo(
        f"{place}: sealed, {len(manifest.artefacts)} artefacts\nNext: edgexfer bench {place}"
    )


def show_records(records: Sequence[Record], places: Sequence[Path], *, as_json: bool) -> None:
    """Print records as the table that a newcomer understands."""
    from edgexfer.report.table import summary_table

    if as_json:
        click.echo(json.dumps(encode(list(records)), indent=2))
        return
    click.echo(summary_table(records))
    for place in places:
        click.echo(place)


def show_trip(trip: Trip) -> None:
    """Print the table of a whole trip, whether the teacher helped, and where the report is."""
    from edgexfer.core.bundle import MANIFEST
    from edgexfer.core.files import sha256_file
    from edgexfer.core.record import read_record
    from edgexfer.report.table import summary_table

    places = {"student": trip.path / "bundle", "teacher": trip.path / "teacher-bundle"}
    roles = {sha256_file(b / MANIFEST): role for role, b in places.items() if b.is_dir()}
    click.echo(summary_table([read_record(p) for p in trip.records], roles=roles))
    if trip.gain is not None:
        click.echo(gain_in_words(trip.gain))
    click.echo(f"Report: {trip.report}")


def _accuracy(score: dict[str, Any]) -> str:
    return (
        f"{score['top1_pct']:.2f} % "
        f"(95 % interval {score['low_pct']:.1f} to {score['high_pct']:.1f})"
    )


def _rung(rung: Rung) -> str:
    ratio = "equal to the bit" if rung.sqnr_db is None else f"SQNR {rung.sqnr_db:.1f} dB"
    parts = [f"{rung.name:28} {ratio}", f"agreement {rung.agreement_pct:.2f} %"]
    if rung.drop_pt is not None:
        interval = f"{rung.drop_low_pt:+.2f} to {rung.drop_high_pt:+.2f}"
        parts.append(f"drop {rung.drop_pt:+.2f} points ({interval})")
    return ", ".join(parts)
