"""Clusters of a folder without labels: figures by hand, the table, and a page that is safe."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgexfer.core.errors import DataError, RecipeError
from edgexfer.recipe import DataSection, ModelSection
from edgexfer.transfer.backbone import unit
from edgexfer.transfer.cluster import cluster, folder_names, k_means, purity, silhouette
from tests.pictures import picture

pytestmark = pytest.mark.torch

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> ModelSection:
    return ModelSection("resnet8", size=16, weights=str(weights))


def test_k_means_finds_what_was_planted_and_the_silhouette_how_many() -> None:
    chance = np.random.default_rng(0)
    planted = np.repeat([0, 1, 2], [30, 20, 10])
    features = unit((np.eye(3)[planted] + 0.05 * chance.normal(size=(60, 3))).astype(np.float32))
    scores = {k: silhouette(features, k_means(features, k, 0), 0) for k in (2, 3, 4, 5)}
    assert max(scores, key=lambda k: scores[k]) == 3
    # The largest cluster has number 0.
    assert (k_means(features, 3, 0) == planted).all()
    # By hand, on four points of a line: a = 1; b = 10.5, 9.5, 9.5, 10.5.
    line = np.array([[0], [1], [10], [11]], np.float32)
    wanted = np.mean([1 - 1 / 10.5, 1 - 1 / 9.5] * 2)
    assert silhouette(line, np.array([0, 0, 1, 1]), 0) == pytest.approx(wanted)


def test_of_many_images_each_cluster_has_one_that_is_looked_at() -> None:
    """One image alone is rarely among the few that a silhouette is taken of."""
    line = np.array([*range(40_000), 1e9], np.float32)[:, None]
    assert silhouette(line, (line[:, 0] > 1e6).astype(np.int64), 0) > 0.99


def test_purity_by_hand() -> None:
    owner = np.array([0, 0, 0, 1, 1, 2])
    assert purity(owner, ["a", "a", "b", "b", "b", "a"]) == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        (["a/1.png", "b/x/2.png"], ["a", "b"]),
        (["train/a/1.png", "test/b/2.png"], ["a", "b"]),
        (["a/1.png", "2.png"], None),
        (["a/1.png", "a/2.png"], None),
    ],
    ids=("classes", "splits", "loose", "one"),
)
def test_which_folders_are_classes(keys: list[str], wanted: list[str] | None) -> None:
    assert folder_names(keys) == wanted


def test_a_folder_is_clustered_with_a_table_and_a_safe_page(
    data: DataSection, model: ModelSection, tmp_path: Path
) -> None:
    colours = {"red": (220, 40, 40), "blue": (40, 40, 220)}
    for name, colour in colours.items():
        (tmp_path / "camera" / name).mkdir(parents=True)
        for i in range(6):
            picture(colour, seed=i).save(tmp_path / "camera" / name / f"{EVIL}{i}.png")
    found = cluster(DataSection(str(tmp_path / "camera")), model, tmp_path / "out", clusters=2)
    assert found.images == sum(found.sizes) == 12 and list(found.tried) == [2]
    assert found.purity is not None and found.nmi is not None and found.folders is not None
    with (tmp_path / "out" / "clusters.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["image"] for row in rows}) == 12
    counts = np.bincount([int(row["cluster"]) for row in rows])
    assert tuple(counts) == found.sizes
    # Both from the table: the entropies, and how much the one says of the other.
    both = Counter((row["cluster"], row["image"].partition("/")[0]) for row in rows)
    clusters, folders = (Counter(r[i] for r in both.elements()) for i in (0, 1))
    largest = [max(n for (c, _), n in both.items() if c == cluster) for cluster in clusters]
    assert found.purity == pytest.approx(sum(largest) / 12)
    entropies = [-sum(n / 12 * np.log(n / 12) for n in k.values()) for k in (clusters, folders)]
    told = sum(n / 12 * np.log(12 * n / clusters[c] / folders[f]) for (c, f), n in both.items())
    assert found.nmi == pytest.approx(2 * told / sum(entropies))
    page = (tmp_path / "out" / "clusters.html").read_text()
    assert "default-src 'none'" in page and "script" not in page.lower()
    assert EVIL not in page and "&lt;img src=x onerror=alert(1)&gt;0.png" in page
    assert page.count("<img ") == 12
    assert not re.search(r"https?://", page)


def test_what_cannot_be_clustered(model: ModelSection, tmp_path: Path) -> None:
    camera = tmp_path / "camera"
    camera.mkdir()
    for i in range(3):
        picture((9, 9, 200), seed=0).save(camera / f"{i}.png")
    with pytest.raises(DataError, match="3 images, of which the model tells 1 apart") as caught:
        cluster(DataSection(str(camera)), model, tmp_path / "out")
    assert "3 different" in caught.value.fix
    for i in range(4):
        picture((40 * i, 90, 255 - 60 * i), seed=i).save(camera / f"more-{i}.png")
    with pytest.raises(RecipeError, match="--clusters 9") as refused:
        cluster(DataSection(str(camera)), model, tmp_path / "out", clusters=9)
    assert "2 to" in refused.value.fix
    assert not (tmp_path / "out").exists()
