"""The one decoder, and the one geometry: from encoded bytes to the uint8 image that a model gets.

Training, validation, calibration and the images in a bundle all pass through ``decode`` and then
``fit`` (or a random crop of what ``decode`` gave), so a picture looks the same in all places.
Where images come from and where they are kept lives in ``dataset`` and ``store``.
"""

from __future__ import annotations

import io
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, UnidentifiedImageError

from edgexfer.core.errors import DataError, first_line
from edgexfer.core.preprocess import Preprocess

UInt8 = npt.NDArray[np.uint8]

# Without this list PIL would sniff its way into parsers (EPS, PDF, FITS) that nobody's photos need.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".gif": "GIF",
}
MAX_PIXELS = 64_000_000
MAX_BYTES = 1 << 29
REPLACE = "replace or delete the file; `edgexfer data check` lists all such files"

# Both are PIL's own advice: a bomb is an error, and remarks on odd metadata, which name no file,
# would only litter stderr while many threads decode.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A long side beyond this many short sides is cut before it is scaled: the centre crop would cut it
# anyway, and scaling a strip of 1 x 5000 pixels first would take gigabytes.
_MAX_ASPECT = 3


@dataclass(frozen=True)
class Decoded:
    """An image as the rest of the package sees it.

    Attributes:
        image: uint8, (H, W, 3), RGB.
        format: what the file really is, such as ``JPEG``.
        notes: what had to be normalised, such as ``exif-rotated``, ``cmyk`` or ``alpha on white``.
    """

    image: UInt8
    format: str
    notes: tuple[str, ...]


def read_file(path: Path, name: str) -> bytes:
    """Read a file after making sure that it is one.

    Raises:
        DataError: a folder, pipe, device or dangling link; a file that is empty, larger than
            512 MiB, or that may not be read.
    """
    try:
        # Opening a named pipe blocks for ever, so look first.
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
            raise DataError(f"{name}: is {kind}", REPLACE)
        if found.st_size == 0:
            raise DataError(f"{name}: is empty", REPLACE)
        if found.st_size > MAX_BYTES:
            raise DataError(f"{name}: is larger than {MAX_BYTES >> 20} MiB", REPLACE)
        return path.read_bytes()
    except FileNotFoundError as error:
        kind = "is a dangling link" if path.is_symlink() else "no such file"
        raise DataError(f"{name}: {kind}", REPLACE) from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})", REPLACE) from error


def decode(source: bytes | Path, name: str, *, at_least: int | None = None) -> Decoded:
    """Decode an image of any supported kind into upright RGB.

    EXIF orientation is applied. CMYK goes through the embedded ICC profile where there is one; ICC
    profiles of RGB images are left alone, as every pre-trained model was trained. 16-bit values are
    scaled to 8 bits, transparency is laid on white, of several frames the first is taken.

    Args:
        source: encoded bytes, or the file that holds them.
        name: of the image, for errors; its suffix is compared with the real format.
        at_least: let the JPEG decoder shrink by 2, 4 or 8 while it decodes, as long as both sides
            keep so many pixels; see ``decode_size``.

    Raises:
        DataError: naming the image: no image, damaged, truncated, too large, or of a pixel format
            whose range nobody knows (floats, 32-bit integers).
    """
    data = read_file(source, name) if isinstance(source, Path) else source
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _decode(image, name, at_least)
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        what = "is empty" if not data else f"is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image"
        raise DataError(f"{name}: {what}", REPLACE) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name) from error
    except Exception as error:  # PIL's parsers raise nearly anything on damaged bytes
        raise DataError(f"{name}: is damaged ({first_line(error)})", REPLACE) from error


def decode_size(preprocess: Preprocess) -> int:
    """Return ``at_least`` for ``decode``: twice what the geometry scales to.

    Half of the shrinking is thus left to the antialiased filter, which keeps the result visually
    the same (the gap that PIL's own ``thumbnail`` leaves). It depends on the preprocessing alone,
    so all paths that decode for it get the same bits.
    """
    target = max(preprocess.size) if preprocess.mode == "squash" else preprocess.resize
    return 2 * target


def fit(image: UInt8, preprocess: Preprocess) -> UInt8:
    """Scale and crop an image to a model's input: the one geometry of the package.

    ``shortest`` scales the shorter side to ``resize`` and cuts out the centre, with the rounding
    of torchvision's ``Resize`` and ``CenterCrop``; ``squash`` scales both sides. Filters antialias.

    Args:
        image: uint8, (H, W, 3).
        preprocess: the geometry.

    Returns:
        uint8, (size[0], size[1], 3), contiguous.
    """
    height, width = preprocess.size
    if preprocess.mode == "squash":
        return resize(image, height, width, preprocess.interpolation)
    image = _cut_strip(image)
    rows, columns = image.shape[:2]
    if rows <= columns:
        rows, columns = preprocess.resize, int(preprocess.resize * columns / rows)
    else:
        rows, columns = int(preprocess.resize * rows / columns), preprocess.resize
    scaled = resize(image, rows, columns, preprocess.interpolation)
    top, left = round((rows - height) / 2), round((columns - width) / 2)
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])


def resize(image: UInt8, height: int, width: int, interpolation: str) -> UInt8:
    """Scale a uint8 (H, W, 3) image to ``height`` x ``width`` with an antialiased filter."""
    if image.shape[:2] == (height, width):
        return image
    scaled = Image.fromarray(image).resize((width, height), _FILTERS[interpolation])
    return np.array(scaled)


def _decode(image: Image.Image, name: str, at_least: int | None) -> Decoded:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(name)
    if at_least is not None:
        image.draft(None, (at_least, at_least))
    kind = "JPEG" if image.format == "MPO" else str(image.format)
    notes = _wrong_suffix(name, kind)
    if kind != "JPEG" and (frames := getattr(image, "n_frames", 1)) > 1:
        notes.append(f"first of {frames} frames")
    if any(";16" in str(tile[3]) for tile in getattr(image, "tile", ())):
        notes.append("16-bit")
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    rgb = _to_rgb(image, name, notes)
    if turn is not None:
        rgb = rgb.transpose(turn)
        notes.append("exif-rotated")
    return Decoded(np.array(rgb), kind, tuple(notes))


def _to_rgb(image: Image.Image, name: str, notes: list[str]) -> Image.Image:
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format == "PNG"):
        notes.append("grey")
        # 65535 / 257 = 255: rounds to the nearest; PIL's own conversion would saturate at 255.
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if mode in ("F", "I", "LAB"):
        raise DataError(
            f"{name}: has pixels of kind {mode}, whose range is not known",
            "save it as 8 or 16-bit RGB",
        )
    if mode == "CMYK":
        return _from_cmyk(image, notes)
    if mode in ("P", "PA"):
        notes.append("palette")
    if mode in ("1", "L", "LA", "La"):
        notes.append("grey")
    if image.has_transparency_data:
        return _on_white(image, notes)
    return image if mode == "RGB" else image.convert("RGB")


def _from_cmyk(image: Image.Image, notes: list[str]) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            target = ImageCms.createProfile("sRGB")
            turned = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            turned = None  # a damaged profile says nothing; fall back to the plain formula
        if turned is not None:
            notes.append("cmyk")
            return turned
    notes.append("cmyk without profile")
    return image.convert("RGB")


def _on_white(image: Image.Image, notes: list[str]) -> Image.Image:
    rgba = image.convert("RGBA")
    low = rgba.getchannel("A").getextrema()[0]
    if low == 255:
        return rgba.convert("RGB")
    notes.append("alpha on white")
    canvas = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    canvas.alpha_composite(rgba)
    return canvas.convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken metadata does not make a picture unreadable
        return 1


def _wrong_suffix(name: str, kind: str) -> list[str]:
    named = SUFFIXES.get(PurePosixPath(name).suffix.lower())
    return [] if named in (None, kind) else [f"is {kind}, named as {named}"]


def _cut_strip(image: UInt8) -> UInt8:
    rows, columns = image.shape[:2]
    most = _MAX_ASPECT * min(rows, columns)
    top, left = max(rows - most, 0) // 2, max(columns - most, 0) // 2
    return image[top : top + min(rows, most), left : left + min(columns, most)]


def _too_large(name: str) -> DataError:
    return DataError(f"{name}: has more than {MAX_PIXELS // 10**6} million pixels", REPLACE)
