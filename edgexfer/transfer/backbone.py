"""Features of images: what a model hands to its head, for all that needs no training."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from edgexfer.core.errors import RecipeError
from edgexfer.core.preprocess import Preprocess
from edgexfer.data.images import Images
from edgexfer.models.head import head_names
from edgexfer.models.store import load_model
from edgexfer.recipe import ModelSection
from edgexfer.training.evaluate import predict_logits
from edgexfer.training.stage import build_model

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Backbone:
    """A model whose features are looked at.

    Attributes:
        model: with its head.
        name: its architecture.
        preprocess: how it is fed.
    """

    model: nn.Module
    name: str
    preprocess: Preprocess


def open_backbone(section: ModelSection) -> Backbone:
    """Return the model of a finished run, where its folder is named, else an architecture's.

    Raises:
        RecipeError: an architecture without weights, or weights for a run that has its own.
        RunError: the folder holds no finished model.
        ModelError: the architecture or its weights are unusable.
        MachineError: pre-trained weights cannot be fetched.
    """
    if Path(section.name).is_dir():
        if section.weights or section.pretrained or section.size:
            raise RecipeError(
                f"model {section.name} is a run with its own weights and size",
                "leave out --weights, --pretrained and --size",
            )
        model, card = load_model(Path(section.name))
        return Backbone(model, card.name, card.preprocess)
    if not (section.weights or section.pretrained):
        raise RecipeError(
            f"model {section.name} is not a run, and the features of random weights say nothing",
            "name the folder of a run, or add --pretrained or --weights FILE",
        )
    # The head is not looked at; two outputs are the least that every architecture takes.
    built = build_model(section, 2, 0)
    return Backbone(built.model.eval(), built.name, built.preprocess)


def unit_features(model: nn.Module, preprocess: Preprocess, images: Images) -> Float32:
    """Return what goes into the head for each image, each scaled to length 1.

    Args:
        model: with its head; left as it is.
        preprocess: how it is fed.
        images: of that geometry.

    Returns:
        Float32, (N, F), in the order of the images.
    """
    bare = copy.deepcopy(model)
    for name in head_names(bare):
        bare.set_submodule(name, nn.Identity())
    found = predict_logits(bare, preprocess, images).reshape(len(images), -1)
    return unit(found)


def unit(vectors: Float32) -> Float32:
    """Scale each row to length 1; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Float32 = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled
