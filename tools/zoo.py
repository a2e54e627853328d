"""A zoo of small students through the export: what each becomes in every flavour, as one table.

Each student is trained for a few epochs, as random weights say nothing about a quantizer, exported
in all precisions for OpenVINO, ONNX Runtime and TensorRT, linted for the target of each file, and
measured in fresh processes that interleave. TensorRT's files run in ONNX Runtime here, and are not
timed. What is in the folder of the zoo already stays: the same command goes on where it stopped.

Run it:  python tools/zoo.py --data cifar10 --zoo runs/zoo [--out examples/zoo]
         python tools/zoo.py --data cifar10 --zoo runs/zoo --students resnet18 --steps train,export
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import onnx

from edgexfer.bench.device import facts
from edgexfer.core.bundle import Artefact, Manifest, read_manifest
from edgexfer.core.errors import EdgexferError, ParityError
from edgexfer.core.record import read_record
from edgexfer.core.rundir import read_run
from edgexfer.core.stats import median
from edgexfer.export.lint import lint, lint_target
from edgexfer.export.stage import export
from edgexfer.profiles import find_profile
from edgexfer.recipe import (
    BenchSection,
    DataSection,
    ExportSection,
    ModelSection,
    TeacherSection,
    TrainSection,
)
from edgexfer.remote.bench import How, bench_bundles
from edgexfer.transfer.finetune import finetune

# Of each family one, at 64 pixels. timm has no ShuffleNet: edgexfer's own takes 32.
STUDENTS = {
    "mobilenetv3_small_100": 64,
    "mobilenetv4_conv_small": 64,
    "efficientnet_lite0": 64,
    "mobileone_s0": 64,
    "repvgg_a0": 64,
    "ghostnet_100": 64,
    "shufflenetv2": 32,
    "fastvit_t8": 64,
    "resnet18": 64,
    "convnext_atto": 64,
    "edgenext_xx_small": 64,
    "vit_tiny_patch16_224": 64,
    "mobilevit_xxs": 64,
}
TARGETS = ("x86-onnxruntime", "x86-openvino", "jetson-orin-nano")
TIMED = TARGETS[:2]
STEPS = ("train", "export", "bench", "table")
# Medians of fresh processes are what the ratios rest on; each needs but a good median.
BENCH = BenchSection(processes=5, seconds=0.5)
# Enough to judge an epoch, and to search for an INT8 with; the rest trains.
_VAL = 0.02
_MISSING = "—"


@dataclass(frozen=True)
class Place:
    """Where one student's things lie."""

    folder: Path

    @property
    def run(self) -> Path:
        """The training."""
        return self.folder / "run"

    @property
    def bundle(self) -> Path:
        """All precisions for all targets."""
        return self.folder / "bundle"

    @property
    def records(self) -> Path:
        """What was measured of the bundle."""
        return self.folder / "bench"


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as FP32 in the same runtime.

    Attributes:
        middle: median over the rounds, in each of which both ran in a fresh process.
        low: the smallest of a round.
        high: the largest of a round.
    """

    middle: float
    low: float
    high: float


@dataclass(frozen=True)
class Cell:
    """What became of a student for one target in one precision.

    Attributes:
        target: profile.
        precision: of the artefact.
        opset: of the ONNX file; ``None`` for an IR.
        nodes: of the ONNX graph, or layers of the IR.
        size_bytes: of all its files.
        sqnr_db: of its logits against the trained model's; ``None`` where they are equal.
        agreement_pct: evaluation images with the same top-1 class as the trained model.
        top1_pct: accuracy on the evaluation images.
        drop_pt: accuracy lost, in points, and the 95 % interval of that.
        searched: whether plain calibration was refused and INT8 was searched for.
        p50_ms: median of its processes' medians; ``None`` where it was not timed.
        ratio: beside FP32; ``None`` where it was not timed.
        findings: of the linter, by severity and rule; ``None`` for an IR.
    """

    target: str
    precision: str
    opset: int | None
    nodes: int
    size_bytes: int
    sqnr_db: float | None
    agreement_pct: float
    top1_pct: float
    drop_pt: tuple[float, float, float]
    searched: bool
    p50_ms: float | None
    ratio: Ratio | None
    findings: dict[str, int] | None


@dataclass(frozen=True)
class Row:
    """One student.

    Attributes:
        student: name of the architecture.
        size: height and width of its input.
        parameters: of the trained model.
        top1_pct: accuracy of the trained model on the evaluation images.
        images: how many those are.
        cells: one for each artefact.
        refused: what could not be made, and why.
    """

    student: str
    size: int
    parameters: int | None
    top1_pct: float | None
    images: int
    cells: tuple[Cell, ...]
    refused: tuple[str, ...]


def main() -> int:
    """Take each student as far as is asked for, then tabulate what there is."""
    args = _parse()
    failed: dict[str, str] = {}
    for name in args.students:
        try:
            advance(name, Place(args.zoo / name), args)
        except EdgexferError as error:
            failed[name] = error.what
            print(f"{name}: {error}", file=sys.stderr)
    if "table" in args.steps:
        rows = [read_row(name, Place(args.zoo / name), failed.get(name)) for name in args.students]
        write_table(rows, args.out)
    return 1 if failed else 0


def advance(name: str, place: Place, args: argparse.Namespace) -> None:
    """Train, export and measure one student, where that is asked for and not done yet.

    Raises:
        EdgexferError: a step fails.
    """
    if "train" in args.steps:
        model = ModelSection(name, size=STUDENTS[name])
        train = TrainSection(epochs=args.epochs, batch_size=32, lr=1e-3)
        section = TeacherSection(model, strategy="scratch", train=train)
        finetune(DataSection(str(args.data), val=_VAL, limit=args.limit), section, place.run)
    if "export" in args.steps:
        export_all(place, args)
    if "bench" in args.steps:
        measure(place, args.processes)


def export_all(place: Place, args: argparse.Namespace) -> None:
    """Export every precision; where one is refused, the fastest of those that are not.

    Raises:
        EdgexferError: FP32 is refused.
    """
    if place.bundle.is_dir():
        return
    section = ExportSection(
        TARGETS, precision="all", max_drop=args.max_drop, evaluation_images=args.evaluation
    )
    try:
        export(place.run, section, place.bundle)
    except ParityError as error:
        print(f"{place.folder.name}: {error.what}", file=sys.stderr)
        export(place.run, replace(section, precision="auto"), place.bundle)


def measure(place: Place, processes: int = BENCH.processes) -> None:
    """Measure all precisions of both runtimes side by side, where that is not done yet."""
    if not place.records.is_dir():
        unfinished = place.records.with_name("bench-unfinished")
        section = replace(BENCH, processes=processes)
        bench_bundles([place.bundle], unfinished, How(TIMED, section, accuracy=False))
        unfinished.rename(place.records)


def read_row(name: str, place: Place, failure: str | None) -> Row:
    """Put together what is known of one student."""
    refused: tuple[str, ...] = () if failure is None else (failure,)
    if not place.bundle.is_dir():
        trained = read_run(place.run).result if place.run.is_dir() else {}
        found = trained.get("test", {}).get("top1_pct")
        return Row(name, STUDENTS[name], None, found, 0, (), refused)
    manifest = read_manifest(place.bundle)
    assert manifest.reference is not None, "an export always has one"
    ratios = dict(_ratios(manifest, place.records))
    tried = [candidate for choice in manifest.choices for candidate in choice.candidates]
    refused += tuple(each.reason for each in tried if each.outcome == "refused")
    return Row(
        student=name,
        size=STUDENTS[name],
        parameters=manifest.parameters,
        top1_pct=100 * manifest.reference.correct / manifest.reference.n,
        images=manifest.reference.n,
        cells=tuple(_cell(place, manifest, made, ratios) for made in manifest.artefacts),
        refused=refused,
    )


def _cell(place: Place, manifest: Manifest, made: Artefact, ratios: dict[str, Ratio]) -> Cell:
    rung = next(
        r for r in manifest.parity if r.name.split(",")[0] == f"{made.target} {made.precision}"
    )
    file = place.bundle / made.files[0].path
    is_onnx = file.suffix == ".onnx"
    record = place.records / f"{made.name}.json"
    found = lint(file, lint_target(find_profile(made.target))) if is_onnx else []
    counts = Counter(f"{finding.severity} {finding.rule}" for finding in found)
    assert rung.top1_pct is not None and rung.drop_pt is not None, "known of every artefact"
    return Cell(
        target=made.target,
        precision=made.precision,
        opset=made.opset,
        nodes=_nodes(file),
        size_bytes=sum(entry.bytes for entry in made.files),
        sqnr_db=rung.sqnr_db,
        agreement_pct=rung.agreement_pct,
        top1_pct=rung.top1_pct,
        drop_pt=(rung.drop_pt, rung.drop_low_pt or 0.0, rung.drop_high_pt or 0.0),
        searched=any(note.startswith("searched") for note in rung.notes),
        p50_ms=median(_medians(record)) / 1e6 if record.is_file() else None,
        ratio=ratios.get(made.name),
        findings=dict(sorted(counts.items())) if is_onnx else None,
    )


def _nodes(file: Path) -> int:
    """Count the nodes of an ONNX graph, or the layers of an IR."""
    if file.suffix == ".onnx":
        return len(onnx.load(file, load_external_data=False).graph.node)
    return len(ET.parse(file).getroot().findall("./layers/layer"))


def _medians(record: Path) -> list[float]:
    """Return the median latency of each process, in the order of the rounds, in nanoseconds."""
    runs = sorted(read_record(record).processes, key=lambda run: run.order)
    return [median(run.infer_ns) for run in runs]


def _ratios(manifest: Manifest, records: Path) -> Iterator[tuple[str, Ratio]]:
    """Yield each artefact that was timed, with its speed beside the FP32 of its runtime."""
    for made in manifest.artefacts:
        files = [records / f"{name}.json" for name in (f"{made.target}-fp32", made.name)]
        if made.precision == "fp32" or not all(file.is_file() for file in files):
            continue
        base, own = (_medians(file) for file in files)
        rounds = [a / b for a, b in zip(base, own, strict=True)]
        yield made.name, Ratio(statistics.median(rounds), min(rounds), max(rounds))


def write_table(rows: Sequence[Row], out: Path | None) -> None:
    """Print the table, and write it as JSON and Markdown where a folder is given."""
    text = "\n".join(markdown(rows))
    print(text)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "zoo.md").write_text(text + "\n", encoding="utf-8")
        known = {"cpu": facts()["cpu"], "students": [asdict(row) for row in rows]}
        (out / "zoo.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def markdown(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the tables: accuracy and speed, then files and findings."""
    heads = ["student", "images", "FP32"]
    for target in TIMED:
        heads += [f"{target}: INT8 accuracy, drop", "FP32 p50", "BF16", "INT8"]
    yield from markdown_table(heads, [_speed_cells(row) for row in rows])
    yield ""
    heads = ["student", "file", "opset", "nodes", "size", "SQNR", "agreement", "findings"]
    yield from markdown_table(heads, [cells for row in rows for cells in _file_cells(row)])
    for row in rows:
        for text in row.refused:
            yield ""
            yield f"{row.student}: {text}"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table."""
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _speed_cells(row: Row) -> list[str]:
    known = {(cell.target, cell.precision): cell for cell in row.cells}
    cells = [row.student, str(row.images), _percent(row.top1_pct)]
    for target in TIMED:
        exact, brain, quantized = (known.get((target, p)) for p in ("fp32", "bf16", "int8"))
        lost = _MISSING
        if quantized is not None:
            drop, low, high = quantized.drop_pt
            mark = ", searched" if quantized.searched else ""
            lost = f"{_percent(quantized.top1_pct)}, {drop:+.2f} ({low:+.2f} to {high:+.2f}){mark}"
        time = _MISSING if exact is None or exact.p50_ms is None else f"{exact.p50_ms:.3f} ms"
        cells += [lost, time, _ratio(brain), _ratio(quantized)]
    return cells


def _file_cells(row: Row) -> Iterator[list[str]]:
    for cell in row.cells:
        findings = ", ".join(f"{n} {kind}" for kind, n in (cell.findings or {}).items())
        yield [
            row.student,
            f"{cell.target} {cell.precision}",
            _MISSING if cell.opset is None else str(cell.opset),
            str(cell.nodes),
            f"{cell.size_bytes / 1e6:.2f} MB",
            "equal" if cell.sqnr_db is None else f"{cell.sqnr_db:.1f} dB",
            _percent(cell.agreement_pct),
            _MISSING if cell.findings is None else findings or "none",
        ]


def _percent(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.1f} %"


def _ratio(cell: Cell | None) -> str:
    if cell is None or cell.ratio is None:
        return _MISSING
    return f"{cell.ratio.middle:.2f} ({cell.ratio.low:.2f} to {cell.ratio.high:.2f})"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of class folders; only train needs it")
    parser.add_argument("--zoo", type=Path, required=True, help="folder of what is made")
    parser.add_argument(
        "--students", type=names_of(STUDENTS), default=list(STUDENTS), help="NAME,NAME"
    )
    parser.add_argument("--steps", type=names_of(STEPS), default=list(STEPS), help=",".join(STEPS))
    parser.add_argument("--limit", type=int, default=8000, help="images of each split")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--evaluation", type=int, default=2000, help="images that judge an export")
    parser.add_argument(
        "--processes", type=int, default=BENCH.processes, help="fresh ones that time each file"
    )
    parser.add_argument("--max-drop", type=float, help="points that INT8 may lose")
    parser.add_argument("--out", type=Path, help="folder for zoo.md and zoo.json")
    args = parser.parse_args()
    if "train" in args.steps and args.data is None:
        parser.error("--steps train needs --data")
    return args


def names_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """Return what reads names with commas between them, each one of the known."""

    def read(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return names

    return read


if __name__ == "__main__":
    sys.exit(main())
