"""Images per second of one knowledge distillation: edgexfer, torchdistill and a plain loop.

torchdistill trains with its own box and its own ``KDLoss``, set up as its examples set it up; the
plain loop is what a tutorial teaches; both in their default state, allocator included. edgexfer
trains through its real loop with its own choices: the teacher online, and the teacher's answers
from a warm cache. Each process of edgexfer also times its bare step: the same batch again and
again, without feed and loop. All train the same architectures on the same files with the same
augmentation, batch and optimiser; only the weights are random, which the time does not depend on.

Each measurement is a fresh process; the variants take turns, so that a machine that slows down
slows all of them, and gains are medians over the rounds of the ratio within a round. Without
``--small`` and ``--large`` (folders of class folders) the images are synthesised.

    python tools/bench_distill.py [--rounds 3] [--seconds 6] [--pairs STUDENT ...] [--gpu] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench_train import synthesise
from distill_loops import FILL, PAIRS, PLAIN, TORCHDISTILL, VARIANTS, Task, measure

INSTALL = "torchdistill is not installed and is left out: pip install torchdistill==1.1.5"


def main() -> int:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", type=Path, help="folder of class folders for 32 pixels")
    parser.add_argument("--large", type=Path, help="folder of class folders for 224 pixels")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each variant")
    parser.add_argument("--seconds", type=float, default=6, help="length of each measurement")
    parser.add_argument(
        "--pairs", nargs="+", choices=PAIRS, default=list(PAIRS), metavar="STUDENT", help="which"
    )
    parser.add_argument("--gpu", action="store_true", help="measure on a CUDA device")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(Task(**json.loads(options.child)))))
        return 0
    with tempfile.TemporaryDirectory() as temp:
        folders = _folders(options, Path(temp))
        # What edgexfer decodes and caches goes with the rest; without --gpu a GPU is not seen.
        env = {**os.environ, "EDGEXFER_CACHE": str(Path(temp) / "cache")}
        env.update({} if options.gpu else {"CUDA_VISIBLE_DEVICES": ""})
        device = "cuda" if options.gpu else "cpu"
        found = run_rounds(
            [
                Task(name, variant, str(folders[PAIRS[name].pixels]), options.seconds, device)
                for name in options.pairs
                for variant in (FILL, *available())
            ],
            options.rounds,
            env,
        )
    rows = summarise(found)
    print(
        json.dumps({"versions": _versions(), "rows": rows}, indent=2)
        if options.json
        else table(rows)
    )
    return 0


def available() -> list[str]:
    """Return the variants that can be measured here; a missing peer is named on stderr."""
    if importlib.util.find_spec("torchdistill"):
        return list(VARIANTS)
    print(INSTALL, file=sys.stderr)
    return [variant for variant in VARIANTS if variant != TORCHDISTILL]


def run_rounds(
    tasks: list[Task], rounds: int, env: dict[str, str]
) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Measure every task in turn, each in a fresh process; returns by student and variant."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    engines: dict[str, str] = {}
    for number in range(rounds):
        for task in tasks:
            if task.variant == FILL and number:
                continue
            print(f"round {number + 1}/{rounds}: {task.student}, {task.variant}", file=sys.stderr)
            asked = json.dumps({**asdict(task), "engine": engines.get(task.student)})
            command = [sys.executable, __file__, "--child", asked]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env)
            result = json.loads(done.stdout.splitlines()[-1])
            if task.variant == FILL:
                print(f"{task.student}: {result}", file=sys.stderr)
                engines[task.student] = result["engine"]
            else:
                found.setdefault((task.student, task.variant), []).append(result)
    return found


def summarise(found: dict[tuple[str, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row for each student and variant: all rates, their median, gains within a round."""
    rows = []
    for (student, variant), runs in found.items():
        pair, rates = PAIRS[student], [run["images_per_s"] for run in runs]
        row = {
            "student": student,
            "teacher": pair.teacher,
            "pixels": pair.pixels,
            "batch_size": pair.batch_size,
            "variant": variant,
            "images_per_s": rates,
            "median": statistics.median(rates),
            "how": runs[0]["how"],
            "threads": runs[0]["threads"],
        }
        if variant in pair.targets:
            row["target"] = pair.targets[variant]
            row["bare_images_per_s"] = [run["bare_images_per_s"] for run in runs]
            row["of_bare"] = _paired(rates, row["bare_images_per_s"])
            for peer in (TORCHDISTILL, PLAIN):
                others = found.get((student, peer), [])
                row[f"over {peer}"] = _paired(rates, [run["images_per_s"] for run in others])
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as text."""
    lines = [
        f"{'teacher -> student':36}{'variant':14}{'images/s':>9}{'min..max':>15}"
        f"{'/torchdistill':>15}{'/plain':>8}{'target':>8}{'of bare':>9}  how"
    ]
    for row in rows:
        name = f"{row['teacher']} -> {row['student']} @{row['pixels']}"
        spread = f"{min(row['images_per_s']):.0f}..{max(row['images_per_s']):.0f}"
        cells = [
            _cell(row.get(f"over {TORCHDISTILL}"), "{:.2f}x", 15),
            _cell(row.get(f"over {PLAIN}"), "{:.2f}x", 8),
            _cell(row.get("target"), "{:.1f}x", 8),
            _cell(row.get("of_bare"), "{:.0%}", 9),
        ]
        figures = f"{row['median']:9.0f}{spread:>15}{''.join(cells)}"
        lines.append(f"{name:36}{row['variant']:14}{figures}  {row['how']}")
    return "\n".join(lines)


def _folders(options: argparse.Namespace, temp: Path) -> dict[int, Path]:
    """Return the folder of images of each size, synthesised where none is given."""
    wanted = {PAIRS[name].pixels for name in options.pairs}
    given = {32: options.small, 224: options.large}
    made = {32: (10_000, (32, 32)), 224: (1000, (280, 227))}
    return {n: given[n] or synthesise(temp / str(n), *made[n]) for n in wanted}


def _paired(ours: list[float], others: list[float]) -> float | None:
    ratios = [mine / theirs for mine, theirs in zip(ours, others, strict=False)]
    return statistics.median(ratios) if ratios else None


def _cell(value: float | None, form: str, width: int) -> str:
    return ("" if value is None else form.format(value)).rjust(width)


def _versions() -> dict[str, str | None]:
    found = {}
    for package in ("torch", "torchvision", "timm", "torchdistill", "openvino", "onnxruntime"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return {**found}


if __name__ == "__main__":
    # The tool also runs from a source tree that is not installed.
    root = str(Path(__file__).resolve().parents[1])
    sys.path.insert(0, root)
    os.environ["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    sys.exit(main())
