"""Class maps: models and data sets are matched by the names of their classes, never by position."""

from __future__ import annotations

from collections.abc import Sequence

from edgexfer.core.errors import ModelError


def match_classes(model: Sequence[str], data: Sequence[str], where: str) -> list[int]:
    """Find each of the data's classes among the model's, by name.

    Args:
        model: names of the model's outputs, in their order.
        data: names of the data's classes, in the order of their labels.
        where: the model's folder; it opens the text of the error.

    Returns:
        For each of the data's classes its index in the model's outputs; classes that only the model
        has are left out.

    Raises:
        ModelError: naming the classes that the model lacks.
    """
    index = {name: i for i, name in enumerate(model)}
    missing = [name for name in data if name not in index]
    if missing:
        shown = ", ".join(repr(m) for m in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ModelError(
            f"{where}: the model does not know {len(missing)} of the data's classes: {shown}",
            "train the model on this data first, or rename the class folders to the model's names",
        )
    return [index[name] for name in data]
