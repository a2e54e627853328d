"""Small real data sets for tests: folders of pictures whose classes can be told apart."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (30, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def picture(colour: tuple[int, int, int], seed: int, size: int = 16) -> Image.Image:
    """Return a noisy picture of one colour with a bright square somewhere."""
    rng = np.random.default_rng(seed)
    pixels = np.asarray(colour) + rng.integers(-30, 30, (size, size, 3))
    row, column = rng.integers(0, size - 4, 2)
    pixels[row : row + 4, column : column + 4] += 60
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_folder(
    root: Path, per_class: int = 24, classes: Mapping[str, tuple[int, int, int]] = COLOURS
) -> Path:
    """Write ``root/CLASS/NN.png`` and return ``root``; no two pictures are alike."""
    for c, (name, colour) in enumerate(classes.items()):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(per_class):
            picture(colour, seed=1000 * c + i).save(folder / f"{i:02d}.png")
    return root


def write_table(pictures: Path, place: Path, *, gaps: bool = True) -> Path:
    """Ask each picture for its colour and whether it is warm; with gaps a quarter of either lacks.

    Returns ``place``, the table of labels.
    """
    with place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "colour", "warm"])
        for i, found in enumerate(sorted(pictures.rglob("*.png"))):
            colour = found.parent.name
            known = [i % 4 != missing or not gaps for missing in (0, 1)]
            cells = zip((colour, str(colour == "red")), known, strict=True)
            name = found.relative_to(pictures).as_posix()
            writer.writerow([name, *(cell if has else "" for cell, has in cells)])
    return place
