"""The INT8 that an export makes, beside FP32 and beside what the bare quantizers give by default.

It takes the students that ``zoo.py`` has trained and exported, and asks three things of each.
Speed: is the INT8 that ``--precision auto`` chooses ever slower than a float artefact of its
runtime? Accuracy: does the INT8 of the export lose more than NNCF's and ONNX Runtime's defaults, on
the same images? Cost: how long does the export take beside the bare tools? Answers that are there
stay, so that the same command goes on where it stopped.

Run it:  python tools/bench_quant.py --zoo runs/zoo [--out examples/zoo]
         python tools/bench_quant.py --zoo runs/zoo --students resnet18 --parts cost --rounds 1
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from zoo import STUDENTS, TIMED, Place, markdown_table, measure, names_of

from edgexfer.bench.accuracy import predict
from edgexfer.bench.feed import normalise
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.bundle import get_artefact, read_manifest
from edgexfer.core.codec import decode, encode
from edgexfer.core.fastest import Timed, is_tie, speed_ratio
from edgexfer.core.files import read_json, write_json
from edgexfer.core.record import read_record
from edgexfer.core.rundir import read_run
from edgexfer.core.stats import median, paired_drop
from edgexfer.data.dataset import Dataset
from edgexfer.data.images import sample
from edgexfer.export.choose import Tried
from edgexfer.export.decide import decide
from edgexfer.export.lower import Lowering
from edgexfer.export.stage import export
from edgexfer.models.store import load_model
from edgexfer.profiles import find_profile
from edgexfer.quantize.calibration import Calibration, draw_calibration
from edgexfer.recipe import DataSection, ExportSection
from edgexfer.training.stage import open_data

PARTS = ("speed", "accuracy", "cost")
CALIBRATION = 300
# The tool alone; what the export does of the same work; the export with all that it checks.
WAYS = ("bare", "made", "whole")
_BATCH = 32


@dataclass(frozen=True)
class Speed:
    """The choice for one runtime, and what it is worth when measured at length.

    Attributes:
        target: profile.
        chosen: the precision; ``None`` where nothing could be measured.
        int8_times: how many times as fast as each float precision INT8 is.
        slower_than: float precisions that INT8 was chosen before and is slower than, beyond a tie.
    """

    target: str
    chosen: str | None
    int8_times: dict[str, float]
    slower_than: tuple[str, ...]


@dataclass(frozen=True)
class Loss:
    """Points of accuracy that INT8 loses in one runtime, ours and that of the bare tool's defaults.

    Attributes:
        target: profile.
        n: images, the same for all.
        fp32_pct: accuracy of FP32.
        ours_pt: lost by the export's INT8; ``None`` where the export refused it.
        bare_pt: lost by the default's.
        more_pt: what ours loses more than the default's, and the paired 95 % interval of that.
    """

    target: str
    n: int
    fp32_pct: float
    ours_pt: float | None
    bare_pt: float
    more_pt: tuple[float, float, float] | None

    @property
    def verdict(self) -> str:
        """``less`` or ``equal`` by the count, ``tie`` where the interval holds 0, else ``more``."""
        if self.more_pt is None:
            return "refused"
        more, low, _ = self.more_pt
        if more <= 0:
            return "less" if more < 0 else "equal"
        return "tie" if low <= 0 else "more"


@dataclass(frozen=True)
class Cost:
    """Seconds for one INT8 file of one runtime, each in a fresh process, imports left out.

    Attributes:
        target: profile.
        seconds: for each of ``WAYS`` those of each round.
    """

    target: str
    seconds: dict[str, tuple[float, ...]]

    def times(self, way: str) -> float:
        """How many times as long as the bare tool a way takes: the median over the rounds."""
        rounds = zip(self.seconds[way], self.seconds["bare"], strict=True)
        return statistics.median(own / bare for own, bare in rounds)


@dataclass(frozen=True)
class Answers:
    """All that is known of one student."""

    student: str
    speed: tuple[Speed, ...]
    accuracy: tuple[Loss, ...]
    cost: tuple[Cost, ...]


def main() -> int:
    """Ask what is not known yet, then print the table or JSON."""
    args = _parse()
    if args.child:
        print(json.dumps(seconds(*json.loads(args.child))))
        return 0
    ask: dict[str, Callable[[Place], Sequence[Any]]] = {
        "speed": ask_speed,
        "accuracy": ask_accuracy,
        "cost": lambda place: ask_cost(place, args.rounds),
    }
    for name in args.students:
        place = Place(args.zoo / name)
        for part in args.parts:
            known = _answer(place, part)
            if not known.is_file():
                print(f"{name}: {part}", file=sys.stderr)
                known.parent.mkdir(exist_ok=True)
                write_json(known, encode(tuple(ask[part](place))))
    found = [_known(name, Place(args.zoo / name)) for name in args.students]
    text = "\n".join(markdown(found))
    print(json.dumps(encode(found), indent=1) if args.json else text)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_json(args.out / "quant.json", encode(found))
        (args.out / "quant.md").write_text(text + "\n", encoding="utf-8")
    return 0


def ask_speed(place: Place) -> list[Speed]:
    """Have ``auto`` choose among what passed, and hold that against the zoo's long benchmark."""
    measure(place)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(place.bundle, Path(folder) / "bundle"))
        manifest = read_manifest(copy)
        tried = {
            target: [Tried(a.precision, a) for a in manifest.artefacts if a.target == target]
            for target in TIMED
        }
        choices = decide(copy, manifest, [find_profile(name) for name in TIMED], tried).choices
    return [judged(c.target, c.chosen, _timed(place, c.target)) for c in choices]


def _timed(place: Place, target: str) -> dict[str, Timed]:
    """Return the zoo's artefacts of one target, by precision."""
    found = {}
    for made in read_manifest(place.bundle).artefacts:
        if made.target == target:
            record = read_record(place.records / f"{made.name}.json")
            medians = tuple(median(run.infer_ns) for run in record.processes)
            size = sum(entry.bytes for entry in made.files)
            found[made.precision] = Timed(made.precision, medians, size)
    return found


def judged(target: str, chosen: str | None, timed: Mapping[str, Timed]) -> Speed:
    """Hold INT8 against each float precision; only where it was chosen it may not be slower."""
    own = timed.get("int8")
    if own is None:
        return Speed(target, chosen, {}, ())
    floats = {name: other for name, other in timed.items() if other is not own}
    times = {name: speed_ratio(own, other) for name, other in floats.items()}
    slower = [name for name in floats if times[name] < 1 and not is_tie(own, floats[name])]
    return Speed(target, chosen, times, tuple(slower) if chosen == "int8" else ())


def ask_accuracy(place: Place) -> list[Loss]:
    """Run FP32, the export's INT8 and the default's on the whole test split."""
    data = DataSection(**read_run(place.run).data)
    dataset = open_data(data)
    manifest = read_manifest(place.bundle)
    preprocess = manifest.preprocess
    every, allow = len(dataset.splits["test"].keys), data.allow_quarantined
    images, labels, _ = sample(dataset, "test", every, preprocess, allow_quarantined=allow)
    calibration = draw_calibration(dataset, CALIBRATION, preprocess, measured=images[:0])
    made = {artefact.name: artefact for artefact in manifest.artefacts}
    first = place.bundle / get_artefact(manifest, f"{TIMED[0]}-fp32").files[0].path

    def right(file: Path, backend: str, precision: str) -> list[bool]:
        with closing(get_backend(backend).load(file, Plan(precision))) as session:
            logits = predict(session, images, preprocess, _BATCH)
        return [bool(item) for item in logits.argmax(axis=1) == labels]

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for target in TIMED:
            backend = find_profile(target).backend
            default = BARE[backend](first, Path(folder), calibration)
            exact, bare = right(first, "onnxruntime", "fp32"), right(default, backend, "int8")
            ours, more = made.get(f"{target}-int8"), None
            lost = None
            if ours is not None:
                own = right(place.bundle / ours.files[0].path, backend, "int8")
                lost = paired_drop(exact, own).drop_pt
                against = paired_drop(bare, own)
                more = (against.drop_pt, against.low_pt, against.high_pt)
            accuracy = 100 * sum(exact) / len(exact)
            theirs = paired_drop(exact, bare).drop_pt
            found.append(Loss(target, len(labels), accuracy, lost, theirs, more))
    return found


def ask_cost(place: Place, rounds: int) -> list[Cost]:
    """Time each way in a fresh process, the ways of one round one after the other."""
    found = []
    for target in TIMED:
        taken: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                task = json.dumps([way, target, str(place.run)])
                command = [sys.executable, __file__, "--child", task]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                # The tools print too.
                taken[way].append(json.loads(done.stdout.splitlines()[-1]))
        found.append(Cost(target, {way: tuple(each) for way, each in taken.items()}))
    return found


def seconds(way: str, target: str, run: str) -> float:
    """Make one INT8 file and return the seconds that it took.

    Args:
        way: one of ``WAYS``. The first two start from the model and the images in memory.
        target: profile.
        run: of the student.
    """
    import nncf  # noqa: F401 - imports are no part of what is timed
    import onnxruntime.quantization  # noqa: F401
    import onnxscript  # noqa: F401
    import timm  # noqa: F401

    profile = find_profile(target)
    with tempfile.TemporaryDirectory() as folder:
        if way == "whole":
            section = ExportSection((target,), precision="int8", calibration_images=CALIBRATION)
            return _elapsed(lambda: export(Path(run), section, Path(folder) / "bundle"))
        model, card = load_model(Path(run))
        empty = np.empty((0, *card.preprocess.size, 3), np.uint8)
        calibration = draw_calibration(
            _dataset(Path(run)), CALIBRATION, card.preprocess, measured=empty
        )
        if way == "made":
            lowering = Lowering(model, card, Path(folder), calibration)
            return _elapsed(lambda: lowering.make(profile, "int8"))

        def bare() -> None:
            file = _bare_onnx(model, card.preprocess.size, Path(folder))
            BARE[profile.backend](file, Path(folder), calibration)

        return _elapsed(bare)


def _elapsed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _bare_onnx(model: Any, size: tuple[int, int], folder: Path) -> Path:
    import torch

    file, images = folder / "bare.onnx", torch.zeros(2, 3, *size)
    batch = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(
        model.eval(), (images,), file, dynamic_shapes=batch, external_data=False, verbose=False
    )
    return file


def _bare_onnxruntime(file: Path, folder: Path, calibration: Calibration) -> Path:
    """Quantize as ONNX Runtime's documentation shows, all else as it is by default."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc] # it ships no types
        def __init__(self) -> None:
            self._images = _one_by_one(calibration)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._images, None)
            return None if image is None else {feed: image}

    import onnx

    feed = onnx.load(file, load_external_data=False).graph.input[0].name
    prepared, out = folder / "prepared.onnx", folder / "bare-int8.onnx"
    try:
        quant_pre_process(file, prepared)
    except TypeError:
        # Its symbolic shapes stop at an Expand of EdgeNeXt; the plain ones do not.
        quant_pre_process(file, prepared, skip_symbolic_shape=True)
    quantize_static(prepared, out, Reader())
    return out


def _bare_nncf(file: Path, folder: Path, calibration: Calibration) -> Path:
    """Quantize as NNCF's documentation shows, all else as it is by default."""
    import nncf
    import openvino as ov

    images = list(_one_by_one(calibration))
    quantized = nncf.quantize(ov.Core().read_model(file), nncf.Dataset(images))
    out = folder / "bare-int8.xml"
    ov.save_model(quantized, out)
    return out


BARE = {"onnxruntime": _bare_onnxruntime, "openvino": _bare_nncf}


def _one_by_one(calibration: Calibration) -> Iterator[Any]:
    for i in range(len(calibration)):
        yield normalise(calibration.images[i : i + 1], calibration.preprocess)


def _dataset(run: Path) -> Dataset:
    return open_data(DataSection(**read_run(run).data))


def _answer(place: Place, part: str) -> Path:
    return place.folder / "quant" / f"{part}.json"


def _known(name: str, place: Place) -> Answers:
    """Return what is known of a student; what was not asked yet is empty."""

    def read(part: str, kind: Any) -> tuple[Any, ...]:
        file = _answer(place, part)
        found = read_json(file) if file.is_file() else []
        return tuple(decode(kind, value, str(file)) for value in found)

    return Answers(name, read("speed", Speed), read("accuracy", Loss), read("cost", Cost))


def markdown(found: Sequence[Answers]) -> Iterator[str]:
    """Yield a table for each question, each with its count of students that meet the target."""
    speeds = [(each.student, speed) for each in found for speed in each.speed]
    yield from markdown_table(
        ["student", "runtime", "`auto` chooses", "INT8 beside", "slower than"],
        [
            [name, x.target, x.chosen or "—", _times(x), ", ".join(x.slower_than) or "none"]
            for name, x in speeds
        ],
    )
    slower = sum(bool(speed.slower_than) for _, speed in speeds)
    yield f"\nINT8 chosen and slower than float: {slower} of {len(speeds)} choices.\n"
    losses = [(each.student, loss) for each in found for loss in each.accuracy]
    yield from markdown_table(
        ["student", "runtime", "FP32", "INT8 loses", "default loses", "more than the default", ""],
        [[name, *_lost(loss)] for name, loss in losses],
    )
    for target in TIMED:
        verdicts = [loss.verdict for _, loss in losses if loss.target == target]
        counts = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts))
        yield f"\n{target}, beside the default: {counts}.\n"
    costs = [(each.student, cost) for each in found for cost in each.cost]
    yield from markdown_table(
        ["student", "runtime", "bare tool", "the same work", "whole export, checked"],
        [[name, cost.target, *_took(cost)] for name, cost in costs],
    )
    for way in WAYS[1:]:
        times = [cost.times(way) for _, cost in costs]
        if times:
            middle = statistics.median(times)
            yield f"\n{way}: {middle:.2f} times the bare tool, at most {max(times):.2f}."


def _times(speed: Speed) -> str:
    return ", ".join(f"{name} {times:.2f}×" for name, times in speed.int8_times.items()) or "—"


def _lost(loss: Loss) -> list[str]:
    ours, more = "refused", "—"
    if loss.ours_pt is not None and loss.more_pt is not None:
        ours = f"{loss.ours_pt:+.2f}"
        more = "{:+.2f} ({:+.2f} to {:+.2f})".format(*loss.more_pt)
    return [loss.target, f"{loss.fp32_pct:.1f} %", ours, f"{loss.bare_pt:+.2f}", more, loss.verdict]


def _took(cost: Cost) -> list[str]:
    cells = [f"{statistics.median(cost.seconds['bare']):.1f} s"]
    for way in WAYS[1:]:
        own = statistics.median(cost.seconds[way])
        cells.append(f"{own:.1f} s, {cost.times(way):.2f}×")
    return cells


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoo", type=Path, help="folder that zoo.py has filled")
    parser.add_argument("--students", type=names_of(STUDENTS), default=list(STUDENTS))
    parser.add_argument("--parts", type=names_of(PARTS), default=list(PARTS), help=",".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="of timing the cost")
    parser.add_argument("--out", type=Path, help="folder for quant.md and quant.json")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.zoo is None and args.child is None:
        parser.error("--zoo is needed")
    return args


if __name__ == "__main__":
    sys.exit(main())
