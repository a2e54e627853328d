"""Ten classes in two halves: what a model that learns the second remembers of the first.

    python examples/transfer/forgetting.py CIFAR10_FOLDER OUT [--seeds 3] [--epochs 6]

The folder holds ``train/`` and ``test/`` with ten class folders each. Two folders of links, one of
the first five classes and one of the others, are made in OUT; a model is trained on the first, and
goes on with the second under each strategy. ``plain`` is ``lwf`` with weight 0: the same outputs
and the same cross entropy, and nothing that keeps. OUT keeps all runs: the same command goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

import edgexfer
from edgexfer import DataSection, ModelSection, TeacherSection, TrainSection
from edgexfer.models.store import load_model
from edgexfer.training.evaluate import predict_logits, top1_pct
from edgexfer.training.stage import images_of, open_data

STRATEGIES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("lwf", {"weight": 0.0}),
    "ewc": ("ewc", {"weight": 3000.0}),
    "lwf": ("lwf", {}),
    "replay": ("replay", {"images": 250}),
}


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    first, second = split_classes(options.data, options.out)
    model = ModelSection("resnet20")
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in STRATEGIES}
    for seed in range(options.seeds):
        train = TrainSection(epochs=options.epochs, batch_size=64, lr=2e-3, seed=seed)
        old = options.out / f"first-{seed}"
        edgexfer.finetune(first, TeacherSection(model, "scratch", train=train), old)
        gentle = TrainSection(epochs=options.epochs, batch_size=64, lr=1e-3, seed=seed)
        for name, (strategy, more) in STRATEGIES.items():
            asked = {"old": str(old), **more}
            section = TeacherSection(model, strategy, asked, train=gentle)
            place = options.out / f"{name}-{seed}"
            found = edgexfer.finetune(second, section, place).result
            task = found["old_task"]
            rows[name].append(
                (
                    task["before_pct"],
                    task["among_old_pct"],
                    task["after_pct"],
                    among_new(place, second),
                    found["test"]["top1_pct"],
                )
            )
    print(
        "| strategy | old, before | old, among old | old, among all | new, among new "
        "| new, among all |"
    )
    print("|---|---|---|---|---|---|")
    for name, each in rows.items():
        cells = [f"{v.mean():.1f} ± {v.std(ddof=1):.1f}" for v in np.array(each).T]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print("\n| strategy | kept of what plain loses, % | new, among new, against plain |")
    print("|---|---|---|")
    values = {name: np.array(each).T for name, each in rows.items()}
    lost = {name: before - among_old for name, (before, among_old, *_) in values.items()}
    for name in list(rows)[1:]:
        kept = 100 * (1 - lost[name] / lost["plain"])
        print(f"| {name} | {in_words(kept)} | {in_words(values[name][3] - values['plain'][3])} |")


def in_words(values: np.ndarray) -> str:
    """Return the mean over seeds with its 95 % interval (Student's) for other seeds."""
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.1f} ({values.mean() - half:.1f} to {values.mean() + half:.1f})"


def among_new(run: Path, data: DataSection) -> float:
    """Return the accuracy on the new test images where only the new classes come into question."""
    model, card = load_model(run)
    dataset = open_data(data)
    images = images_of(data, dataset, "test", card.preprocess)
    # The new classes come first among the outputs.
    logits = predict_logits(model, card.preprocess, images)[:, : len(dataset.classes)]
    return top1_pct(logits, images.labels)


def split_classes(data: Path, out: Path) -> tuple[DataSection, DataSection]:
    """Link the first and the last five classes into folders of their own."""
    names = sorted(p.name for p in (data / "train").iterdir() if p.is_dir())
    sections = []
    for half, chosen in (("a", names[:5]), ("b", names[5:])):
        root = out / f"classes-{half}"
        for split in ("train", "test"):
            for name in chosen:
                place = root / split / name
                place.parent.mkdir(parents=True, exist_ok=True)
                if not place.exists():
                    place.symlink_to((data / split / name).resolve(), target_is_directory=True)
        sections.append(DataSection(str(root), train_limit=2500))
    return sections[0], sections[1]


if __name__ == "__main__":
    main()
