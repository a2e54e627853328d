"""What a hop changed, as pairs of classes with the images themselves.

A pair is a class and a wrong answer to it: how often the first model gave it and how often the
second, with some of the images whose answer changed, as small PNG pictures.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgexfer.core.bundle import is_safe
from edgexfer.report import words
from edgexfer.report.accuracy import Hop, ImageSet
from edgexfer.report.collect import FoundBundle

if TYPE_CHECKING:
    import numpy as np

PAIRS_SHOWN = 8
PICTURES_SHOWN = 4
# Pixels of the longer edge: enough to see what it is, a few kB each.
_EDGE = 64


@dataclass(frozen=True)
class Picture:
    """One image whose answer changed.

    Attributes:
        uri: the image as a ``data:`` URI.
        label: what it is.
        before: what the first model said, with its confidence.
        after: what the second said, likewise.
        outcome: ``lost``, ``gained`` or ``still wrong``.
        number: its place among the evaluation images.
    """

    uri: str
    label: str
    before: str
    after: str
    outcome: str
    number: int


@dataclass(frozen=True)
class Pair:
    """A class that was taken for another.

    Attributes:
        label: the class.
        said: what it was taken for.
        before: how often the first model did.
        after: how often the second does.
        pictures: some of the images of the pair that the hop changed.
    """

    label: str
    said: str
    before: int
    after: int
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Changes:
    """The pairs of classes that a hop changed.

    Attributes:
        hop: the hop.
        pairs: those with the most changed images first.
        hidden: how many pairs are left out.
    """

    hop: Hop
    pairs: tuple[Pair, ...]
    hidden: int


def changes(images: ImageSet) -> list[Changes]:
    """Return what each hop from FP32 to another precision changed, where it changed anything."""
    pixels = _pixels(images.bundle)
    found = []
    for hop in images.hops:
        quantised = hop.after is not None and hop.after.row.record.artefact.get("precision")
        if hop.changed and quantised and quantised != "fp32":
            found.append(_changes(images, hop, pixels))
    return found


def _changes(images: ImageSet, hop: Hop, pixels: np.ndarray[Any, Any] | None) -> Changes:
    assert hop.before is not None
    assert hop.after is not None
    labels = images.labels
    first, second = hop.before.predictions, hop.after.predictions
    changed: dict[tuple[int, int], list[int]] = {}
    for i, (label, a, b) in enumerate(zip(labels, first, second, strict=True)):
        if a != b:
            changed.setdefault((label, b if b != label else a), []).append(i)
    ranked = sorted(changed, key=lambda pair: (-len(changed[pair]), pair))
    names = images.names
    pairs = []
    for label, said in ranked[:PAIRS_SHOWN]:
        of_class = [i for i, y in enumerate(labels) if y == label]
        shown = changed[label, said][:PICTURES_SHOWN] if pixels is not None else []
        pairs.append(
            Pair(
                names[label],
                names[said],
                sum(first[i] == said for i in of_class),
                sum(second[i] == said for i in of_class),
                tuple(_picture(images, hop, i, pixels) for i in shown),
            )
        )
    return Changes(hop, tuple(pairs), len(ranked) - len(pairs))


def _picture(images: ImageSet, hop: Hop, place: int, pixels: Any) -> Picture:
    assert hop.before is not None
    assert hop.after is not None
    names, label, number = images.names, images.labels[place], images.numbers[place]
    both = (hop.before, hop.after)
    said = [_said(names[s.predictions[place]], s.confidences, place) for s in both]
    right = [s.predictions[place] == label for s in both]
    outcome = "lost" if right[0] else "gained" if right[1] else "still wrong"
    return Picture(_uri(pixels[number]), names[label], said[0], said[1], outcome, number)


def _said(name: str, confidences: Sequence[float], place: int) -> str:
    short = words.clean(name, 40)
    return f"{short} ({100 * confidences[place]:.0f} %)" if confidences else short


def _pixels(bundle: FoundBundle) -> np.ndarray[Any, Any] | None:
    """Return the evaluation images, uint8 (N, H, W, 3), mapped; ``None`` where they are not there.

    A page of figures without pictures is worth more than none.
    """
    import numpy as np

    evaluation = bundle.manifest.evaluation
    if evaluation is None or not is_safe(evaluation.images):
        return None
    place = bundle.path / evaluation.images
    try:
        images: np.ndarray[Any, Any] = np.load(place, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    good = images.dtype == np.uint8 and images.ndim == 4 and images.shape[-1] == 3
    return images if good and len(images) == evaluation.n else None


def _uri(pixels: np.ndarray[Any, Any]) -> str:
    """Return an image (H, W, 3) as a PNG of at most ``_EDGE`` pixels a side."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((_EDGE, _EDGE))
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
