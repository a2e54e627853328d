"""The ranking of ``edgexfer advise`` against reality: six sources, three targets, every pair tuned.

    python examples/transfer/advice.py CIFAR10_FOLDER OUT [--seeds 2] [--epochs 12]

The folder holds ``train/`` and ``test/`` with ten class folders each. Sources are small networks
trained on pictures of ``train/``: the vehicles, the animals, the first five classes, the others,
the first five with shuffled labels; and on scikit-learn's digits. Targets are three classes each
with a hundred pictures of ``test/`` to train on, and the others to test. Each source is scored on
each target and then fine-tuned on it; the rank correlation of each score with the accuracy is
printed, whatever it is. OUT keeps all runs: the same command goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, t

import edgexfer
from edgexfer import DataSection, ModelSection, TeacherSection, TrainSection
from edgexfer.advise.features import HEAD, open_source, read_features
from edgexfer.advise.layers import probe_hits
from edgexfer.advise.ranking import SCORES, rank
from edgexfer.training.stage import open_data

VEHICLES = ("airplane", "automobile", "ship", "truck")
ANIMALS = ("bird", "cat", "deer", "dog", "frog", "horse")
FIRST, SECOND = (*VEHICLES[:2], *ANIMALS[:3]), (*ANIMALS[3:], *VEHICLES[2:])
TARGETS = {
    "pets": ("cat", "dog", "horse"),
    "roads": ("automobile", "ship", "truck"),
    "wings": ("airplane", "bird", "frog"),
}
#: Pictures of each class.
SOURCE_IMAGES, TARGET_IMAGES = 600, 100
PROBE = "linear probe"
WEIGHTS = "model/weights.safetensors"


def main() -> None:
    """Train what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    sources = train_sources(options.data, options.out)
    names = list(sources)
    scores = {score: np.full((len(names), len(TARGETS)), np.nan) for score in (*SCORES, PROBE)}
    tuned = np.zeros((len(names), len(TARGETS), options.seeds))
    verdicts = []
    for column, (target, classes) in enumerate(TARGETS.items()):
        data = DataSection(str(link_target(options.data, options.out / f"data-{target}", classes)))
        dataset = open_data(data)
        seen = {
            n: read_features(open_source(str(sources[n])), dataset, "train", 1000) for n in names
        }
        for ranking in rank(seen):
            for score in ranking.scores:
                scores[ranking.score][names.index(score.source), column] = score.value
            verdicts.append(f"{target}, {ranking.score}: first {' = '.join(ranking.tied)}")
        for row, name in enumerate(names):
            hits = probe_hits(seen[name].layers[HEAD], seen[name].labels)
            scores[PROBE][row, column] = hits.mean()
            for seed in range(options.seeds):
                train = TrainSection(
                    epochs=options.epochs, batch_size=32, lr=2e-3, precision="fp32", seed=seed
                )
                model = ModelSection("resnet8", weights=str(sources[name] / WEIGHTS))
                section = TeacherSection(model, "full", train=train)
                found = edgexfer.finetune(data, section, options.out / f"{name}-{target}-{seed}")
                tuned[row, column, seed] = found.result["test"]["top1_pct"]
    print_tables(names, tuned, scores, verdicts)


def train_sources(data: Path, out: Path) -> dict[str, Path]:
    """Train the six sources; returns their runs."""
    folders = {
        "vehicles": link_source(data, out / "data-vehicles", VEHICLES),
        "animals": link_source(data, out / "data-animals", ANIMALS),
        "first-five": link_source(data, out / "data-first-five", FIRST),
        "other-five": link_source(data, out / "data-other-five", SECOND),
        "shuffled": link_source(data, out / "data-shuffled", FIRST, shuffled=True),
        "digits": "digits",
    }
    runs = {}
    for name, folder in folders.items():
        train = TrainSection(epochs=8, batch_size=64, lr=3e-3, precision="fp32")
        section = TeacherSection(ModelSection("resnet8"), "scratch", train=train)
        runs[name] = out / f"source-{name}"
        edgexfer.finetune(DataSection(str(folder)), section, runs[name])
    return runs


def link_source(
    data: Path, root: Path, classes: tuple[str, ...], *, shuffled: bool = False
) -> Path:
    """Link pictures of ``train/`` into class folders; shuffled, into those of any class."""
    files = [p for c in classes for p in sorted((data / "train" / c).iterdir())[:SOURCE_IMAGES]]
    labels = [p.parent.name for p in files]
    if shuffled:
        labels = [labels[i] for i in np.random.default_rng(0).permutation(len(labels))]
    for file, label in zip(files, labels, strict=True):
        link(file, root / label / f"{file.parent.name}-{file.name}")
    return root


def link_target(data: Path, root: Path, classes: tuple[str, ...]) -> Path:
    """Link pictures of ``test/``: the first of each class to train on, five hundred to test."""
    for name in classes:
        files = sorted((data / "test" / name).iterdir())
        for split, some in (("train", files[:TARGET_IMAGES]), ("test", files[TARGET_IMAGES:600])):
            for file in some:
                link(file, root / split / name / file.name)
    return root


def link(file: Path, place: Path) -> None:
    """Make a link where there is none yet."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        place.symlink_to(file.resolve())


def print_tables(
    names: list[str], tuned: np.ndarray, scores: dict[str, np.ndarray], verdicts: list[str]
) -> None:
    """Print accuracies, scores and rank correlations as Markdown."""
    reality = tuned.mean(2)
    print("| source | " + " | ".join(f"{name}, %" for name in TARGETS) + " |")
    print("|---" * (len(TARGETS) + 1) + "|")
    for row, name in enumerate(names):
        cells = [f"{v.mean():.1f} ({v.min():.1f} to {v.max():.1f})" for v in tuned[row]]
        print(f"| {name} | " + " | ".join(cells) + " |")
    print("\n| score | " + " | ".join(TARGETS) + " | mean τ (95 % interval) |")
    print("|---" * (len(TARGETS) + 2) + "|")
    for score, values in scores.items():
        taus = correlations(values, reality)
        mean, low, high = jackknife(values, reality)
        shown = " | ".join(f"{tau:+.2f}" for tau in taus)
        print(f"| {score} | {shown} | {mean:+.2f} ({low:+.2f} to {high:+.2f}) |")
    print("\n" + "\n".join(verdicts))


def correlations(values: np.ndarray, reality: np.ndarray) -> list[float]:
    """Return Kendall's τ-b of scores and accuracies over the sources, for each target."""
    return [float(kendalltau(values[:, i], reality[:, i])[0]) for i in range(values.shape[1])]


def jackknife(values: np.ndarray, reality: np.ndarray) -> tuple[float, float, float]:
    """Return the mean τ over targets and its 95 % interval, leaving out one source at a time.

    The interval holds for other sources of this kind, on these targets; it is cut at ±1.
    """
    n = len(values)
    whole = float(np.mean(correlations(values, reality)))
    without = [
        np.mean(correlations(np.delete(values, i, 0), np.delete(reality, i, 0))) for i in range(n)
    ]
    pseudo = n * whole - (n - 1) * np.array(without)
    half = float(t.ppf(0.975, n - 1) * pseudo.std(ddof=1) / np.sqrt(n))
    return whole, max(whole - half, -1.0), min(whole + half, 1.0)


if __name__ == "__main__":
    main()
