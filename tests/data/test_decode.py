"""The decoder on real files of every kind, and the one geometry."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from edgexfer.core.errors import DataError
from edgexfer.core.preprocess import Preprocess
from edgexfer.data import decode as module
from edgexfer.data.decode import decode, decode_size, fit, read_file
from tests.data.conftest import picture

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_give_the_pixels_back(kind: str) -> None:
    image = picture(1)
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decode(encoded(Image.fromarray(image), kind, **options), "x")
    assert found.format == kind
    assert found.notes == ()
    assert (found.image == image).all()
    assert found.image.flags.writeable


def test_jpeg_is_what_pil_decodes() -> None:
    data = encoded(Image.fromarray(picture(1)), "JPEG", quality=95)
    found = decode(data, "x.jpg")
    assert (found.image == np.array(Image.open(io.BytesIO(data)))).all()
    assert (found.format, found.notes) == ("JPEG", ())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = picture(3, 16, 24)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(upright)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encoded(stored, "PNG", exif=exif), "x.png")
    assert (found.image == upright).all()
    assert found.notes == (("exif-rotated",) if orientation > 1 else ())


def test_broken_exif_does_not_spoil_the_picture() -> None:
    data = encoded(Image.fromarray(picture(1)), "JPEG", exif=b"Exif\x00\x00garbage")
    assert decode(data, "x.jpg").image.shape == (24, 24, 3)


def test_16_bit_grey_is_scaled_not_saturated() -> None:
    wide = np.array([[0, 128, 129, 32768, 65535]], np.uint16)
    found = decode(encoded(Image.fromarray(wide), "PNG"), "x.png")
    assert found.image[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert set(found.notes) == {"16-bit", "grey"}
    found = decode(encoded(Image.fromarray(wide), "TIFF"), "x.tif")
    assert found.image[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_16_bit_rgb_is_scaled() -> None:
    rows = b"\x00" + struct.pack(">6H", 65535, 32768, 0, 256, 512, 1024)
    found = decode(png(2, 1, 16, 2, rows), "x.png")
    assert found.image.tolist() == [[[255, 128, 0], [1, 2, 4]]]
    assert found.notes == ("16-bit",)


def test_transparency_is_laid_on_white() -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    found = decode(encoded(Image.fromarray(rgba), "PNG"), "x.png")
    assert found.image.tolist() == [[list(RED), list(WHITE), [127, 127, 127]]]
    assert found.notes == ("alpha on white",)


def test_an_opaque_alpha_channel_is_no_change() -> None:
    rgba = np.dstack([picture(1), np.full((24, 24), 255, np.uint8)])
    found = decode(encoded(Image.fromarray(rgba), "PNG"), "x.png")
    assert (found.image == picture(1)).all()
    assert found.notes == ()


def test_palette_with_transparency() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    for x in range(3):
        image.putpixel((x, 0), x)
    found = decode(encoded(image, "PNG"), "x.png")
    assert found.image.tolist() == [[list(RED), list(GREEN), list(BLUE)]]
    assert found.notes == ("palette",)
    found = decode(encoded(image, "PNG", transparency=1), "x.png")
    assert found.image.tolist() == [[list(RED), list(WHITE), list(BLUE)]]
    assert found.notes == ("palette", "alpha on white")


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_becomes_three_equal_channels(mode: str) -> None:
    image = Image.fromarray(picture(2)).convert("L").convert(mode)
    found = decode(encoded(image, "PNG"), "x.png")
    assert "grey" in found.notes
    assert (found.image == found.image[..., :1]).all()


def test_cmyk_without_a_profile() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    found = decode(encoded(image, "TIFF"), "x.tif")
    assert found.image[0, 0].tolist() == list(RED)
    assert found.notes == ("cmyk without profile",)
    found = decode(encoded(image, "JPEG", quality=95), "x.jpg")
    assert abs(found.image[4, 4].astype(int) - RED).max() <= 3


def test_cmyk_with_a_damaged_profile_falls_back() -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    found = decode(encoded(image, "JPEG", icc_profile=b"no profile"), "x.jpg")
    assert found.notes == ("cmyk without profile",)


def test_cmyk_with_a_profile_of_another_kind_falls_back() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    found = decode(encoded(image, "JPEG", icc_profile=profile), "x.jpg")
    assert found.notes == ("cmyk without profile",)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_several_frames_the_first_is_taken(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decode(encoded(first, kind, save_all=True, append_images=[second], **options), "x")
    assert found.image[0, 0].tolist() == list(RED)
    assert "first of 2 frames" in found.notes


def test_a_wrong_suffix_is_noted() -> None:
    data = encoded(Image.fromarray(picture(1)), "PNG")
    assert decode(data, "cat.jpg").notes == ("is PNG, named as JPEG",)
    assert decode(data, "cat.JPEG").notes == ("is PNG, named as JPEG",)
    assert decode(data, "cat.PNG").notes == decode(data, "cat").notes == ()


def test_trailing_junk_is_no_fault() -> None:
    data = encoded(Image.fromarray(picture(1)), "PNG") + b"junk" * 100
    assert (decode(data, "x.png").image == picture(1)).all()


PHOTO = encoded(Image.fromarray(picture(1, 64, 64)), "JPEG", quality=95)
DRAWING = encoded(Image.fromarray(picture(1, 64, 64)), "PNG")
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is empty"),
    "text": (lambda: b"not an image at all", "is no JPEG, PNG, WEBP, BMP, TIFF or GIF image"),
    "html": (lambda: b"<!doctype html><title>404</title>", "is no JPEG"),
    "eps": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no JPEG"),
    "heic": (lambda: b"\x00\x00\x00\x18ftypheic" + bytes(64), "is no JPEG"),
    "jpeg cut early": (lambda: PHOTO[:300], "is damaged"),
    "jpeg cut late": (lambda: PHOTO[: len(PHOTO) * 3 // 4], "is damaged (image file is truncated"),
    "png cut": (lambda: DRAWING[: len(DRAWING) // 2], "is damaged"),
    "png with a bad checksum": (
        lambda: DRAWING[:20] + bytes([DRAWING[20] ^ 1]) + DRAWING[21:],
        "is no JPEG",
    ),
    "bomb of 81 million pixels": (
        lambda: png(9000, 9000, 1, 0, b""),
        "more than 64 million pixels",
    ),
    "bomb of 100 million pixels": (lambda: png(10_000, 10_000, 1, 0, b""), "more than 64 million"),
    "bomb of 2500 million pixels": (lambda: png(50_000, 50_000, 1, 0, b""), "more than 64 million"),
    "no width": (lambda: png(0, 5, 8, 2, b""), "is"),
    "float": (lambda: encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "pixels of kind F"),
    "32-bit integers": (lambda: encoded(Image.new("I", (4, 4), 7), "TIFF"), "pixels of kind I"),
}


@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_by_name(case: str) -> None:
    make, text = REFUSED[case]
    with pytest.raises(DataError) as caught:
        decode(make(), "cat/1.jpg")
    assert caught.value.what.startswith("cat/1.jpg: ")
    assert text in caught.value.what
    assert "\n" not in caught.value.what
    assert caught.value.fix


def test_no_case_of_refusal_is_lost() -> None:
    assert len(REFUSED) == 15


@pytest.mark.parametrize("cut", range(0, len(DRAWING), 97))
def test_no_damage_raises_anything_else(cut: int) -> None:
    damaged = bytearray(DRAWING)
    damaged[cut] ^= 0xFF
    try:
        found = decode(bytes(damaged), "x.png")
    except DataError as error:
        assert error.what.startswith("x.png: ")
    else:
        assert found.image.dtype == np.uint8


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    texts = {
        "folder.jpg": "is a folder",
        "pipe.jpg": "is no regular file",
        "dangling.jpg": "is a dangling link",
        "empty.jpg": "is empty",
        "missing.jpg": "no such file",
        "loop.jpg": "cannot be read",
    }
    for name, text in texts.items():
        with pytest.raises(DataError, match=text) as caught:
            decode(tmp_path / name, name)
        assert caught.value.what.startswith(f"{name}: ")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.bmp").open("wb") as stream:
        stream.truncate(module.MAX_BYTES + 1)
    with pytest.raises(DataError, match=r"large\.bmp: is larger than 512 MiB"):
        read_file(tmp_path / "large.bmp", "large.bmp")


def test_the_jpeg_decoder_shrinks_only_what_stays_large_enough() -> None:
    data = encoded(Image.fromarray(picture(1, 300, 500)), "JPEG")
    for at_least, shape in (
        (None, (300, 500)),
        (301, (300, 500)),
        (150, (150, 250)),
        (70, (75, 125)),
    ):
        assert decode(data, "x.jpg", at_least=at_least).image.shape[:2] == shape
    assert (
        decode(data, "x.jpg", at_least=70).image == decode(data, "x.jpg", at_least=75).image
    ).all()


def test_decode_size_leaves_half_of_the_shrinking_to_the_filter() -> None:
    assert decode_size(Preprocess((224, 224), 256)) == 512
    assert decode_size(Preprocess((96, 128), 1, mode="squash")) == 256


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (256, 256), (33, 47), (224, 1000)])
def test_fit_is_torchvisions_resize_and_centre_crop(
    shape: tuple[int, int], interpolation: str
) -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    image = picture(5, *shape)
    theirs = Compose([Resize(256, InterpolationMode(interpolation)), CenterCrop(224)])
    expected = np.array(theirs(Image.fromarray(image)))
    ours = fit(image, Preprocess((224, 224), 256, interpolation=interpolation))
    if max(shape) <= 3 * min(shape):
        assert (ours == expected).all()
    else:
        assert np.abs(ours.astype(int) - expected).mean() < 1


def test_fit_squashes_and_crops_to_any_size() -> None:
    image = picture(5, 40, 90)
    assert fit(image, Preprocess((20, 30), 1, mode="squash")).shape == (20, 30, 3)
    assert fit(image, Preprocess((20, 30), 32)).shape == (20, 30, 3)
    assert fit(image, Preprocess((40, 40), 40)).flags.c_contiguous
    assert (fit(image[:, :40], Preprocess((40, 40), 40)) == image[:, :40]).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 4000)])
def test_strips_do_not_explode(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    assert (fit(image, Preprocess((224, 224), 256)) == 77).all()
