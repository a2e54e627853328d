"""The size of a data set's images, from a few of them."""

from __future__ import annotations

from pathlib import Path

from edgexfer.data.dataset import open_dataset
from edgexfer.data.sides import median_side
from tests.pictures import COLOURS, picture, write_folder


def test_the_median_of_the_shorter_sides_without_what_cannot_be_decoded(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "train", 2)
    for name in COLOURS:
        for i in range(8):
            picture(COLOURS[name], seed=i, size=40).resize((90, 40)).save(root / name / f"w{i}.png")
        (root / name / "bad.png").write_text("<html>")
        (root / name / "empty.png").touch()
    assert median_side(open_dataset(str(tmp_path))) == 40
    for file in root.rglob("*.png"):
        file.write_text("<html>")
    assert median_side(open_dataset(str(tmp_path))) == 224
