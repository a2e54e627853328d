"""What verbs print when they are done: one place, so that results look alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgexfer.core.codec import encode
from edgexfer.report.former import forgetting

if TYPE_CHECKING:
    from edgexfer.core.bundle import Manifest, Rung
    from edgexfer.core.record import Record
    from edgexfer.core.rundir import RunInfo
    from edgexfer.core.stats import PairedDrop
    from edgexfer.core.sweep import Sweep
    from edgexfer.distill.sweep import Outcome
    from edgexfer.pipeline import Trip


def show_run(
    place: Path,
    info: RunInfo,
    *,
    as_json: bool,
    following: str,
    sweep: Sweep | None = None,
    distance: str | None = None,
) -> None:
    """Print what a training came to, what it was compared with, and how to go on from it.

    Args:
        place: folder of the run.
        info: what it says of itself.
        as_json: print one document instead.
        following: the command that goes on.
        sweep: what the training was compared with.
        distance: in words, how far the source's pictures are.
    """
    if not info.result:
        return  # one of several processes of a training; the leader speaks for all
    if as_json:
        compared = {"guard": encode(sweep), "distance": distance} if sweep is not None else {}
        click.echo(json.dumps({**encode(info), **compared}, indent=2))
        return
    for warning in info.result.get("warnings", ()):
        click.echo(f"warning: {warning}", err=True)
    test = info.result["test"]
    click.echo(
        f"{place}: {info.result['model']}, {info.result['parameters'] / 1e6:.2f} M parameters, "
        f"{_accuracy(test)} on {test['n']} test images"
    )
    for task in test.get("tasks", ()):
        told = "no labels" if task["top1_pct"] is None else f"{_accuracy(task)}, n={task['n']}"
        click.echo(f"  task {task['name']}: {told}")
    if (kept := forgetting(info.result)) is not None:
        click.echo(f"  {kept}")
    if sweep is not None:
        from edgexfer.report.sweep import sweep_answer, sweep_table

        click.echo(sweep_table(sweep))
        click.echo(sweep_answer(sweep))
    if distance is not None:
        click.echo(distance)
    click.echo(f"Next: {following}")


def show_distillation(place: Path, outcome: Outcome, *, as_json: bool) -> None:
    """Print what a student came to, and whether its teacher helped."""
    from edgexfer.training.predictions import compare_runs

    if not outcome.student.result:
        return  # one of several processes of a training; the leader speaks for all
    compared = outcome.control is not None and outcome.sweep is None
    gain = compare_runs(place, outcome.control_place) if compared else None
    if as_json:
        beside = {"control": outcome.control, "gain": gain, "sweep": outcome.sweep}
        found = {name: encode(part) for name, part in beside.items() if part is not None}
        student = encode(outcome.student)
        click.echo(json.dumps({"student": student, **found} if found else student, indent=2))
        return
    for warning in outcome.student.result.get("teacher", {}).get("warnings", ()):
        click.echo(f"warning: {warning}", err=True)
    target = outcome.student.config.get("qat_for") or "x86-onnxruntime"
    following = f"edgexfer export {place} --target {target} --out bundle"
    show_run(place, outcome.student, as_json=False, following=following)
    if gain is not None:
        click.echo(
            f"{outcome.control_place}: the control, without the teacher. {gain_in_words(gain)}"
        )
    if outcome.sweep is not None:
        from edgexfer.report.sweep import sweep_answer, sweep_table

        click.echo(sweep_table(outcome.sweep))
        click.echo(sweep_answer(outcome.sweep) or f"The runs are in {outcome.folder}.")


def gain_in_words(gain: PairedDrop) -> str:
    """Say what a paired difference (student minus control) shows, and no more than that."""
    span = f"{gain.drop_pt:+.2f} points (95 % interval {gain.low_pt:+.2f} to {gain.high_pt:+.2f})"
    if gain.low_pt > 0:
        return f"The teacher helps: {span}, one seed."
    if gain.high_pt < 0:
        return f"The teacher hurts: {span}, one seed."
    return f"No difference shown: {span}, one seed, {gain.n} images."


def show_manifest(place: Path, manifest: Manifest, *, as_json: bool) -> None:
    """Print a bundle's parity ladder, why its precisions were chosen, and its artefacts."""
    if as_json:
        click.echo(json.dumps(encode(manifest), indent=2))
        return
    for rung in manifest.parity:
        click.echo(f"  {_rung(rung)}")
        for note in rung.notes:
            click.echo(f"      note: {note}")
    for choice in manifest.choices:
        click.echo(f"  {choice.target}: {choice.verdict}")
        for doubt in choice.doubts:
            click.echo(f"      note: {doubt}")
    for artefact in manifest.artefacts:
        size = sum(f.bytes for f in artefact.files)
        click.echo(f"  {artefact.name}: {artefact.files[0].path}, {size / 1e6:.2f} MB")
    click.echo(
        f"{place}: sealed, {len(manifest.artefacts)} artefacts\nNext: edgexfer bench {place}"
    )


def show_records(records: Sequence[Record], places: Sequence[Path], *, as_json: bool) -> None:
    """Print records as the table that a newcomer understands."""
    from edgexfer.report.again import mend
    from edgexfer.report.table import summary_table

    if as_json:
        click.echo(json.dumps(encode(list(records)), indent=2))
        return
    click.echo(summary_table(records))
    for place in places:
        click.echo(place)
    _tell(mend(records, "Run the same command again"))


def show_trip(trip: Trip) -> None:
    """Print the table of a whole trip, whether the teacher helped, and where the report is."""
    from edgexfer.core.bundle import MANIFEST
    from edgexfer.core.files import sha256_file
    from edgexfer.core.record import read_record
    from edgexfer.report.again import mend
    from edgexfer.report.sweep import sweep_table
    from edgexfer.report.table import summary_table

    places = {"student": trip.path / "bundle", "teacher": trip.path / "teacher-bundle"}
    roles = {sha256_file(b / MANIFEST): role for role, b in places.items() if b.is_dir()}
    records = [read_record(p) for p in trip.records]
    click.echo(summary_table(records, roles=roles))
    bench = trip.path / "bench"
    _tell(mend(records, f"To measure again alone, delete {bench} and run the same command"))
    if trip.sweep is not None:
        click.echo(sweep_table(trip.sweep))
    elif trip.gain is not None:
        click.echo(gain_in_words(trip.gain))
    click.echo(f"Report: {trip.report}")


def _tell(text: str) -> None:
    if text:
        click.echo(text)


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
