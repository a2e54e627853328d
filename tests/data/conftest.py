"""Small data sets of real files, and a cache folder of their own for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

UInt8 = npt.NDArray[np.uint8]
MakeTree = Callable[..., Path]


def picture(seed: int, height: int = 24, width: int = 24) -> UInt8:
    """Return a smooth, colourful image that no other seed gives."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the cache at a fresh folder."""
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("EDGEXFER_CACHE", str(place))
    return place


@pytest.fixture
def make_tree(tmp_path: Path) -> MakeTree:
    """Return a function that writes ``n`` JPEG images into each of the folders that it is given."""

    def make(
        *folders: str, n: int = 10, root: str = "data", size: tuple[int, int] = (24, 24)
    ) -> Path:
        place = tmp_path / root
        for f, folder in enumerate(folders):
            (place / folder).mkdir(parents=True)
            for i in range(n):
                image = Image.fromarray(picture(1000 * f + i, *size))
                image.save(place / folder / f"{i:03d}.jpg", quality=95)
        return place

    return make
