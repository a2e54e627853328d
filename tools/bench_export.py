"""Seconds that an export takes, part by part, each time in a fresh folder.

Without --run it first trains the model for a few epochs, so that INT8 passes its gate; the training
is not part of any figure.

Run it:  python tools/bench_export.py [--data DATA] [--calibration 300] [--rounds 3] [--json]
         python tools/bench_export.py --run RUN --target x86-onnxruntime
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from edgexfer.export.stage import export
from edgexfer.recipe import (
    DataSection,
    ExportSection,
    ModelSection,
    TeacherSection,
    TrainSection,
)
from edgexfer.transfer.finetune import finetune


def main() -> None:
    """Train if need be, export several times, print the seconds."""
    args = _parse()
    with tempfile.TemporaryDirectory() as folder:
        run = args.run
        if run is None:
            run = Path(folder) / "run"
            train(run, args)
        section = ExportSection(
            targets=tuple(args.target.split(",")),
            precision="all",
            calibration_images=args.calibration,
            evaluation_images=args.evaluation,
            max_drop=args.max_drop,
        )
        rounds = [measure(run, section, Path(folder) / f"{i}") for i in range(args.rounds)]
    medians = {part: statistics.median(r[part] for r in rounds) for part in rounds[0]}
    if args.json:
        print(json.dumps({"seconds": medians, "rounds": rounds}, indent=2))
        return
    print(f"seconds, median of {len(rounds)} exports, {args.calibration} calibration images:")
    for part, seconds in medians.items():
        spread = [r[part] for r in rounds]
        print(f"  {part:26} {seconds:7.2f}   ({min(spread):.2f} to {max(spread):.2f})")


def train(run: Path, args: argparse.Namespace) -> None:
    """Train from random weights, only as far as a quantizer needs."""
    model = ModelSection(args.model, size=args.size)
    section = TeacherSection(
        model,
        strategy="scratch",
        train=TrainSection(epochs=args.epochs, batch_size=32, lr=2e-3, augment="none"),
    )
    finetune(DataSection(args.data, limit=args.limit), section, run)


def measure(run: Path, section: ExportSection, out: Path) -> dict[str, float]:
    """Export once; the last entry is the whole of it."""
    start = time.monotonic()
    manifest = export(run, section, out)
    whole = time.monotonic() - start
    parts: dict[str, float] = manifest.lineage["seconds"]
    return {**parts, "whole": round(whole, 3)}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="an existing run; without it, one is trained")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--limit", type=int, help="at most so many images of each split")
    parser.add_argument("--model", default="mobilenetv4_conv_small")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--target", default="x86-onnxruntime,x86-openvino")
    parser.add_argument("--calibration", type=int, default=300)
    parser.add_argument("--evaluation", type=int, default=1000)
    parser.add_argument("--max-drop", type=float, default=100.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
