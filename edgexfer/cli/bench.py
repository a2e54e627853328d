"""``edgexfer bench``: accuracy and latency of a bundle's artefacts on a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgexfer.cli.options import (
    beside,
    json_option,
    make_section,
    section_options,
    split_targets,
)
from edgexfer.recipe import BenchSection


@click.command("bench")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--target", help="Profiles; without it, all artefacts that can run here.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the records, or record.json.  [default: BUNDLE-bench]",
)
@section_options(BenchSection)
@json_option
def command(
    bundle: Path, target: str | None, out: Path | None, as_json: bool, **given: Any
) -> None:
    """Measure each artefact in fresh processes, interleaved, with accuracy on the bundle's images.

    Records keep every raw sample. A record that is not trustworthy says so and why.

    Examples:
      edgexfer bench bundle
      edgexfer bench bundle --target x86-openvino --threads 2 --out record.json
      edgexfer report bundle bundle-bench
    """
    from edgexfer.cli.show import show_records
    from edgexfer.core.progress import Progress
    from edgexfer.core.record import read_record
    from edgexfer.remote.bench import How, bench_bundles

    targets = None if target is None else split_targets(target)
    section = make_section(BenchSection, given)
    place = out or beside(bundle, "-bench")
    single = place.suffix == ".json"
    folder = place.with_suffix("") if single else place
    how = How(targets, section, Progress)
    records = bench_bundles([bundle], folder, how)
    if single and len(records) == 1:
        records = [records[0].replace(place)]
        if not any(folder.iterdir()):
            folder.rmdir()
    show_records([read_record(path) for path in records], records, as_json=as_json)
