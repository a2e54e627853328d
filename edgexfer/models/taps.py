"""Taps: what some layers of a model put out, caught while it runs, as maps (B, C, H, W).

Which layers those are is chosen in ``layers.py``; what is made of their maps is up to losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from edgexfer.core.errors import ModelError
from edgexfer.models.layers import stage_modules


@dataclass(frozen=True)
class Tapped:
    """A layer and what its output looks like.

    Attributes:
        shape: channels, height and width of its map.
        prefix: tokens before those of the image, such as a class token.
        channels_last: whether the map comes as (B, H, W, C).
        overwritten: whether the model goes on to compute in the output's own memory.
    """

    shape: tuple[int, int, int]
    prefix: int
    channels_last: bool
    overwritten: bool


class Taps:
    """Catches the maps of some layers whenever the model runs, until they are closed.

    The hooks stand on the layers themselves, so that it makes no difference whether the model is
    called bare, in a ``PixelModel``, compiled or by DDP. A deep copy of the model shares them: what
    ran last is caught.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, Tapped], *, training: bool) -> None:
        """Open the taps.

        Args:
            model: has the layers.
            layers: by dotted name, as ``probe`` returns them.
            training: catch only what runs with gradients; else only what runs without, as teachers
                do. A student that is validated is thus left alone.
        """
        self._layers = dict(layers)
        self._caught: dict[str, Tensor] = {}
        self._handles = [
            model.get_submodule(name).register_forward_hook(
                _catch(self._caught, name, copy=layer.overwritten, training=training)
            )
            for name, layer in layers.items()
        ]

    def take(self) -> dict[str, Tensor]:
        """Return the maps (B, C, H, W) of the last run by layer, and forget them.

        Raises:
            RuntimeError: the model has not run since they were last taken.
        """
        missing = self._layers.keys() - self._caught.keys()
        if missing:
            raise RuntimeError(f"{', '.join(sorted(missing))}: did not run since the last take()")
        maps = {name: _as_map(self._caught[name], layer) for name, layer in self._layers.items()}
        self._caught.clear()
        return maps

    def close(self) -> None:
        """Remove the hooks and forget what was caught."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._caught.clear()


def probe(model: nn.Module, names: Iterable[str], example: Tensor) -> dict[str, Tapped]:
    """Run a model once and see what its layers put out; it is left as it was.

    Args:
        model: takes ``example``; put into eval mode meanwhile, so that no statistics move.
        names: dotted names of modules.
        example: normalised images (B, 3, H, W).

    Raises:
        ModelError: a layer did not run, or what it puts out cannot be read as a map.
    """
    outputs: dict[str, Any] = {}
    versions: dict[str, int] = {}
    handles: list[RemovableHandle] = []

    def note(name: str) -> Callable[..., None]:
        def hook(*call: Any) -> None:
            outputs[name] = call[-1]
            if isinstance(call[-1], Tensor):
                versions[name] = call[-1]._version

        return hook

    try:
        for name in dict.fromkeys(names):
            handles.append(model.get_submodule(name).register_forward_hook(note(name)))
            outputs[name] = None
        with _evaluating(model), torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: _tapped(model, name, output, versions.get(name, 0))
        for name, output in outputs.items()
    }


def _tapped(model: nn.Module, name: str, output: Any, version: int) -> Tapped:
    size = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
    channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    # The embedding of the patches has no class token yet.
    for skipped in (prefix, 0):
        shape = _shape(size, skipped, channels_last)
        if shape is not None:
            return Tapped(shape, skipped, channels_last, output._version != version)
    stages = ", ".join(stage_modules(model)) or "none is known"
    tensor = f"a tensor (B, {', '.join(map(str, size))})"
    seen = tensor if size else "nothing" if output is None else f"a {type(output).__name__}"
    raise ModelError(
        f"{type(model).__name__}: layer {name} puts out {seen}, which is not a feature map",
        f"choose another layer; stages: {stages}",
    )


def _shape(size: Sequence[int], prefix: int, channels_last: bool) -> tuple[int, int, int] | None:
    """Return channels, height and width of an output of this size per image; ``None`` for no map.

    A vector is a map of one position; tokens are one of as many rows as columns.
    """
    if len(size) == 1:
        return size[0], 1, 1
    if len(size) == 2:
        side = math.isqrt(max(size[0] - prefix, 0))
        return (size[1], side, side) if side and side**2 + prefix == size[0] else None
    if len(size) == 3:
        return (size[2], size[0], size[1]) if channels_last else (size[0], size[1], size[2])
    return None


def _as_map(output: Tensor, layer: Tapped) -> Tensor:
    """Return a layer's output as a map (B, C, H, W)."""
    channels, height, width = layer.shape
    if output.dim() == 4:
        return output.permute(0, 3, 1, 2) if layer.channels_last else output
    if output.dim() == 3:
        tokens = output[:, layer.prefix :].transpose(1, 2)
        return tokens.reshape(len(output), channels, height, width)
    return output[:, :, None, None]


def _catch(
    caught: dict[str, Tensor], name: str, *, copy: bool, training: bool
) -> Callable[..., None]:
    # A plain function: a deep copy of the model keeps it as it is, and copies nothing caught.
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        del module, inputs
        if torch.is_grad_enabled() == training:
            caught[name] = output.clone() if copy else output

    return hook


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode, and each of its modules back into its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
