"""The stages before the model, from encoded bytes on: decode and resize, with the device's Pillow.

Pillow is imported by name inside one function, as a runtime is: a device need not have it, and
without it these stages are absent with the reason. The geometry is that of the host, for plain
images alone: what has to be turned or converted first is not among those that a bundle carries.
What comes out must be what the host's decoder made, to the bit; else the device prepares its images
in another way than the model was trained and measured with, and ``differing`` says so.
"""

from __future__ import annotations

import importlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from edgexfer.core.preprocess import Preprocess

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
_MAX_ASPECT = 3
ROUNDING = 1.0
"""Mean difference of pixels, of 255, that another version of a decoder may make."""


@dataclass(frozen=True)
class Stages:
    """The two stages.

    Attributes:
        decode: encoded bytes to an RGB image of Pillow.
        resize: that to uint8, (H, W, 3), of the model's size.
        library: whose decoder it is.
    """

    decode: Callable[[bytes], Any]
    resize: Callable[[Any], Any]
    library: str


def stages(preprocess: Preprocess) -> Tuple[Optional[Stages], str]:
    """Return the stages with this machine's Pillow, or ``None`` and why there are none."""
    try:
        image: Any = importlib.import_module("PIL.Image")
    except ImportError as error:
        return None, f"Pillow cannot be imported ({error})"
    import numpy as np

    least = 2 * (max(preprocess.size) if preprocess.mode == "squash" else preprocess.resize)
    how = _FILTERS[preprocess.interpolation]

    def decode(data: bytes) -> Any:
        with image.open(io.BytesIO(data), formats=FORMATS) as opened:
            # A JPEG decoder shrinks while it decodes, as the host's does.
            opened.draft(None, (least, least))
            return opened.convert("RGB")

    def resize(picture: Any) -> Any:
        if preprocess.mode == "squash":
            height, width = preprocess.size
            return np.array(_scale(picture, width, height, how))
        return np.ascontiguousarray(_shortest(picture, preprocess, how))

    return Stages(decode, resize, f"Pillow {image.__version__}"), ""


def read_encoded(bundle: Path, names: Sequence[str]) -> List[bytes]:
    """Read the encoded images of a bundle, whose hashes have been checked."""
    return [(bundle / name).read_bytes() for name in names]


def differing(found: Stages, encoded: Sequence[bytes], images: Sequence[Any]) -> Dict[int, float]:
    """Return which encoded images do not become the bundle's own images, to the bit.

    Returns:
        The mean absolute difference of their pixels, by the images' place.
    """
    import numpy as np

    gaps = {}
    for place, (data, image) in enumerate(zip(encoded, images)):
        made = found.resize(found.decode(data))
        if made.tobytes() != image.tobytes():
            gaps[place] = float(np.abs(made.astype(np.int16) - image).mean())
    return gaps


def _shortest(picture: Any, preprocess: Preprocess, how: int) -> Any:
    """Scale the shorter side and cut out the centre, with the host's rounding."""
    import numpy as np

    columns, rows = picture.size
    most = _MAX_ASPECT * min(rows, columns)
    left, top = max(columns - most, 0) // 2, max(rows - most, 0) // 2
    if left or top:
        picture = picture.crop((left, top, left + min(columns, most), top + min(rows, most)))
        columns, rows = picture.size
    if rows <= columns:
        rows, columns = preprocess.resize, int(preprocess.resize * columns / rows)
    else:
        rows, columns = int(preprocess.resize * rows / columns), preprocess.resize
    height, width = preprocess.size
    scaled = np.array(_scale(picture, columns, rows, how))
    top, left = round((rows - height) / 2), round((columns - width) / 2)
    return scaled[top : top + height, left : left + width]


def _scale(picture: Any, width: int, height: int, how: int) -> Any:
    return picture if picture.size == (width, height) else picture.resize((width, height), how)
