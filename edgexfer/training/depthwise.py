"""Depthwise convolutions of a CPU training in bf16: they compute in float32.

oneDNN's bf16 gradient of a depthwise weight is up to five times as slow as the one in float32 (5x5,
14x14 pixels: 11.7 against 2.3 ms, where the rest of the layer takes 0.8 ms), which made bf16 slower
than float32 for every mobile network. With these layers in float32, bf16 is the faster for them.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn


def keep_float32(model: nn.Module) -> None:
    """Let the depthwise convolutions of a model compute in float32 under autocast on a CPU.

    What goes in and comes out keeps its format; without autocast nothing changes. Copies of the
    model (``copy.deepcopy``) do the same.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            module.forward = partial(_forward, module)  # type: ignore[method-assign]


def _forward(module: nn.Conv2d, x: Tensor) -> Tensor:
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return type(module).forward(module, x)
    with torch.autocast("cpu", enabled=False):
        return type(module).forward(module, x.float()).to(x.dtype)
