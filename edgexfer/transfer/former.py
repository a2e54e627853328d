"""A model that has learned something before, and is to keep it while it learns more.

What ``ewc``, ``lwf`` and ``replay`` share: the former run is taken up with a head for its classes
and the new ones, and its test images say afterwards what was forgotten. New classes come first in
that head, so that the labels of the new images are its outputs as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgexfer.core.codec import encode
from edgexfer.core.errors import DataError, ModelError, RecipeError
from edgexfer.core.rundir import read_run
from edgexfer.core.stats import paired_drop
from edgexfer.data.dataset import Dataset
from edgexfer.models.classes import match_classes
from edgexfer.models.head import (
    HIDDEN,
    belongs,
    head_names,
    head_parameters,
    output_names,
    set_head,
)
from edgexfer.models.store import load_model
from edgexfer.models.weights import fit_weights
from edgexfer.recipe import DataSection
from edgexfer.training.evaluate import predict_logits
from edgexfer.training.stage import images_of, open_data
from edgexfer.transfer.plan import Subject


@dataclass(frozen=True)
class Former:
    """What a model knew before.

    Attributes:
        place: its run.
        model: as it was, in eval mode, its parameters frozen.
        data: what it was trained on.
        dataset: likewise, opened.
        labels: for each class of that data set its output in ``model``.
        classes: outputs of the model that learns more: the new data's classes, then the other ones
            of the former model.
        columns: for each output of ``model`` its place among ``classes``.
    """

    place: Path
    model: nn.Module
    data: DataSection
    dataset: Dataset
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    columns: tuple[int, ...]


def identity(old: str | None) -> dict[str, str]:
    """Return the hash by which a run knows what it was made from.

    Raises:
        RecipeError: no former run is named.
        RunError: it is not finished.
    """
    if old is None:
        raise RecipeError(
            "there is nothing to remember: no former run is named", "add --option old=RUN"
        )
    from edgexfer.core.model import read_card

    return {"old": read_card(old).weights_sha256}


def take_up(subject: Subject, old: str) -> Former:
    """Put the former weights into the model that is to learn more, under a head for all classes.

    Args:
        subject: its model is changed in place; its head gets the former's form, and its outputs for
            new classes begin at random.
        old: the former run.

    Raises:
        RunError: the former run is not finished.
        ModelError: it is another architecture, or another geometry, or has several tasks.
        RecipeError: weights were named as well.
        DataError: its images are not there any more, or others.
    """
    section, built = subject.section, subject.built
    if section.model.weights or section.model.pretrained:
        raise RecipeError(
            f"strategy {section.strategy} begins with the weights of {old}, but others are named",
            "leave out --weights and --pretrained",
        )
    model, card = load_model(Path(old))
    if card.tasks:
        raise ModelError(
            f"{old}: answers {len(card.tasks)} tasks, and {section.strategy} remembers one",
            "name a run of one task",
        )
    for what, theirs, ours in (
        ("model", card.name, built.name),
        ("preprocess", card.preprocess, built.preprocess),
    ):
        if theirs != ours:
            raise ModelError(
                f"{old}: its {what} is {theirs}, but {ours} is to be trained",
                f"train {card.name} at {card.preprocess.size[0]} pixels",
            )
    new = subject.dataset.classes
    classes = (*new, *(name for name in card.classes if name not in new))
    columns = tuple(match_classes(classes, card.classes, old))
    hidden = card.options.get(HIDDEN)
    set_head(built.model, len(classes), seed=section.train.seed, hidden=hidden)
    built.options.pop(HIDDEN, None)
    if hidden is not None:
        built.options[HIDDEN] = hidden
    _copy(model, built.model, columns, old)
    info = read_run(old)
    data = DataSection(**info.data)
    dataset = open_data(data)
    if dataset.fingerprint != info.data_fingerprint:
        # Its test images may have been trained on since, and what is resumed would see others.
        raise DataError(
            f"{old}: its data {data.path} has changed since it was trained",
            "restore the data, or train it again",
        )
    labels = tuple(match_classes(card.classes, dataset.classes, old))
    return Former(Path(old), model.requires_grad_(False), data, dataset, labels, classes, columns)


def forgotten(former: Former, model: nn.Module, subject: Subject) -> Mapping[str, Any]:
    """Test former and new model on the former test images.

    Returns:
        ``n``, ``before_pct``, ``after_pct`` (among all classes) and ``among_old_pct`` (where it is
        known that the image shows a former class), and ``drop`` and ``drop_among_old``, the paired
        differences with their 95 % intervals.
    """
    preprocess = subject.built.preprocess
    test = images_of(former.data, former.dataset, "test", preprocess)
    wanted = np.asarray(former.labels)[test.labels.numpy()]
    columns = np.asarray(former.columns)
    logits = predict_logits(model, preprocess, test)
    before = predict_logits(former.model, preprocess, test).argmax(1) == wanted
    after = logits.argmax(1) == columns[wanted]
    among_old = logits[:, columns].argmax(1) == wanted
    return {
        "old_task": {
            "run": str(former.place),
            "n": len(wanted),
            "before_pct": 100 * float(before.mean()),
            "after_pct": 100 * float(after.mean()),
            "among_old_pct": 100 * float(among_old.mean()),
            "drop": encode(paired_drop(before.tolist(), after.tolist())),
            "drop_among_old": encode(paired_drop(before.tolist(), among_old.tolist())),
        }
    }


def _copy(former: nn.Module, model: nn.Module, columns: tuple[int, ...], old: str) -> None:
    heads, last = head_names(model), output_names(model)
    state = former.state_dict()
    rest = {name: tensor for name, tensor in state.items() if not belongs(name, heads)}
    own = {name: tensor for name, tensor in model.state_dict().items() if belongs(name, heads)}
    fit_weights(model, rest | own, old)
    with torch.no_grad():
        for name, parameter in head_parameters(model).items():
            if belongs(name, last):
                parameter[list(columns)] = state[name]
            else:
                parameter.copy_(state[name])
