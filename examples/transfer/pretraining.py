"""What pictures without labels are worth: a few labels, from scratch and from SimCLR's weights.

    python examples/transfer/pretraining.py CIFAR10_FOLDER OUT [--unlabelled 3000] [--epochs 15]

The folder holds ``train/`` and ``test/`` with ten class folders each. A net is pre-trained on some
training images without their labels; then it is fine-tuned on 250 labelled ones, and trained on the
same from scratch, with three seeds each. OUT keeps all runs: the same command goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import edgexfer
from edgexfer import DataSection, ModelSection, PretrainSection, TeacherSection, TrainSection
from edgexfer.core.files import read_json
from edgexfer.core.stats import seeded_gain
from edgexfer.training.predictions import PREDICTIONS


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--unlabelled", type=int, default=3000)
    parser.add_argument("--labelled", type=int, default=250)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    plain = ModelSection("resnet8")
    train = TrainSection(epochs=options.epochs, batch_size=250, lr=2e-3, precision="fp32")
    camera = DataSection(str(options.data / "train"), limit=options.unlabelled)
    source = options.out / "pretrained"
    edgexfer.pretrain(camera, PretrainSection(plain, train=train), source)
    weights = ModelSection("resnet8", weights=str(source / "model" / "weights.safetensors"))
    # Few val images: they decide nothing here, and looking at them takes longer than training.
    data = DataSection(str(options.data), val=0.01, train_limit=options.labelled, limit=1000)

    rights: dict[str, list[list[bool]]] = {}
    print("| start | test accuracy by seed |")
    print("|---|---|")
    for name, model, strategy in (("scratch", plain, "scratch"), ("SimCLR", weights, "full")):
        found = []
        for seed in range(options.seeds):
            few = TrainSection(epochs=20, batch_size=32, lr=3e-3, precision="fp32", seed=seed)
            out = options.out / f"{name}-{seed}"
            found.append(edgexfer.finetune(data, TeacherSection(model, strategy, train=few), out))
            rights.setdefault(name, []).append(_right(out))
        cells = ", ".join(f"{info.result['test']['top1_pct']:.1f} %" for info in found)
        print(f"| {name} | {cells} |", flush=True)
    gain = seeded_gain(rights["SimCLR"], rights["scratch"])
    span = f"95 % interval {gain.low_pt:+.1f} to {gain.high_pt:+.1f}"
    print(f"SimCLR {gain.verdict}: {gain.gain_pt:+.1f} points ({span})")


def _right(run: Path) -> list[bool]:
    saved = read_json(run / PREDICTIONS)
    return [a == b for a, b in zip(saved["labels"], saved["predictions"], strict=True)]


if __name__ == "__main__":
    main()
