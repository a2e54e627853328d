"""What a strategy is given and what it decides, and how its options are read.

A strategy is a file of this room whose docstring begins with "Strategy ``NAME``". It has
``prepare(subject) -> Plan`` and ``NEEDS_WEIGHTS``, which says whether it means anything on random
weights, and, where there is something to choose, a dataclass ``Options``; where other runs go into
it, ``parents(options)``, their hashes. One that leaves the loss to the stage says
``MULTI_TASK = True``: it takes data of several tasks too. All strategies run on the one loop of
``training``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch import nn

from edgexfer.core.errors import DataError, RecipeError, nearest
from edgexfer.recipe import DataSection, TeacherSection
from edgexfer.training.job import FitResult, Job
from edgexfer.training.loop import fit
from edgexfer.training.objective import Objective
from edgexfer.training.stage import Built, images_of
from edgexfer.yamlio import validate

if TYPE_CHECKING:
    from edgexfer.data.dataset import Dataset
    from edgexfer.data.images import Images

#: The pydantic settings of every ``Options``: an unknown key is an error.
STRICT = {"extra": "forbid"}


@dataclass(frozen=True)
class Subject:
    """What a strategy is to transfer.

    Attributes:
        built: the model with its new head, on the CPU; a strategy may change it in place.
        section: architecture, strategy and schedule.
        options: the strategy's own ``Options``; ``None`` for one that has none.
        data: how the images are opened.
        dataset: the images.
    """

    built: Built
    section: TeacherSection
    options: Any
    data: DataSection
    dataset: Dataset


@dataclass
class Plan:
    """What a strategy decides.

    Attributes:
        frozen: modules that stay in eval mode, so that their statistics stand still.
        objective: what is minimised; ``None`` takes cross entropy.
        auxiliary: what is trained along with the model and not deployed.
        dataset: images that are trained on; ``None`` takes the data set as it is. Its val and test
            splits are those of the data set.
        split: of it: ``train`` or ``train+unlabelled``.
        balanced: half of each batch is without a label.
        classes: names of the model's outputs, where there are others after the data set's classes.
        thaw: called before each epoch with its number, from 0, also when a training is taken up
            again: sets which parameters move and returns the modules that stay in eval mode.
        train: does the training; leaves in the job's model the weights to deploy.
        finish: called after the training, before the test: brings the model back into the form
            that its architecture has.
        results: called after the test; further results, as values that JSON can hold.
    """

    frozen: list[nn.Module] = field(default_factory=list)
    objective: Objective | None = None
    auxiliary: nn.Module | None = None
    dataset: Dataset | None = None
    split: str = "train"
    balanced: bool = False
    classes: tuple[str, ...] | None = None
    thaw: Callable[[int], list[nn.Module]] | None = None
    train: Callable[[Job], FitResult] = fit
    finish: Callable[[], None] | None = None
    results: Callable[[], Mapping[str, Any]] | None = None


def strategy_names() -> tuple[str, ...]:
    """Return the names of all strategies, in the order of the alphabet."""
    places = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    return tuple(place.stem for place in places if _is_strategy(place))


def _is_strategy(place: Path) -> bool:
    """Tell by the docstring's beginning: to import all files costs too much for a list of names."""
    with place.open(encoding="utf-8") as file:
        return file.readline().startswith(f'"""Strategy ``{place.stem}``')


def get_strategy(teacher: TeacherSection) -> ModuleType:
    """Return the module of a section's strategy.

    Raises:
        RecipeError: there is none of that name, or it needs weights to start from.
    """
    names = strategy_names()
    if teacher.strategy not in names:
        raise RecipeError(
            f"strategy {teacher.strategy!r} is unknown", nearest(teacher.strategy, names)
        )
    strategy = importlib.import_module(f"edgexfer.transfer.{teacher.strategy}")
    if strategy.NEEDS_WEIGHTS and not (teacher.model.pretrained or teacher.model.weights):
        raise RecipeError(
            f"strategy {teacher.strategy} builds on trained weights, but these are random",
            "add --pretrained or --weights FILE, or use --strategy scratch",
        )
    return strategy


def read_options(strategy: ModuleType, teacher: TeacherSection) -> Any:
    """Return the strategy's own options, checked as the recipe's sections are.

    Raises:
        RecipeError: with each option that is unknown or wrong.
    """
    given = teacher.strategy_options
    kind = getattr(strategy, "Options", None)
    if kind is None:
        if given:
            what = f"strategy {teacher.strategy} has no options, but {sorted(given)[0]} is set"
            raise RecipeError(what, "leave it out")
        return None
    return validate(kind, given, Path(f"strategy {teacher.strategy}"), RecipeError)


def refuse_tasks(strategy: ModuleType, teacher: TeacherSection, dataset: Dataset) -> None:
    """Refuse data of several tasks for a strategy that knows one label of each image.

    Raises:
        RecipeError: naming strategies that can.
    """
    if not dataset.tasks or getattr(strategy, "MULTI_TASK", False):
        return
    modules = {n: importlib.import_module(f"edgexfer.transfer.{n}") for n in strategy_names()}
    able = [name for name, module in modules.items() if getattr(module, "MULTI_TASK", False)]
    raise RecipeError(
        f"strategy {teacher.strategy} knows one label of each image, data.labels has "
        f"{len(dataset.tasks)} tasks",
        f"use {', '.join(able)}, or leave data.labels out",
    )


def training_images(subject: Subject) -> Images:
    """Return the training images as validation sees them, of which each class has one.

    Raises:
        DataError: no image of a class can be read, or too many cannot.
    """
    dataset = subject.dataset
    images = images_of(subject.data, dataset, "train", subject.built.preprocess)
    lacking = sorted(set(range(len(dataset.classes))) - set(images.labels.tolist()))
    if lacking:
        raise DataError(
            f"{dataset.spec}: no training image of class {dataset.classes[lacking[0]]!r} can be "
            f"read, and strategy {subject.section.strategy} needs one of each",
            "mend the files, see `edgexfer data check`, or raise data.train_limit",
        )
    return images


def read_parents(strategy: ModuleType, options: Any) -> dict[str, str]:
    """Return the hashes of what goes into a strategy besides data and weights."""
    find = getattr(strategy, "parents", None)
    return find(options) if find is not None else {}
