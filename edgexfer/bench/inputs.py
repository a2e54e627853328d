"""What the timed loop is fed with: a bundle's images, or random arrays for a bare model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np

from edgexfer.bench.feed import check_session, normalise, read_array
from edgexfer.bench.job import Job, Loaded
from edgexfer.bench.latency import CHECKED
from edgexfer.core.backend import TensorSpec
from edgexfer.core.errors import BackendError, BundleError, InputError, nearest

# Bare models may take inputs of any size; so many bytes of them are kept at most.
_MOST_BYTES = 256 << 20

Feed = Dict[str, Any]


@dataclass(frozen=True)
class Inputs:
    """The inputs of one job.

    Attributes:
        count: how many different ones there are.
        feed: makes one of them, by its number.
        images: uint8 images that they are made of; ``None`` for a bare model.
        warnings: what the reader of the record should know.
    """

    count: int
    feed: Callable[[int], Feed]
    images: Optional[Any]
    warnings: Tuple[str, ...] = ()


def open_inputs(job: Job, loaded: Loaded) -> Inputs:
    """Return what a loaded artefact is fed with.

    Raises:
        BundleError: the bundle's images do not fit it.
        InputError: a bare model leaves open what it takes.
    """
    return _random(job, loaded) if loaded.manifest is None else _images(job, loaded)


def _images(job: Job, loaded: Loaded) -> Inputs:
    manifest, session = loaded.manifest, loaded.session
    assert manifest is not None
    check_session(session, manifest.preprocess, len(manifest.labels), job.batch)
    chosen = manifest.evaluation
    name = manifest.golden_images if chosen is None else chosen.images
    images = read_array(loaded.folder, name, "uint8", (-1, *manifest.preprocess.size, 3))
    images = images[:CHECKED].copy()
    if not len(images):
        raise BundleError(f"{loaded.folder / name}: holds no images", "export the bundle again")
    few = len(images) < CHECKED
    warnings = (f"inputs rotate over {len(images)} images only",) if few else ()

    def feed(number: int) -> Feed:
        places = [(number + i) % len(images) for i in range(job.batch)]
        return {session.inputs[0].name: normalise(images[places], manifest.preprocess)}

    return Inputs(len(images), feed, images, warnings)


def _random(job: Job, loaded: Loaded) -> Inputs:
    bare = job.bare
    assert bare is not None
    specs = loaded.session.inputs
    for name in bare.shapes:
        if name not in [spec.name for spec in specs]:
            raise InputError(
                f"{bare.file}: has no input {name!r}", nearest(name, [s.name for s in specs])
            )
    shapes = {spec.name: _shape(bare.file, spec, bare.shapes, job.batch) for spec in specs}
    size = sum(int(np.prod(shapes[s.name])) * _kind(s).itemsize for s in specs)
    count = max(2, min(CHECKED, _MOST_BYTES // max(size, 1)))

    def feed(number: int) -> Feed:
        chance = np.random.default_rng((job.seed, number))
        return {spec.name: _draw(chance, spec, shapes[spec.name]) for spec in specs}

    return Inputs(count, feed, None, ("inputs are random numbers, not images",))


def _shape(
    file: str, spec: TensorSpec, given: Dict[str, Tuple[int, ...]], batch: int
) -> Tuple[int, ...]:
    """Return the sizes of an input: those that were given, or its own with the batch put in."""
    wanted = given.get(spec.name)
    if wanted is not None:
        fits = len(wanted) == len(spec.shape)
        if not fits or any(have not in (-1, want) for have, want in zip(spec.shape, wanted)):
            raise InputError(
                f"{file}: input {spec.name} is {spec.shape}, not {wanted}",
                "give a size that fits it with --shape",
            )
        if batch > 1 and wanted[:1] != (batch,):
            raise InputError(
                f"{file}: input {spec.name} of {wanted} is no batch of {batch}",
                "begin --shape with the batch, or leave --batch out",
            )
        return wanted
    first, rest = spec.shape[:1], spec.shape[1:]
    if -1 in rest:
        example = "x".join("1" if side == -1 else str(side) for side in spec.shape)
        raise InputError(
            f"{file}: input {spec.name} leaves its size free: {spec.shape}",
            f"say which with --shape {spec.name}:{example}, with the numbers you need",
        )
    if batch > 1 and first not in ((-1,), (batch,)):
        raise InputError(
            f"{file}: input {spec.name} is {spec.shape}, which takes no batch of {batch}",
            "leave --batch out, or export the model with a free batch",
        )
    return (*(batch if side == -1 else side for side in first), *rest)


def _draw(chance: Any, spec: TensorSpec, shape: Tuple[int, ...]) -> Any:
    kind = _kind(spec)
    if kind.kind == "f":
        return chance.standard_normal(shape, dtype=np.float32).astype(kind)
    if kind == np.uint8:
        return chance.integers(0, 256, shape, dtype=np.uint8)
    # Indices and masks are what integers mostly are: 0 and 1 are valid as either.
    return chance.integers(0, 2, shape).astype(kind)


def _kind(spec: TensorSpec) -> Any:
    """Return numpy's type of an input, which has none for text or brain floats."""
    try:
        kind = np.dtype(spec.dtype)
    except TypeError:
        kind = None
    if kind is None or kind.kind not in "fiub":
        raise BackendError(f"input {spec.name} is of type {spec.dtype}", "bench a model of numbers")
    return kind
