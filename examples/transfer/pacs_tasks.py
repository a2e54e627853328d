"""What is it, and how is it drawn: two questions about PACS, in one model or in one for each.

    python examples/transfer/pacs_tasks.py PACS_FOLDER OUT [--seeds 3] [--epochs 6]

The folder holds ``photo``, ``sketch``, ``cartoon`` and ``art_painting``, each with ``train/`` and
``test/`` of seven class folders. Of each domain and class as many images are copied to
``OUT/pictures``; the table of labels beside it asks for ``object`` and ``domain``. A resnet8 at 32
pixels is trained from scratch with both columns, their losses weighed in each way that there is,
and with each column alone, all on the same images and schedule. OUT keeps all runs: the same
command goes on.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import edgexfer
from edgexfer import DataSection, ModelSection, TeacherSection, TrainSection
from edgexfer.core.stats import seeded_gain
from edgexfer.training.predictions import read_rights

Balance = Literal["fixed", "uncertainty", "gradnorm"]
TASKS = ("object", "domain")
# Images of each domain and class, as far as there are so many.
MOST = {"train": 60, "test": 30}


def copy_pictures(pacs: Path, out: Path) -> dict[str, dict[str, str]]:
    """Copy the images into ``out/train`` and ``out/test``; return what they show, by name."""
    labels = {}
    for split, most in MOST.items():
        (out / split).mkdir(parents=True, exist_ok=True)
        for folder in sorted(pacs.glob(f"*/{split}/*")):
            domain, name = folder.parent.parent.name, folder.name
            for file in sorted(folder.iterdir())[:most]:
                key = f"{split}/{domain}-{name}-{file.name}"
                if not (out / key).exists():
                    shutil.copy(file, out / key)
                labels[key] = {"object": name, "domain": domain}
    return labels


def write_table(labels: dict[str, dict[str, str]], columns: Sequence[str], place: Path) -> Path:
    """Write the table of labels with these columns."""
    with place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *columns])
        writer.writerows([key, *(found[name] for name in columns)] for key, found in labels.items())
    return place


def train(
    columns: Sequence[str], given: argparse.Namespace, balance: Balance = "fixed"
) -> list[Path]:
    """Train for these tasks with each seed, and return the runs."""
    labels = copy_pictures(given.pacs, given.out / "pictures")
    name = "-".join(columns)
    table = write_table(labels, columns, given.out / f"{name}.csv")
    place = given.out / (name if balance == "fixed" else f"{name}-{balance}")
    data = DataSection(str(given.out / "pictures"), labels=str(table))
    runs = []
    for seed in range(given.seeds):
        # So short a training is over before a compiled model would be faster.
        schedule = TrainSection(
            epochs=given.epochs, lr=3e-3, augment="flip", precision="fp32", compile="off", seed=seed
        )
        schedule = replace(schedule, balance=balance)
        teacher = TeacherSection(ModelSection("resnet8", size=32), "scratch", train=schedule)
        runs.append(place / f"seed-{seed}")
        edgexfer.finetune(data, teacher, runs[-1])
    return runs


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pacs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    given = parser.parse_args()
    print("| task | one for each | weighed by | one for both | gain, 95 % interval | verdict |")
    print("|---|---|---|---|---|---|")
    for task in TASKS:
        apart = train((task,), given)
        for balance in get_args(Balance):
            # All at once, so that they are known to be of the same images.
            rights = read_rights([*train(TASKS, given, balance), *apart], task)
            both, alone = rights[: given.seeds], rights[given.seeds :]
            gain = seeded_gain(both, alone)
            interval = f"{gain.gain_pt:+.1f} ({gain.low_pt:+.1f} to {gain.high_pt:+.1f})"
            cells = [task, in_words(alone), balance, in_words(both), interval, gain.verdict]
            print(f"| {' | '.join(cells)} |", flush=True)


def in_words(rights: list[list[bool]]) -> str:
    """Return the accuracy of each seed in percent."""
    return ", ".join(f"{100 * sum(right) / len(right):.1f}" for right in rights)


if __name__ == "__main__":
    main()
