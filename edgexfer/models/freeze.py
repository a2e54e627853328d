"""Freezing: which parameters stand still, and which modules must then stay in eval mode.

A frozen batch norm whose statistics still move is not frozen: whoever trains keeps the modules
that these functions return in eval mode.
"""

from __future__ import annotations

from torch import nn

from edgexfer.core.errors import ModelError, nearest
from edgexfer.models.head import backbone_parameters, belongs, head_names, stages


def freeze(model: nn.Module, until: str | None) -> list[nn.Module]:
    """Freeze a model from its input up to and with one layer.

    Args:
        model: changed in place; modules count in the order of their definition, which in timm's and
            edgexfer's own models is that of the forward pass.
        until: dotted name of a module, such as ``layer2`` or ``blocks.3.1``; ``None`` freezes the
            whole backbone but its last stage.

    Returns:
        The largest modules that are now frozen as a whole, to be kept in eval mode.

    Raises:
        ModelError: no such module, or it belongs to the head; the nearest names are offered.
    """
    leaves = [name for name, module in model.named_modules() if _is_leaf(module)]
    last = _last_of_frozen_stages(model) if until is None else until
    found = [i for i, name in enumerate(leaves) if name == last or name.startswith(f"{last}.")]
    heads = head_names(model)
    if not found or belongs(leaves[found[-1]], heads):
        known = [n for n, _ in model.named_modules() if n and not belongs(n, heads)]
        raise ModelError(
            f"layer {last!r}: {type(model).__name__} has no such layer in its backbone",
            nearest(last, known),
        )
    return _freeze_leaves(model, set(leaves[: found[-1] + 1]))


def freeze_backbone(model: nn.Module) -> list[nn.Module]:
    """Freeze everything but the head; returns the modules to be kept in eval mode."""
    for parameter in backbone_parameters(model).values():
        parameter.requires_grad_(False)
    heads = head_names(model)
    leaves = {n for n, m in model.named_modules() if _is_leaf(m) and not belongs(n, heads)}
    return _freeze_leaves(model, leaves)


def freeze_stages(model: nn.Module, count: int) -> list[nn.Module]:
    """Freeze the first stages of a model, stem first, and thaw all that stands behind them.

    Args:
        model: changed in place.
        count: how many of ``models.head.stages``; 0 thaws the whole model.

    Returns:
        The largest modules that are now frozen as a whole, to be kept in eval mode.
    """
    still = {name for names in stages(model)[:count] for name in names}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in still)
    leaves: set[str] = set()
    frozen = count > 0
    for name, module in model.named_modules():
        if not _is_leaf(module):
            continue
        own = [f"{name}.{n}".lstrip(".") for n, _ in module.named_parameters(recurse=False)]
        # Statistics without parameters go with what is defined before them.
        frozen = all(n in still for n in own) if own else frozen
        if frozen:
            leaves.add(name)
    return _whole(model, "", leaves)


def _freeze_leaves(model: nn.Module, leaves: set[str]) -> list[nn.Module]:
    # Parameters of the root itself (class token, position embedding) belong to the stem.
    for parameter in model.parameters(recurse=False):
        parameter.requires_grad_(False)
    for name in leaves:
        for parameter in model.get_submodule(name).parameters(recurse=False):
            parameter.requires_grad_(False)
    return _whole(model, "", leaves)


def _whole(module: nn.Module, name: str, leaves: set[str]) -> list[nn.Module]:
    inside = [f"{name}.{n}".strip(".") for n, m in module.named_modules() if _is_leaf(m)]
    still = all(not p.requires_grad for p in module.parameters())
    if inside and still and all(leaf in leaves for leaf in inside):
        return [module]
    found = []
    for child, inner in module.named_children():
        found += _whole(inner, f"{name}.{child}".strip("."), leaves)
    return found


def _is_leaf(module: nn.Module) -> bool:
    """Whether a module holds state of its own: parameters, or buffers such as statistics."""
    own = next(module.parameters(recurse=False), None)
    return own is not None or next(module.buffers(recurse=False), None) is not None


def _last_of_frozen_stages(model: nn.Module) -> str:
    groups = stages(model)
    names = {name.rpartition(".")[0] for group in groups[:-2] for name in group}
    order: list[str] = [name for name, _ in model.named_modules() if name in names]
    if not order or order == [""]:
        raise ModelError(
            f"{type(model).__name__}: its backbone has one stage only, so none can be frozen",
            "name a layer with --option until=LAYER, or use --strategy probe",
        )
    return order[-1]
