"""Parameter groups for the optimiser: head and backbone, with and without weight decay."""

from __future__ import annotations

from typing import Any

from torch import nn

from edgexfer.models.head import head_parameters


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    backbone_lr: float,
    weight_decay: float,
    decay_all: bool = False,
) -> list[dict[str, Any]]:
    """Sort the trainable parameters into groups as torch's optimisers take them.

    Args:
        model: frozen parameters are left out.
        lr: peak learning rate of the head.
        backbone_lr: factor on ``lr`` for everything else.
        weight_decay: for parameters of two or more dimensions, but for those that the architecture
            itself exempts (timm's ``no_weight_decay``, such as position embeddings).
        decay_all: let parameters of one dimension, biases and norms, decay as well.

    Returns:
        Groups with ``name``, ``params``, ``lr`` and ``weight_decay``; empty ones are left out.
    """
    head = head_parameters(model)
    exemption: Any = getattr(model, "no_weight_decay", set)
    exempt = set(exemption())
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = "head" if name in head else "backbone"
        decays = (parameter.ndim > 1 or decay_all) and name not in exempt
        key = part if decays else f"{part}_no_decay"
        rate = lr if part == "head" else lr * backbone_lr
        fresh = {"name": key, "params": [], "lr": rate, "weight_decay": weight_decay * decays}
        groups.setdefault(key, fresh)["params"].append(parameter)
    return list(groups.values())
