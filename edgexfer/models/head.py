"""Where a model's head is, of what form, and in which stages its backbone falls.

timm's conventions are used (``get_classifier``, ``group_matcher``); edgexfer's own models follow
them too. What is done with the stages (freezing) stands in ``freeze.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgexfer.core.errors import ModelError

#: The option of every architecture that gives its head a hidden layer, of so many units.
HIDDEN = "head_hidden"


class Perceptron(nn.Module):
    """A head with one hidden layer, W2 max(0, W1 x + b1) + b2, in a linear layer's place."""

    def __init__(self, features: int, hidden: int, outputs: int) -> None:
        """Begin as torch's linear layers do."""
        super().__init__()
        self.hidden = nn.Linear(features, hidden)
        self.out = nn.Linear(hidden, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Return the outputs (B, C) for features (B, D)."""
        found: Tensor = self.out(F.relu(self.hidden(features)))
        return found


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Return the dotted names of the modules that make up the head; two where it is distilled.

    Raises:
        ModelError: the model does not say where its head is.
    """
    finder: Any = getattr(model, "get_classifier", None)
    found = finder() if callable(finder) else None
    heads = [m for m in (found if isinstance(found, tuple) else (found,)) if m is not None]
    names = tuple(n for n, m in model.named_modules() if any(m is h for h in heads))
    if not names or not any(True for n in names for _ in model.get_submodule(n).parameters()):
        raise ModelError(
            f"{type(model).__name__}: has no classification head",
            "choose an architecture for image classification",
        )
    return names


def head_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the head's parameters by name."""
    names = head_names(model)
    return {n: p for n, p in model.named_parameters() if belongs(n, names)}


def backbone_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return by name all parameters that are not the head's."""
    names = head_names(model)
    return {n: p for n, p in model.named_parameters() if not belongs(n, names)}


def output_names(model: nn.Module) -> tuple[str, ...]:
    """Return the dotted names of the head's last layers, one of each head."""
    return tuple(
        f"{name}.out" if isinstance(model.get_submodule(name), Perceptron) else name
        for name in head_names(model)
    )


def head_size(model: nn.Module) -> int:
    """Return how many outputs the head has."""
    last = output_names(model)
    return max(int(p.shape[0]) for n, p in head_parameters(model).items() if belongs(n, last))


def set_head(
    model: nn.Module, num_classes: int, *, seed: int = 0, hidden: int | None = None
) -> None:
    """Put a new head in the old one's place, initialised from ``seed`` alone.

    Args:
        model: changed in place.
        num_classes: outputs of the new head.
        seed: torch's global generator is left as it was.
        hidden: units of a hidden layer; ``None`` for the architecture's own head.
    """
    head_names(model)
    reset: Any = model.reset_classifier
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reset(num_classes)
        if hidden is not None:
            add_hidden(model, hidden)


def add_hidden(model: nn.Module, hidden: Any) -> None:
    """Put a new head with a hidden layer in a linear one's place; of two heads in either's.

    Args:
        model: changed in place.
        hidden: units of the hidden layer, from 1 on.

    Raises:
        ModelError: the head is not linear, or the number is none.
    """
    if type(hidden) is not int or hidden < 1:
        raise ModelError(
            f"{type(model).__name__}: {HIDDEN} is {hidden!r}",
            "give how many units the hidden layer has, from 1 on",
        )
    for name in head_names(model):
        head = model.get_submodule(name)
        if not isinstance(head, nn.Linear):
            raise ModelError(
                f"{type(model).__name__}: {HIDDEN} is set, but head {name} is not a linear layer",
                f"leave {HIDDEN} out, or choose another architecture",
            )
        model.set_submodule(name, Perceptron(head.in_features, hidden, head.out_features))


def stages(model: nn.Module) -> list[list[str]]:
    """Sort parameter names into stem, stages and, last, all that stands behind the last stage.

    Returns:
        Lists of dotted parameter names, in the order of the forward pass. A model without
        ``group_matcher`` falls into its children.
    """
    heads = head_names(model)
    matcher: Any = getattr(model, "group_matcher", None)
    if not callable(matcher):
        return _children(model, heads)
    from timm.models import group_parameters

    groups: dict[int, list[str]] = group_parameters(model, matcher(coarse=True))
    found = [list(groups[i]) for i in sorted(groups)]
    if not any(belongs(name, heads) for name in found[-1]):
        found.append([])
    return found


def _children(model: nn.Module, heads: tuple[str, ...]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        if not belongs(name, heads):
            groups.setdefault(name.split(".")[0], []).append(name)
    tail = [n for n, _ in model.named_parameters() if belongs(n, heads)]
    return [*groups.values(), tail]


def belongs(name: str, modules: tuple[str, ...]) -> bool:
    """Say whether a parameter or module is one of these modules, or inside one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)
