"""Parameter groups for the optimiser: head and backbone, with and without weight decay."""

from __future__ import annotations

from typing import Any

from torch import nn

from edgexfer.models.head import head_parameters, stages


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    backbone_lr: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    decay_all: bool = False,
) -> list[dict[str, Any]]:
    """Sort the trainable parameters into groups as torch's optimisers take them.

    Args:
        model: frozen parameters are left out.
        lr: peak learning rate of the head.
        backbone_lr: factor on ``lr`` for everything else.
        layer_decay: further factor for each stage that a parameter stands below the head (as in
            BEiT, Bao et al. 2021; the discriminative rates of ULMFiT, Howard and Ruder 2018).
        weight_decay: for parameters of two or more dimensions, but for those that the architecture
            itself exempts (timm's ``no_weight_decay``, such as position embeddings).
        decay_all: let parameters of one dimension, biases and norms, decay as well.

    Returns:
        Groups with ``name``, ``params``, ``lr`` and ``weight_decay``; empty ones are left out.
    """
    head = head_parameters(model)
    below = _stages_below_head(model) if layer_decay != 1 else {}
    exemption: Any = getattr(model, "no_weight_decay", set)
    exempt = set(exemption())
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = "head" if name in head else "backbone"
        decays = (parameter.ndim > 1 or decay_all) and name not in exempt
        depth = 0 if part == "head" else below.get(name, 0)
        key = part + (f"_{depth}_below" if depth else "") + ("" if decays else "_no_decay")
        rate = (lr if part == "head" else lr * backbone_lr) * layer_decay**depth
        fresh = {"name": key, "params": [], "lr": rate, "weight_decay": weight_decay * decays}
        groups.setdefault(key, fresh)["params"].append(parameter)
    return list(groups.values())


def _stages_below_head(model: nn.Module) -> dict[str, int]:
    """Return for each parameter how many stages it stands below the head's, which is 0."""
    order = stages(model)
    return {name: len(order) - 1 - i for i, names in enumerate(order) for name in names}
