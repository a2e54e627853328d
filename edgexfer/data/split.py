"""Which image belongs to which split, and which ones a limit keeps: seeded hashes of the keys.

An image's place is decided by the hash of its own key, so that an image that is added or removed
leaves all others where they are. Reading folders lives in ``folder``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from edgexfer.data.counter import text_uniform


@dataclass(frozen=True)
class Entry:
    """One image of a data set.

    Attributes:
        key: its stable name in the data set, such as a relative path.
        label: name of its class.
    """

    key: str
    label: str


def divide(
    entries: Sequence[Entry], shares: dict[str, float], seed: int
) -> dict[str, tuple[Entry, ...]]:
    """Take shares of the entries away from train, class by class.

    Each key has a fixed place in [0, 1); the first share takes the lowest places, the next one
    those above. A class so small that a share would get none of it gives the next image in line, as
    long as train keeps one: only there can an added image move another.

    Args:
        entries: all images, in any order.
        shares: for each split that is wanted its share of the entries; together below 1.
        seed: of the hash.

    Returns:
        The entries of each split in ``shares``, and of ``train``, in the order of ``entries``.
    """
    by_class: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for position, entry in enumerate(entries):
        by_class[entry.label].append((text_uniform(seed, entry.key), position))
    taken: dict[str, list[int]] = {name: [] for name in (*shares, "train")}
    for places in by_class.values():
        places.sort()
        start, top = 0, 0.0
        for name, share in shares.items():
            top += share
            end = start
            while end < len(places) and places[end][0] < top:
                end += 1
            if share > 0 and end == start:
                end += 1
            end = max(min(end, len(places) - 1), start)
            taken[name] += [position for _, position in places[start:end]]
            start = end
        taken["train"] += [position for _, position in places[start:]]
    return {name: tuple(entries[i] for i in sorted(found)) for name, found in taken.items()}


def keep(entries: Sequence[Entry], limit: int, seed: int) -> tuple[Entry, ...]:
    """Keep at most ``limit`` entries, taken evenly from the classes by the hash of their keys.

    Returns:
        The kept entries in the order of ``entries``.
    """
    if len(entries) <= limit:
        return tuple(entries)
    by_class: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for position, entry in enumerate(entries):
        by_class[entry.label].append((text_uniform(seed, entry.key), position))
    turns = [
        (turn, place, position)
        for places in by_class.values()
        for turn, (place, position) in enumerate(sorted(places))
    ]
    chosen = sorted(position for _, _, position in sorted(turns)[:limit])
    return tuple(entries[position] for position in chosen)
