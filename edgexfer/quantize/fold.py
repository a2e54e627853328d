"""Batch norms folded into the convolutions before them, within the architecture that they have.

An exporter folds them as well, but into weights that the model does not have. Here the model itself
gets them: each such batch norm is left to add a bias, so that whatever is exported afterwards holds
the model's own weights, to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgexfer.bench.compare import compare
from edgexfer.core.errors import ModelError

# Two float32 orders of the same sums; 120 dB and more were measured.
_SAME_DB = 100.0


def fold_batch_norms(model: nn.Module, images: Tensor) -> dict[str, str]:
    """Move what batch norms do into the convolutions that feed them; the model computes the same.

    Args:
        model: in eval mode; changed in place.
        images: normalised float32 (B, 3, H, W), to follow the data through the model and to check
            that it still gives the same.

    Returns:
        The names of the batch norms by those of their convolutions.

    Raises:
        ModelError: a convolution is used for something else as well, so that the outputs changed.
    """
    names = {module: name for name, module in model.named_modules()}
    with torch.no_grad():
        before = model(images)
        pairs = _pairs(model, images)
        for conv, norm in pairs:
            _fold(conv, norm)
        after = model(images)
    if not compare(before.numpy(), after.numpy()).at_least(_SAME_DB):
        raise ModelError(
            f"{type(model).__name__}: its batch norms cannot be folded into its convolutions",
            "leave out --quantize-for, or choose another architecture",
        )
    return {names[conv]: names[norm] for conv, norm in pairs}


def _pairs(model: nn.Module, images: Tensor) -> list[tuple[nn.Conv2d, _BatchNorm]]:
    """Return each convolution whose output a batch norm takes."""
    # Tensors are kept, not their ids, which a later tensor may get again.
    made: list[tuple[Tensor, nn.Conv2d]] = []
    pairs: list[tuple[nn.Conv2d, _BatchNorm]] = []

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        made.append((output, module))

    def match(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, _BatchNorm)
        pairs.extend((conv, module) for output, conv in made if output is inputs[0])

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Conv2d)]
    hooks += [
        m.register_forward_pre_hook(match)
        for m in model.modules()
        if isinstance(m, _BatchNorm) and m.affine and m.running_mean is not None
    ]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return pairs


def _fold(conv: nn.Conv2d, norm: _BatchNorm) -> None:
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    factor = norm.weight / torch.sqrt(variance + norm.eps)
    conv.weight.mul_(factor.view(-1, 1, 1, 1))
    bias = norm.bias - mean * factor
    if conv.bias is not None:
        bias += conv.bias * factor
        conv.bias.zero_()
    # Such that weight / sqrt(variance + eps) is 1.
    mean.zero_()
    variance.fill_(1.0)
    norm.weight.copy_(torch.sqrt(variance + norm.eps))
    norm.bias.copy_(bias)
