"""Class maps: models and data sets are matched by the names of their classes, never by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgexfer.core.errors import ModelError, nearest
from edgexfer.core.files import PathLike
from edgexfer.yamlio import key_lines, line_of, read_yaml

_RETRAIN = "train the model on this data first, or rename the class folders to the model's names"


def match_classes(
    model: Sequence[str],
    data: Sequence[str],
    where: str,
    *,
    renamed: Mapping[str, str] | None = None,
    fix: str = _RETRAIN,
) -> list[int]:
    """Find each of the data's classes among the model's, by name.

    Args:
        model: names of the model's outputs, in their order.
        data: names of the data's classes, in the order of their labels.
        where: the model's folder; it opens the text of the error.
        renamed: the model's name of each of the data's classes that it calls otherwise.
        fix: what to do about a class that the model lacks.

    Returns:
        For each of the data's classes its index in the model's outputs; classes that only the model
        has are left out.

    Raises:
        ModelError: naming the classes that the model lacks, or two that are one to the model.
    """
    index = {name: i for i, name in enumerate(model)}
    # A name that this model lacks may be another model's, beside it in an ensemble.
    other = {ours: theirs for ours, theirs in (renamed or {}).items() if theirs in index}
    wanted = {name: other.get(name, name) for name in data}
    missing = [name for name in data if wanted[name] not in index]
    if missing:
        shown = ", ".join(repr(m) for m in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ModelError(
            f"{where}: the model does not know {len(missing)} of the data's classes: {shown}", fix
        )
    owner: dict[str, str] = {}
    for ours, theirs in wanted.items():
        if owner.setdefault(theirs, ours) != ours:
            raise ModelError(
                f"{where}: {owner[theirs]!r} and {ours!r} are both the model's class {theirs!r}",
                "give each of the data's classes its own class of the model",
            )
    return [index[wanted[name]] for name in data]


def read_class_map(
    path: PathLike, data: Sequence[str], models: Sequence[Sequence[str]]
) -> dict[str, str]:
    """Read the model's name of each of the data's classes that it calls otherwise.

    Args:
        path: a YAML file of lines ``data's class: model's class``; classes of the same name need
            no line.
        data: names of the data's classes.
        models: names of the classes of each model that the file is for.

    Raises:
        ModelError: with the line of a name that is none of the data's or of any model's, or that
            YAML does not read as text.
    """
    place = Path(path)
    value: dict[str, str] = read_yaml(place, ModelError)
    lines = key_lines(place)
    theirs = {name for names in models for name in names}
    for key, name in value.items():
        at = line_of((str(key),), lines)
        for text in (key, name):
            if not isinstance(text, str):
                raise ModelError(f"{place}: {text!r}{at} is not text", "write it in quotes")
        if key not in data:
            raise ModelError(f"{place}: the data has no class {key!r}{at}", nearest(key, data))
        if name not in theirs:
            raise ModelError(f"{place}: the model has no class {name!r}{at}", nearest(name, theirs))
    return value
