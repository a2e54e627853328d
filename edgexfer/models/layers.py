"""Which layers a model has to look into: its stages, by number, and its modules, by name.

What a stage is called comes from the ``feature_info`` that timm's models and edgexfer's own ones
carry. How parameters fall into stages, for freezing, stands in ``head.py``.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from edgexfer.core.errors import ModelError, nearest
from edgexfer.models.head import belongs


def stage_modules(model: nn.Module) -> tuple[str, ...]:
    """Return the dotted names of the modules that give the stages' feature maps, first to last.

    The stem is none of them: stage 2 of a ResNet is ``layer2``. A model that does not say what its
    stages are has none; each block of a plain transformer is one.
    """
    info: Any = getattr(model, "feature_info", None)
    names = [name for name, _ in model.named_modules()]
    listed = [str(stage["module"]) for stage in getattr(info, "info", info) or ()]
    found = [name for name in dict.fromkeys(listed) if name in names]
    while found and _in_stem(model, names, found[0]):
        del found[0]
    return tuple(found)


def find_layer(model: nn.Module, layer: str, where: str) -> str:
    """Return the dotted name of a module.

    Args:
        model: the one to look into.
        layer: the number of a stage, from 1, or from the end as -1; or a module's dotted name.
        where: who asks, which opens the text of the error.

    Raises:
        ModelError: there is no such stage or module; the nearest names and the stages are offered.
    """
    stages = stage_modules(model)
    names = [name for name, _ in model.named_modules() if name]
    if layer in names:
        return layer
    known = ", ".join(f"{i} {name}" for i, name in enumerate(stages, start=1)) or "none is known"
    if re.fullmatch(r"-?\d+", layer):
        number = int(layer)
        if not 1 <= abs(number) <= len(stages):
            raise ModelError(
                f"{where}: {type(model).__name__} has {len(stages)} stages, none is {layer}",
                f"stages: {known}; or give the name of a module",
            )
        return stages[number - 1 if number > 0 else number]
    raise ModelError(
        f"{where}: {type(model).__name__} has no layer {layer!r}",
        f"{nearest(layer, names).rstrip('?')}; stages: {known}",
    )


def norm_modules(model: nn.Module) -> list[nn.Module]:
    """Return the normalising layers, those that are derived from torch's own."""
    kinds = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return [module for module in model.modules() if isinstance(module, kinds)]


def norm_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the scales and shifts of the normalising layers."""
    return [p for module in norm_modules(model) for p in module.parameters(recurse=False)]


def _in_stem(model: nn.Module, names: list[str], module: str) -> bool:
    """Say whether a module and all that is defined before it belong to the stem."""
    matcher: Any = getattr(model, "group_matcher", None)
    groups = matcher() if callable(matcher) else None
    stem = groups.get("stem") if isinstance(groups, dict) else None
    if not isinstance(stem, str):
        return False
    end = max(i for i, name in enumerate(names) if belongs(name, (module,)))
    parameters = [
        f"{name}.{parameter}".lstrip(".")
        for name in names[: end + 1]
        for parameter, _ in model.get_submodule(name).named_parameters(recurse=False)
    ]
    return all(re.match(stem, parameter) for parameter in parameters)
