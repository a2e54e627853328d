"""What a source model sees in the target's images: pooled features of its stages, kept by content.

A source is a finished run, a weights file, or pre-trained weights of timm's. What is made of its
features stands in the files beside this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgexfer.core.codec import encode
from edgexfer.core.errors import ModelError
from edgexfer.core.files import fingerprint, sha256_bytes
from edgexfer.core.model import CARD, FOLDER, WEIGHTS
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.progress import Progress
from edgexfer.data.cache import make_entry, sweep
from edgexfer.data.dataset import Dataset
from edgexfer.data.images import sample
from edgexfer.models.create import (
    complete_options,
    create_model,
    default_preprocess,
    head_classes,
)
from edgexfer.models.head import head_names
from edgexfer.models.layers import stage_modules
from edgexfer.models.normalise import PixelModel
from edgexfer.models.store import load_model
from edgexfer.recipe import ModelSection
from edgexfer.training.evaluate import evaluating

#: The name of what goes into the head, as that of a layer.
HEAD = "head"
_MOST_CACHED = 4 << 30
_BATCH_PIXELS, _BATCH_IMAGES = 4 << 20, 256


@dataclass(frozen=True)
class Source:
    """A model that could be started from.

    Attributes:
        name: as the user named it.
        model: with the head that it was trained with, on the CPU.
        preprocess: how it is fed.
        section: how a recipe names it.
        has_head: whether its head was trained; without one it has no opinion on classes, and with
            the heads of several tasks not one.
    """

    name: str
    model: nn.Module
    preprocess: Preprocess
    section: ModelSection
    has_head: bool


@dataclass(frozen=True)
class Features:
    """What a source sees in images.

    Attributes:
        layers: by name of the layer, first to last, pooled over places: float32, (N, D). The last
            is ``head``, what goes into the head.
        probabilities: of the source's own classes, float32, (N, Z); ``None`` without a head.
        labels: of the images, int64, (N,).
        keys: names of the images, N of them.
    """

    layers: dict[str, npt.NDArray[np.float32]]
    probabilities: npt.NDArray[np.float32] | None
    labels: npt.NDArray[np.int64]
    keys: tuple[str, ...]

    @property
    def last(self) -> npt.NDArray[np.float32]:
        """What goes into the head."""
        return self.layers[HEAD]


def open_source(text: str, size: int | None = None) -> Source:
    """Open what a user names as a source.

    Args:
        text: the folder of a finished run, the weights file of one, ``MODEL=FILE``, or a model with
            pre-trained weights.
        size: of the input in pixels, for pre-trained weights; ``None`` takes the model's own.

    Raises:
        RunError: the folder holds no finished model.
        ModelError: the architecture is unknown, or the weights do not fit.
        MachineError: pre-trained weights cannot be fetched.
    """
    name, equals, file = text.partition("=")
    place = Path(text)
    if place.is_dir():
        return _of_run(text, place)
    if place.is_file() and (place.parent / CARD).is_file():
        return _of_run(text, place.parent.parent)
    if equals:
        return _of_file(text, name, Path(file))
    if place.is_file() or "/" in text:
        raise ModelError(
            f"source {text}: "
            + ("does not say its architecture" if place.is_file() else "no such run or file"),
            f"write MODEL={text}" if place.is_file() else "name a run, MODEL=FILE or a timm model",
        )
    return _of_hub(text, size)


def read_features(source: Source, dataset: Dataset, split: str, most: int) -> Features:
    """Return what a source sees in a stratified sample of images, from the cache where it is there.

    Args:
        source: the model.
        dataset: the images.
        split: which of them.
        most: how many images at most.

    Raises:
        DataError: the images are unusable.
        DiskError: the cache cannot be written.
    """
    weights = _digest(source.model)
    what = [dataset.fingerprint, split, most, weights, encode(source.section.name)]
    name = fingerprint([*what, encode(source.preprocess), source.has_head, 1])[:32]

    def fill(folder: Path) -> None:
        found = _compute(source, dataset, split, most)
        np.savez(folder / "features.npz", allow_pickle=False, **_packed(found))

    folder = make_entry("features", name, fill)
    sweep("features", _MOST_CACHED, keep=folder)
    with np.load(folder / "features.npz", allow_pickle=False) as kept:
        layers = {str(n): kept[f"layer{i}"] for i, n in enumerate(kept["names"])}
        keys = tuple(str(key) for key in kept["keys"])
        return Features(layers, kept.get("probabilities"), kept["labels"], keys)


def _of_run(text: str, run: Path) -> Source:
    model, card = load_model(run)
    section = ModelSection(
        card.name,
        card.preprocess.size[0],
        weights=str(run / FOLDER / WEIGHTS),
        options=dict(card.options),
    )
    one_question = len(card.classes) > 1 and not card.tasks
    return Source(text, model, card.preprocess, section, has_head=one_question)


def _of_file(text: str, name: str, file: Path) -> Source:
    classes = head_classes(name, weights=file)
    model, _ = create_model(name, classes or 2, weights=file)
    section = ModelSection(name, weights=str(file))
    return Source(text, model, default_preprocess(name), section, has_head=classes is not None)


def _of_hub(text: str, size: int | None) -> Source:
    options = complete_options(text, None, size)
    classes = head_classes(text, options=options, pretrained=True)
    model, _ = create_model(text, classes or 2, options=options, pretrained=True)
    section = ModelSection(text, size, pretrained=True)
    preprocess = default_preprocess(text, size, options)
    return Source(text, model, preprocess, section, has_head=classes is not None)


def _digest(model: nn.Module) -> str:
    from safetensors.torch import save

    return sha256_bytes(save({n: t.contiguous().clone() for n, t in model.state_dict().items()}))


def _compute(source: Source, dataset: Dataset, split: str, most: int) -> Features:
    images, labels, keys = sample(
        dataset, split, most, source.preprocess, seed=0, allow_quarantined=True
    )
    height, width = source.preprocess.size
    step = max(1, min(_BATCH_IMAGES, _BATCH_PIXELS // (height * width)))
    layers: dict[str, list[npt.NDArray[np.float32]]] = {}
    answers = []
    bar = Progress(f"look at {split} with {source.name}", len(images), "img")
    model = PixelModel(source.model, source.preprocess).to(memory_format=torch.channels_last)
    with evaluating(model), _tapped(source.model) as caught, bar:
        for start in range(0, len(images), step):
            batch = torch.from_numpy(images[start : start + step]).permute(0, 3, 1, 2)
            answers.append(model(batch).softmax(1).numpy())
            for name, features in caught.items():
                layers.setdefault(name, []).append(features.float().numpy())
            bar.update(len(batch))
    whole = {name: np.concatenate(parts) for name, parts in layers.items()}
    return Features(whole, np.concatenate(answers) if source.has_head else None, labels, keys)


@contextmanager
def _tapped(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Catch the pooled outputs of the stages and the head's input whenever the model runs.

    A dict keeps the order of the first run, so that the head's input comes last.
    """
    caught: dict[str, Tensor] = {}
    channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"

    def after(name: str) -> Callable[..., None]:
        def hook(*call: Any) -> None:
            if isinstance(call[-1], Tensor):
                caught[name] = _pooled(call[-1], channels_last)

        return hook

    def before(_: nn.Module, inputs: Any) -> None:
        caught[HEAD] = _pooled(inputs[0], channels_last=False)

    handles = [
        model.get_submodule(name).register_forward_hook(after(name))
        for name in stage_modules(model)
    ]
    handles.append(model.get_submodule(head_names(model)[0]).register_forward_pre_hook(before))
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def _pooled(x: Tensor, channels_last: bool) -> Tensor:
    """Return the mean over places of a map or of tokens; (B, D)."""
    if x.ndim == 4:
        return x.mean((1, 2) if channels_last else (2, 3))
    # A clone: the model may go on to compute in the output's own memory.
    return x.mean(1) if x.ndim == 3 else x.clone()


def _packed(found: Features) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {
        "names": np.array(list(found.layers)),
        "labels": found.labels,
        "keys": np.array(found.keys),
        **{f"layer{i}": f for i, f in enumerate(found.layers.values())},
    }
    if found.probabilities is not None:
        arrays["probabilities"] = found.probabilities
    return arrays
