"""ModelCard: what stands beside a run's weights, so that anything can load and feed the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Tuple

from edgexfer.core.codec import encode
from edgexfer.core.errors import RunError
from edgexfer.core.files import PathLike, write_json
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.rundir import read_as
from edgexfer.core.tasks import Task

SCHEMA = "edgexfer.model/1"
FOLDER = "model"
CARD = "model.json"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class ModelCard:
    """A trained model.

    Attributes:
        schema: ``edgexfer.model/1``.
        name: architecture, a timm name or one of edgexfer's own.
        classes: names of the classes, in the order of the outputs.
        preprocess: how an image becomes an input.
        parameters: how many weights it has.
        weights_sha256: of ``weights.safetensors``.
        origin: where training began: ``scratch``, ``pretrained:TAG`` or ``file:SHA256``.
        options: further keyword arguments of the architecture; ``head_hidden`` is how many units a
            hidden layer of the head has.
        tasks: what its outputs are about, where that is more than one question.
    """

    schema: str
    name: str
    classes: Tuple[str, ...]
    preprocess: Preprocess
    parameters: int
    weights_sha256: str
    origin: str
    options: Dict[str, Any] = field(default_factory=dict)
    tasks: Tuple[Task, ...] = ()


def write_card(run: PathLike, card: ModelCard) -> None:
    """Write ``RUN/model/model.json`` atomically."""
    write_json(Path(run) / FOLDER / CARD, encode(card))


def read_card(run: PathLike) -> ModelCard:
    """Read ``RUN/model/model.json``.

    Raises:
        RunError: the run holds no finished model, or the card is damaged or of another schema.
    """
    place = Path(run) / FOLDER / CARD
    if not place.is_file():
        raise RunError(
            f"{run}: holds no trained model ({FOLDER}/{CARD} is missing)",
            "name the folder of a finished `edgexfer finetune` or `distill`, or finish it first",
        )
    return read_as(ModelCard, place, SCHEMA, "train the model again")
