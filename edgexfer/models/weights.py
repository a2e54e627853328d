"""Weights, read safely: safetensors, or a timm ``.pth`` under ``weights_only=True``.

Nothing in a file is ever executed and there is no unsafe fallback. What the tensors are put into
stands in ``create.py`` and ``store.py``.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgexfer.core.errors import ModelError, first_line
from edgexfer.core.files import sha256_file
from edgexfer.core.model import FOLDER, WEIGHTS, ModelCard, read_card

SUFFIXES = (".safetensors", ".pth", ".pt", ".tar", ".bin")
# Where training scripts keep the weights inside a checkpoint; averaged ones are preferred.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
# Left by DistributedDataParallel and torch.compile, in either order.
_PREFIXES = ("module.", "_orig_mod.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file by name, onto the CPU.

    Args:
        path: ``.safetensors``, or a checkpoint that ``torch.save`` wrote.

    Raises:
        ModelError: the file is missing, empty, not what its name says, cut short, holds more than
            plain tensors, or has a value that is not finite.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such weights file", "check the path given with --weights")
    if path.suffix not in SUFFIXES:
        raise ModelError(
            f"{path}: is not named like a weights file", f"give one of {', '.join(SUFFIXES)}"
        )
    if path.stat().st_size == 0:
        raise ModelError(f"{path}: is empty", "download or copy the weights again")
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path)
    if not tensors:
        raise ModelError(f"{path}: holds no tensors", "give a file with a model's weights")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                f"{path}: tensor {name} has values that are not finite (NaN or infinite)",
                "take weights from before the training broke down",
            )
    return tensors


def weights_file(path: Path) -> Path:
    """Return the file that holds the weights: of a folder, which is a run, its model's."""
    return path / FOLDER / WEIGHTS if path.is_dir() else path


def read_trained(run: Path) -> tuple[dict[str, Tensor], ModelCard]:
    """Read the weights of a finished run, and what its card says of them.

    Raises:
        RunError: the run holds no finished model.
        ModelError: the weights are missing, or differ from the card.
    """
    card = read_card(run)
    place = run / FOLDER / WEIGHTS
    if place.is_file() and sha256_file(place) != card.weights_sha256:
        raise ModelError(
            f"{place}: differs from what was trained (sha256 is not the card's)",
            "copy the run again, or train the model again",
        )
    return read_weights(place), card


def fit_weights(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Copy tensors into a model whose every tensor they must name, in its shape.

    Raises:
        ModelError: naming the first tensor that is missing, unexpected or of another shape.
    """
    wanted = model.state_dict()
    missing = [n for n in wanted if n not in tensors]
    foreign = [n for n in tensors if n not in wanted]
    kind = type(model).__name__
    if len(missing) > len(wanted) / 2:
        raise ModelError(
            f"{where}: are weights of another architecture: {len(missing)} of the {len(wanted)} "
            f"tensors of {kind} are missing, such as {missing[0]}",
            "name the architecture that the weights were made with",
        )
    if missing:
        raise ModelError(
            f"{where}: tensor {missing[0]} is missing ({len(missing)} in all)",
            "name the architecture and options that the weights were made with",
        )
    if foreign:
        raise ModelError(
            f"{where}: tensor {foreign[0]} is unknown to {kind} ({len(foreign)} in all)",
            "name the architecture and options that the weights were made with",
        )
    for name, tensor in wanted.items():
        if tensor.shape != tensors[name].shape:
            raise ModelError(
                f"{where}: tensor {name} has shape {_shape(tensors[name])}, "
                f"{kind} needs {_shape(tensor)}",
                "name the architecture, options and classes that the weights were made with",
            )
    model.load_state_dict(dict(tensors))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{path}: is not whole as safetensors ({first_line(error, 80)})",
            "download or copy the weights again",
        ) from error


def _read_pth(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path}: is not a checkpoint of tensors alone; opening it could run foreign code",
            "convert it to .safetensors where you trust it, and give that file",
        ) from error
    except Exception as error:
        # torch's reader answers damage with RuntimeError, EOFError, KeyError, ValueError and more.
        raise ModelError(
            f"{path}: is not whole as a torch checkpoint ({first_line(error, 80)})",
            "download or copy the weights again",
        ) from error
    return _unwrap(content, path)


def _unwrap(content: Any, path: Path) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise ModelError(
            f"{path}: holds a {type(content).__name__}, not tensors by name",
            "give a checkpoint with a state dict",
        )
    tensors = {}
    for key, value in content.items():
        name = str(key)
        if not isinstance(value, Tensor):
            raise ModelError(
                f"{path}: entry {name} is a {type(value).__name__}, not a tensor",
                "give a checkpoint with a state dict",
            )
        while name.startswith(_PREFIXES):
            name = name.split(".", 1)[1]
        tensors[name] = value
    return tensors


def _shape(tensor: Tensor) -> str:
    return "x".join(str(n) for n in tensor.shape) or "scalar"
