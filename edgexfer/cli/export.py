"""``edgexfer export``: from a run to a sealed bundle for one or several targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgexfer.cli.machines import fleet_of, machine_options
from edgexfer.cli.options import (
    beside,
    json_option,
    make_section,
    section_options,
    split_targets,
)
from edgexfer.recipe import ExportSection


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--target", required=True, help="Profiles, by name, alias or path: jetson,x86-openvino"
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the bundle.  [default: RUN-bundle]"
)
@section_options(ExportSection, leave_out=("targets",))
@click.option(
    "--explain",
    is_flag=True,
    help="Say what INT8 does to each layer, as a table and in OUT.explain/, also where it fails.",
)
@machine_options()
@json_option
def command(
    run: Path, target: str, out: Path | None, explain: bool, as_json: bool, **given: Any
) -> None:
    """Export a run for its targets; every hop is compared with the one before.

    A hop that fails stops the export: the error says which, by how much, and what to do; no bundle
    is left behind. An INT8 that loses too much is searched for before: other ranges, equalised
    layers and corrected biases, the fewest layers in float. With --precision auto, one that still
    loses too much is left out, the others are timed where the target is this machine, and FP32 and
    the fastest stay. --on names a board on which targets other than this machine are timed; where
    it cannot be had in the end, all that passed stay, and the reason is kept.

    Examples:
      edgexfer export runs/student --target x86-onnxruntime,x86-openvino --out bundle
      edgexfer export runs/student --target jetson --max-drop 0.5 --out bundle
      edgexfer export runs/student --target jetson --stack "JetPack 6.0" --out bundle
      edgexfer export runs/student --target jetson --precision int8 --explain
      edgexfer export runs/student --target rpi5 --on ssh:pi5 --out bundle
      edgexfer profiles list
    """
    from edgexfer.cli.show import show_manifest
    from edgexfer.core.errors import ParityError
    from edgexfer.core.progress import Progress
    from edgexfer.export.measure import board_of
    from edgexfer.export.stage import export

    board = board_of(fleet_of(given))
    section = make_section(ExportSection, given, targets=split_targets(target))
    place = out or beside(run, "-bundle")
    try:
        manifest = export(run, section, place, progress=Progress, explain=explain, board=board)
    except ParityError:
        if explain:
            _show_explanations(place)
        raise
    if explain:
        _show_explanations(place)
    show_manifest(place, manifest, as_json=as_json)


def _show_explanations(place: Path) -> None:
    """Print them on stderr, as a refused export prints nothing else."""
    from edgexfer.core.explanation import explanation_folder, read_explanations
    from edgexfer.export.explain import to_text

    for found in read_explanations(explanation_folder(place)):
        click.echo(to_text(found), err=True)
