"""A transfer small enough for a test: a resnet8 at 16 pixels, two epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from edgexfer.recipe import DataSection, ModelSection, TeacherSection, TrainSection
from edgexfer.training.stage import build_model, open_data
from edgexfer.transfer.plan import Subject, get_strategy, read_options

TRAIN = TrainSection(
    epochs=2, batch_size=16, lr=1e-2, warmup=0.5, augment="none", precision="fp32", compile="off"
)


def from_weights(
    weights: Path, strategy: str, train: TrainSection = TRAIN, **options: Any
) -> TeacherSection:
    model = ModelSection("resnet8", size=16, weights=str(weights))
    return TeacherSection(model, strategy, strategy_options=options, train=train)


def subject(section: TeacherSection, data: DataSection) -> Subject:
    """What the strategy is handed."""
    dataset = open_data(data)
    built = build_model(section.model, len(dataset.classes), section.train.seed)
    options = read_options(get_strategy(section), section)
    return Subject(built, section, options, data, dataset)


def moved(run: Path, weights: Path) -> set[str]:
    """The names of the tensors that are not those of the weights file any more."""
    before, after = load_file(weights), load_file(run / "model" / "weights.safetensors")
    assert before.keys() == after.keys()
    return {n for n, t in before.items() if t.shape != after[n].shape or not t.equal(after[n])}
