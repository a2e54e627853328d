"""Clusters of a folder without labels: what belongs together by a model's features.

k-means (scikit-learn) on features of length 1; the number of clusters is that of the best
silhouette (Rousseeuw 1987) where none is given. Where the pictures lie in folders that may be
classes, purity and normalised mutual information say how far the clusters are the folders.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from edgexfer.core.errors import DataError, RecipeError
from edgexfer.core.files import PathLike, make_dir, refuse_foreign, write_atomic
from edgexfer.core.progress import Progress
from edgexfer.data.dataset import open_pictures
from edgexfer.data.folder import SPLIT_NAMES
from edgexfer.data.images import Images, load_images
from edgexfer.recipe import DataSection, ModelSection
from edgexfer.report.contact import Group, contact_sheet
from edgexfer.transfer.backbone import Float32, open_backbone, unit_features

Int64 = npt.NDArray[np.int64]
TABLE, PAGE = "clusters.csv", "clusters.html"
_COLUMNS = ("image", "cluster")
# Most clusters that are tried, most pictures that a silhouette is taken of (its cost is their
# square), pictures of a cluster that are shown, and their longer side in pixels.
_MOST, _SILHOUETTE, _SHOWN, _SIDE = 20, 4000, 40, 96


@dataclass(frozen=True)
class Clustering:
    """What was found.

    Attributes:
        images: how many were looked at.
        sizes: images of each cluster, the largest first.
        silhouette: -1..1; how much nearer an image is to its own cluster than to the next one.
        tried: silhouette for each number of clusters that was tried.
        purity: share of images in the most frequent folder of their cluster; ``None`` where the
            folders are no classes.
        nmi: normalised mutual information of clusters and folders, 0..1; likewise.
        folders: for each cluster how many images it has of each folder, most first; likewise.
    """

    images: int
    sizes: tuple[int, ...]
    silhouette: float
    tried: dict[int, float]
    purity: float | None
    nmi: float | None
    folders: tuple[dict[str, int], ...] | None


def cluster(
    data: DataSection,
    model: ModelSection,
    out: PathLike,
    *,
    clusters: int | None = None,
    seed: int = 0,
) -> Clustering:
    """Cluster a folder of pictures; write a table of all and a page that shows each cluster.

    Args:
        data: the pictures; only what says how they are read counts.
        model: a run's folder as its name, or an architecture with weights.
        out: folder of ``clusters.csv`` (image, cluster) and ``clusters.html``.
        clusters: how many; ``None`` takes the number of the best silhouette.
        seed: of the first centres.

    Raises:
        RecipeError: the number of clusters fits no data, or the model is random.
        DataError: the images are unusable, or all alike.
        InputError: ``out`` has a table of that name which is not from here.
        DiskError: ``out`` cannot be written.
        EdgexferError: as ``open_backbone`` raises it.
    """
    refuse_foreign(Path(out) / TABLE, ",".join(_COLUMNS))
    dataset = open_pictures(data.path, data.limit)
    backbone = open_backbone(model)
    images = load_images(
        dataset,
        "train",
        backbone.preprocess,
        cache=data.cache,
        workers=data.workers,
        allow_quarantined=data.allow_quarantined,
        progress=Progress,
    )
    features = unit_features(backbone.model, backbone.preprocess, images)
    # What k-means and silhouettes can tell apart, one of n images alone included.
    most = len(np.unique(features, axis=0)) - 1
    if most < 2:
        raise DataError(
            f"{data.path}: {len(images)} images, of which the model tells {most + 1} apart",
            "give at least 3 different images",
        )
    if clusters is not None and not 2 <= clusters <= most:
        raise RecipeError(f"--clusters {clusters}: does not fit", f"give 2 to {most}")
    numbers = range(2, min(_MOST, most) + 1) if clusters is None else (clusters,)
    found = {k: k_means(features, k, seed) for k in numbers}
    tried = {k: silhouette(features, owner, seed) for k, owner in found.items()}
    best = max(tried, key=lambda k: tried[k])
    owner = found[best]
    folders = folder_names(images.keys)
    result = Clustering(
        images=len(images),
        sizes=tuple(int(n) for n in np.bincount(owner, minlength=best)),
        silhouette=tried[best],
        tried=tried,
        purity=None if folders is None else purity(owner, folders),
        nmi=None if folders is None else _nmi(owner, folders),
        folders=None if folders is None else _by_cluster(owner, folders),
    )
    place = make_dir(out)
    write_atomic(place / TABLE, _table(images.keys, owner))
    summary = f"{len(images)} pictures of {data.path}, features of {model.name}"
    groups = _groups(images, features, owner, result)
    write_atomic(place / PAGE, contact_sheet("Clusters", summary, groups))
    return result


def k_means(features: Float32, clusters: int, seed: int) -> Int64:
    """Return for each image its cluster, from 0, the largest cluster first."""
    from sklearn.cluster import KMeans

    owner = KMeans(clusters, n_init=10, random_state=seed).fit_predict(features)
    sizes = np.bincount(owner, minlength=clusters)
    rank = np.empty(clusters, np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(clusters)
    ranked: Int64 = rank[owner]
    return ranked


def silhouette(features: Float32, owner: Int64, seed: int) -> float:
    """Return the mean silhouette, of some of the images where there are many."""
    from sklearn.metrics import silhouette_score

    some = np.random.default_rng(seed).permutation(len(features))[:_SILHOUETTE]
    # Of each cluster one at least: a single cluster has no silhouette.
    some = np.union1d(some, np.unique(owner, return_index=True)[1])
    return float(silhouette_score(features[some], owner[some]))


def purity(owner: Int64, folders: Sequence[str]) -> float:
    """Return the share of images that lie in the most frequent folder of their cluster."""
    return sum(max(c.values()) for c in _by_cluster(owner, folders)) / len(folders)


def folder_names(keys: Sequence[str]) -> list[str] | None:
    """Return for each image the first folder on its path that is no split.

    Returns:
        ``None`` where an image lies in none, or all lie in the same one: those are no classes.
    """
    names = []
    for key in keys:
        parents = [p for p in PurePosixPath(key).parts[:-1] if p not in SPLIT_NAMES]
        if not parents:
            return None
        names.append(parents[0])
    return names if len(set(names)) > 1 else None


def _nmi(owner: Int64, folders: Sequence[str]) -> float:
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(folders, owner))


def _by_cluster(owner: Int64, folders: Sequence[str]) -> tuple[dict[str, int], ...]:
    counts = [Counter[str]() for _ in range(int(owner.max()) + 1)]
    for c, name in zip(owner, folders, strict=True):
        counts[c][name] += 1
    return tuple(dict(c.most_common()) for c in counts)


def _table(keys: Sequence[str], owner: Int64) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(zip(keys, owner.tolist(), strict=True))
    return stream.getvalue()


def _groups(images: Images, features: Float32, owner: Int64, result: Clustering) -> list[Group]:
    """Return each cluster's pictures, those nearest to its centre first."""
    groups = []
    for c, size in enumerate(result.sizes):
        own = np.flatnonzero(owner == c)
        centre = features[own].mean(axis=0)
        nearest = own[np.argsort(((features[own] - centre) ** 2).sum(axis=1), kind="stable")]
        shown = nearest[:_SHOWN]
        pictures = [
            (images.keys[i], _thumbnail(pixels))
            for i, pixels in zip(shown, images.pixels(shown).permute(0, 2, 3, 1), strict=True)
        ]
        said = f"{size} pictures"
        if result.folders is not None:
            most = list(result.folders[c].items())[:5]
            said += ": " + ", ".join(f"{name} {count}" for name, count in most)
        groups.append(Group(f"Cluster {c}", said, pictures))
    return groups


def _thumbnail(pixels: Any) -> bytes:
    """Return a uint8 (H, W, 3) image as a small JPEG."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels.numpy()))
    image.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()
