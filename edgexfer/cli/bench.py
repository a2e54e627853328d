"""``edgexfer bench``: accuracy and latency of a bundle's artefacts or of any model on a machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgexfer.cli.gates import check_gates, gate_options, read_gates
from edgexfer.cli.machines import fleet_of, machine_options
from edgexfer.cli.options import (
    beside,
    json_option,
    make_section,
    section_options,
    split_names,
    split_targets,
)
from edgexfer.recipe import BenchSection

if TYPE_CHECKING:
    from edgexfer.core.record import Record


@click.command("bench")
@click.argument("bundle", type=click.Path(path_type=Path), metavar="BUNDLE_OR_MODEL")
@click.option("--target", help="Profiles; without it, all artefacts that can run here.")
@click.option(
    "--runtime",
    help="Runtimes with commas between them: each is measured.  [default: a bundle's own; of a "
    "model the first of onnxruntime, openvino, tensorrt, torch that loads it]",
)
@click.option(
    "--precision",
    help="Precisions likewise: fp32, fp16, bf16, int8.  [default: a bundle's own; of a model the "
    "one that is written in it]",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="INPUT:1x3x224x224",
    help="Size of an input that a model leaves free; may be given again.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the records, or record.json.  [default: BUNDLE-bench]",
)
@click.option(
    "--reanalyse",
    is_flag=True,
    help="Measure nothing: make every figure of a record again from its raw samples, and say "
    "which differ; --out FILE keeps what was made.",
)
@section_options(BenchSection)
@gate_options
@machine_options("work side by side")
@json_option
def command(
    bundle: Path,
    target: str | None,
    out: Path | None,
    as_json: bool,
    reanalyse: bool,
    gate: str | None,
    junit: Path | None,
    **given: Any,
) -> None:
    """Measure each artefact in fresh processes, interleaved, with accuracy on the bundle's images.

    Takes any ONNX file, OpenVINO IR (.xml) or TensorRT engine too, without accuracy. Records keep
    every raw sample. A record that is not trustworthy says so and why.

    Examples:
      edgexfer bench bundle
      edgexfer bench model.onnx --runtime onnxruntime,openvino --precision fp32,bf16
      edgexfer bench bundle --scenario server --latency-bound-ms 20
      edgexfer bench bundle --target x86-openvino --threads 2 --out record.json
      edgexfer bench bundle --gate 'latency_p90_ms<8,top1_drop_pt<0.5' --junit gates.xml
      edgexfer bench --reanalyse record.json
      edgexfer bench bundle --on ssh:pi5,ssh:nano,local
      edgexfer report bundle bundle-bench
    """
    from edgexfer.bench.bare import Wish
    from edgexfer.bench.gate import judge_records
    from edgexfer.cli.show import show_records
    from edgexfer.core.files import refuse_foreign
    from edgexfer.core.progress import Progress
    from edgexfer.core.record import START, read_record
    from edgexfer.remote.bench import How
    from edgexfer.remote.fleet import bench_on

    gates = read_gates(gate, junit)
    if reanalyse:
        rebuilt = _again(bundle, out)
        if as_json:
            show_records([rebuilt], [], as_json=True)
        else:
            click.echo(f"{bundle}: every figure follows from its samples, to the bit")
        check_gates(judge_records([rebuilt], gates), junit, str(bundle))
        return
    targets = None if target is None else split_targets(target)
    section = make_section(BenchSection, given)
    place = out or beside(bundle, "-bench")
    single = place.suffix == ".json"
    if single:
        refuse_foreign(place, START)
    folder = place.with_suffix("") if single else place
    names = split_names(given["runtime"]), split_names(given["precision"])
    wish = Wish(*names, dict(map(_shape, given["shapes"])))
    how = How(targets, section, Progress, wish=wish)
    records = bench_on([bundle], folder, how, fleet_of(given))
    if single and len(records) == 1:
        records = [records[0].replace(place)]
        if not any(folder.iterdir()):
            folder.rmdir()
    found = [read_record(path) for path in records]
    if len(found) == 1:  # its reason is the error, and says all that a table would
        _refuse_failed(bundle, found)
    show_records(found, records, as_json=as_json)
    _refuse_failed(bundle, found)
    check_gates(judge_records(found, gates), junit, str(bundle))


def _refuse_failed(bundle: Path, records: Sequence[Record]) -> None:
    """Let a benchmark fail of which nothing could be measured.

    Raises:
        BackendError: with the first reason.
    """
    from edgexfer.core.errors import BackendError

    if all(record.status == "failed" for record in records):
        what, _, fix = records[0].reasons[0].partition("; fix: ")
        raise BackendError(f"{bundle}: nothing could be measured: {what}", fix)


def _again(place: Path, out: Path | None) -> Record:
    """Rebuild a record from its samples and return it, equal to what it was.

    Raises:
        GateError: a figure does not follow from the samples.
    """
    from edgexfer.bench.analyse import analyse, differing
    from edgexfer.core.errors import GateError
    from edgexfer.core.files import refuse_foreign
    from edgexfer.core.record import START, read_record, write_record

    if out is not None:
        refuse_foreign(out, START)
    stored = read_record(place)
    rebuilt = analyse(stored)
    if out is not None:
        write_record(out, rebuilt)
    wrong = differing(stored, rebuilt)
    if wrong:
        names = ", ".join(wrong[:6]) + (", ..." if len(wrong) > 6 else "")
        mend = f"{out} holds what does" if out is not None else "--out FILE writes what does"
        raise GateError(f"{place}: {names} do not follow from its samples", mend)
    return rebuilt


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read ``INPUT:1x3x224x224``; the name of an input may hold colons itself."""
    name, _, sizes = text.rpartition(":")
    sides = sizes.split("x")
    if not name or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise click.UsageError(
            f"--shape {text}: is not INPUT:SIZExSIZE", click.get_current_context()
        )
    return name, tuple(map(int, sides))
