"""A look at a whole data set before hours are spent on it: what is in it, what would spoil it.

Every image is decoded once. What each one was turned into adds up: used as it is, used after a
change, or quarantined.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgexfer.core.errors import DataError
from edgexfer.core.stats import median
from edgexfer.data.cache import ProgressFactory, quiet
from edgexfer.data.dataset import Dataset, Split, open_dataset
from edgexfer.data.decode import decode
from edgexfer.data.pool import ahead, cores
from edgexfer.data.quarantine import MOST_OF_TRAIN
from edgexfer.data.similar import THUMBNAIL, describe, similar_groups

SCHEMA = "edgexfer.audit/1"
_SHOWN = 5
_CHUNK = 32
# A class with so many times the images of another one deserves a word.
_IMBALANCE = 10.0


@dataclass(frozen=True)
class SplitAudit:
    """What a split holds.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        total: images; always ``used`` + ``normalised`` + ``quarantined``.
        used: images that are used as they are.
        normalised: images that are used after a change, such as CMYK to RGB.
        quarantined: images that cannot be read.
        per_class: images by class.
    """

    name: str
    total: int
    used: int
    normalised: int
    quarantined: int
    per_class: dict[str, int]


@dataclass(frozen=True)
class Fault:
    """One image that cannot be read, or is named as another format than it has.

    Attributes:
        split: its split.
        key: its name in the data set.
        reason: what is wrong.
    """

    split: str
    key: str
    reason: str


@dataclass(frozen=True)
class Duplicates:
    """Images that are the same, or nearly.

    Attributes:
        kind: ``exact`` (every pixel is equal) or ``near`` (differing in size, quality or details).
        keys: their names.
        splits: their splits, in the same order.
        classes: their classes, in the same order.
        across_splits: train and val or test share it, so that an accuracy is flattered.
        across_classes: it has more than one label.
    """

    kind: str
    keys: tuple[str, ...]
    splits: tuple[str, ...]
    classes: tuple[str, ...]
    across_splits: bool
    across_classes: bool


@dataclass(frozen=True)
class Sides:
    """Lengths in pixels over all readable images."""

    least: int
    median: int
    most: int


@dataclass(frozen=True)
class Audit:
    """What was found in a data set.

    Attributes:
        schema: ``edgexfer.audit/1``.
        spec: the data set, as the user named it.
        fingerprint: of its content.
        classes: names, in the order of the class map.
        splits: what each holds.
        formats: images by real format.
        heights: of the readable images; ``None`` where there are none.
        widths: likewise.
        changes: how many images were normalised in which way.
        unreadable: images in quarantine.
        misnamed: images whose suffix names another format; they are used all the same.
        duplicates: groups of equal and of similar images.
        imbalance: training images of the largest class over those of the smallest.
        clean: nothing was found that would spoil a training or flatter its accuracy: no more
            quarantined images than are tolerated, no image in two splits or with two labels.
    """

    schema: str
    spec: str
    fingerprint: str
    classes: tuple[str, ...]
    splits: tuple[SplitAudit, ...]
    formats: dict[str, int]
    heights: Sides | None
    widths: Sides | None
    changes: dict[str, int]
    unreadable: tuple[Fault, ...]
    misnamed: tuple[Fault, ...]
    duplicates: tuple[Duplicates, ...]
    imbalance: float
    clean: bool


@dataclass(frozen=True)
class _Seen:
    """What one image was found to be; ``reason`` is set where it cannot be read."""

    split: Split
    place: int
    reason: str = ""
    format: str = ""
    notes: tuple[str, ...] = ()
    height: int = 0
    width: int = 0
    digest: bytes = b""
    hash: int = 0
    thumbnail: bytes = b""

    @property
    def key(self) -> str:
        return self.split.keys[self.place]


def audit(
    path: str,
    *,
    val: float = 0.1,
    test: float = 0.2,
    split_seed: int = 0,
    progress: ProgressFactory | None = None,
) -> Audit:
    """Decode every image of a data set and report what is in it.

    Args:
        path: see ``open_dataset``; likewise ``val``, ``test`` and ``split_seed``.
        val: share of the training images that becomes val where there is none.
        test: share of the images that becomes test where there is none.
        split_seed: of the split.
        progress: starts a display, such as the class ``Progress``.

    Raises:
        DataError: the data set cannot be opened at all.
    """
    dataset = open_dataset(path, val=val, test=test, split_seed=split_seed)
    seen = list(_look_at_all(dataset, progress or quiet))
    readable = [s for s in seen if not s.reason]
    splits = tuple(_count(dataset, split, seen) for split in dataset.splits.values())
    duplicates = tuple(_duplicates(dataset, readable))
    per_class = splits[0].per_class.values()
    return Audit(
        schema=SCHEMA,
        spec=path,
        fingerprint=dataset.fingerprint,
        classes=dataset.classes,
        splits=splits,
        formats=dict(sorted(Counter(s.format for s in readable).items())),
        heights=_sides([s.height for s in readable]),
        widths=_sides([s.width for s in readable]),
        changes=dict(sorted(Counter(n for s in readable for n in _changes(s)).items())),
        unreadable=tuple(Fault(s.split.name, s.key, s.reason) for s in seen if s.reason),
        misnamed=tuple(
            Fault(s.split.name, s.key, n) for s in readable for n in s.notes if _is_misnamed(n)
        ),
        duplicates=duplicates,
        imbalance=max(per_class) / max(min(per_class), 1),
        clean=_is_clean(splits, duplicates),
    )


def to_text(found: Audit) -> str:
    """Return an audit as lines for a terminal."""
    lines = [f"{found.spec}: {len(found.classes)} classes", ""]
    lines.append(f"{'split':8}{'images':>9}{'as is':>9}{'changed':>9}{'unreadable':>12}")
    for s in found.splits:
        row = f"{s.name:8}{s.total:>9}{s.used:>9}{s.normalised:>9}{s.quarantined:>12}"
        lines.append(row)
    counts = found.splits[0].per_class
    shown = ", ".join(f"{name} {n}" for name, n in list(counts.items())[:12])
    more = f", and {len(counts) - 12} more" if len(counts) > 12 else ""
    lines += ["", f"train by class: {shown}{more}"]
    if found.imbalance >= _IMBALANCE:
        lines.append(f"imbalance: the largest class has {found.imbalance:.0f} times the smallest")
    lines.append("formats: " + ", ".join(f"{name} {n}" for name, n in found.formats.items()))
    if found.heights and found.widths:
        h, w = found.heights, found.widths
        lines.append(
            f"pixels (least, median, most): height {h.least}, {h.median}, {h.most};"
            f" width {w.least}, {w.median}, {w.most}"
        )
    if found.changes:
        lines.append("changed: " + ", ".join(f"{name} {n}" for name, n in found.changes.items()))
    lines += _listed("unreadable", [f.reason for f in found.unreadable])
    lines += _listed("named as another format", [f"{f.key} {f.reason}" for f in found.misnamed])
    for title, chosen in _kinds(found.duplicates):
        lines += _listed(title, [_group_text(group) for group in chosen])
    lines += [
        "",
        "clean" if found.clean else "not clean: mend what is listed above before training",
    ]
    return "\n".join(lines)


def _look_at_all(dataset: Dataset, progress: ProgressFactory) -> Iterator[_Seen]:
    chunks = [
        (split, range(start, min(start + _CHUNK, len(split))))
        for split in dataset.splits.values()
        for start in range(0, len(split), _CHUNK)
    ]

    def look(chunk: tuple[Split, range]) -> list[_Seen]:
        return [_look_at(chunk[0], i) for i in chunk[1]]

    total = sum(len(split) for split in dataset.splits.values())
    with progress("check", total, "img") as bar:
        for found in ahead(chunks, look, workers=cores(), depth=2 * cores()):
            yield from found
            bar.update(len(found))


def _look_at(split: Split, i: int) -> _Seen:
    try:
        source = split.read(i)
        if isinstance(source, bytes):
            decoded = decode(source, split.keys[i])
            image, kind, notes = decoded.image, decoded.format, decoded.notes
        else:
            image, kind, notes = source, "array", ()
    except DataError as error:
        return _Seen(split, i, reason=error.what)
    value, thumbnail = describe(image)
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16)
    digest.update(repr(image.shape).encode())
    height, width = image.shape[:2]
    return _Seen(
        split, i, "", kind, notes, height, width, digest.digest(), value, thumbnail.tobytes()
    )


def _count(dataset: Dataset, split: Split, seen: Sequence[_Seen]) -> SplitAudit:
    own = [s for s in seen if s.split is split]
    bad = sum(1 for s in own if s.reason)
    changed = sum(1 for s in own if any(True for _ in _changes(s)))
    labels = np.bincount(split.labels, minlength=len(dataset.classes))
    per_class = {name: int(n) for name, n in zip(dataset.classes, labels, strict=True)}
    return SplitAudit(split.name, len(own), len(own) - bad - changed, changed, bad, per_class)


def _changes(seen: _Seen) -> Iterator[str]:
    return (note for note in seen.notes if not _is_misnamed(note))


def _is_misnamed(note: str) -> bool:
    return ", named as " in note


def _duplicates(dataset: Dataset, seen: Sequence[_Seen]) -> Iterator[Duplicates]:
    by_digest: dict[bytes, list[_Seen]] = {}
    for one in seen:
        by_digest.setdefault(one.digest, []).append(one)
    for group in by_digest.values():
        if len(group) > 1:
            yield _as_group(dataset, "exact", group)
    # One of each set of equal images stands for all of them.
    single = [group[0] for group in by_digest.values()]
    hashes = np.array([s.hash for s in single], np.uint64)
    shape = (len(single), THUMBNAIL, THUMBNAIL, 3)
    thumbnails = np.frombuffer(b"".join(s.thumbnail for s in single), np.uint8).reshape(shape)
    for places in similar_groups(hashes, thumbnails):
        yield _as_group(dataset, "near", [single[i] for i in places])


def _as_group(dataset: Dataset, kind: str, group: Sequence[_Seen]) -> Duplicates:
    splits = tuple(s.split.name for s in group)
    classes = tuple(dataset.classes[s.split.labels[s.place]] for s in group)
    keys = tuple(s.key for s in group)
    return Duplicates(kind, keys, splits, classes, len(set(splits)) > 1, len(set(classes)) > 1)


def _sides(lengths: Sequence[int]) -> Sides | None:
    return Sides(min(lengths), int(median(lengths)), max(lengths)) if lengths else None


def _is_clean(splits: Sequence[SplitAudit], duplicates: Sequence[Duplicates]) -> bool:
    train, *others = splits
    tolerated = train.quarantined <= MOST_OF_TRAIN * train.total
    readable = tolerated and not any(s.quarantined for s in others)
    exact = [d for d in duplicates if d.kind == "exact"]
    return readable and not any(d.across_splits or d.across_classes for d in exact)


def _kinds(groups: Sequence[Duplicates]) -> Iterator[tuple[str, list[Duplicates]]]:
    for kind in ("exact", "near"):
        own = [g for g in groups if g.kind == kind]
        leaks = [g for g in own if g.across_splits]
        yield f"{kind} duplicates across splits", leaks
        mixed = [g for g in own if g.across_classes and not g.across_splits]
        yield f"{kind} duplicates with different labels", mixed
        rest = [g for g in own if not g.across_splits and not g.across_classes]
        yield f"{kind} duplicates within a split", rest


def _group_text(group: Duplicates) -> str:
    named = [f"{key} ({split})" for key, split in zip(group.keys, group.splits, strict=True)]
    return " = ".join(named[:4]) + (f" = {len(named) - 4} more" if len(named) > 4 else "")


def _listed(title: str, items: Sequence[str]) -> list[str]:
    if not items:
        return []
    lines = ["", f"{title}: {len(items)}", *(f"  {item}" for item in items[:_SHOWN])]
    return lines + ([f"  and {len(items) - _SHOWN} more"] if len(items) > _SHOWN else [])
