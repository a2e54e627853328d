"""Three questions about scikit-learn's digits: one model for all, against one for each.

A fifth of all labels is missing. Usage: multitask.py OUT [--epochs N] [--seed N]
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import edgexfer
from edgexfer.recipe import DataSection, ModelSection, TeacherSection, TrainSection

MISSING = 0.2
TASKS = ("digit", "parity", "size")


def write_table(place: Path, columns: tuple[str, ...]) -> Path:
    """Write the labels of these tasks; which are missing depends on image and task alone."""
    digits = load_digits().target
    known = np.random.default_rng(0).random((len(digits), len(TASKS))) >= MISSING
    with place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *columns])
        for i, digit in enumerate(digits.tolist()):
            answers = {
                "digit": str(digit),
                "parity": "odd" if digit % 2 else "even",
                "size": "large" if digit > 4 else "small",
            }
            cells = [answers[name] if known[i, TASKS.index(name)] else "" for name in columns]
            writer.writerow([f"digits/{i:05d}", *cells])
    return place


def train(out: Path, columns: tuple[str, ...], given: argparse.Namespace) -> list[dict[str, Any]]:
    """Train one model for these tasks and return the accuracy of each."""
    name = "-".join(columns)
    table = write_table(out / f"{name}.csv", columns)
    section = TrainSection(epochs=given.epochs, augment="shift", lr=3e-3, seed=given.seed)
    teacher = TeacherSection(ModelSection("resnet8", size=16), "scratch", train=section)
    info = edgexfer.finetune(DataSection("digits", labels=str(table)), teacher, out / name)
    found: list[dict[str, Any]] = info.result["test"]["tasks"]
    return found


def main() -> None:
    """Train the four models and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    together = train(given.out, TASKS, given)
    print("| task | one model for all | one for each |\n|---|---|---|")
    for shared in together:
        (alone,) = train(given.out, (shared["name"],), given)
        print("|", shared["name"], "|", " | ".join(in_words(s) for s in (shared, alone)), "|")


def in_words(score: dict[str, Any]) -> str:
    """Return an accuracy with its interval."""
    span = f"{score['low_pct']:.1f} to {score['high_pct']:.1f}"
    return f"{score['top1_pct']:.1f} % ({span}, n={score['n']})"


if __name__ == "__main__":
    main()
