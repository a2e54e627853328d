"""Finding images that are nearly the same, without comparing each with every other.

A difference hash finds candidates, small thumbnails confirm them. What duplicates mean for a data
set is judged in ``audit``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgexfer.data.decode import UInt8

U64 = npt.NDArray[np.uint64]
Int64 = npt.NDArray[np.int64]

MOST_BITS = 4
THUMBNAIL = 16
# Root mean square of the difference of two thumbnails, as a share of their own contrast: drawings
# on white have alike hashes and differ little in absolute values. Re-encoded copies stay below 0.1.
_MOST_DIFFERENCE = 0.15
# With one band more than bits that may differ, one band at least is equal (pigeonhole).
_BANDS = MOST_BITS + 1
_ONES_OF_16_BITS = np.array([i.bit_count() for i in range(1 << 16)], np.uint8)


def describe(image: UInt8) -> tuple[int, UInt8]:
    """Return the 64-bit difference hash and the thumbnail of an image.

    The hash says for each of 8 x 8 places whether the grey value rises to the right (dHash, Krawetz
    2013).

    Args:
        image: uint8, (H, W, 3).

    Returns:
        The hash, and a uint8 (16, 16, 3) thumbnail.
    """
    picture = Image.fromarray(image)
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX)).astype(np.int16)
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    thumbnail = picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return int.from_bytes(bits.tobytes(), "big"), np.array(thumbnail)


def similar_groups(hashes: U64, thumbnails: UInt8) -> list[list[int]]:
    """Group images whose hashes differ in at most 4 bits and whose thumbnails agree.

    Args:
        hashes: uint64, (N,).
        thumbnails: uint8, (N, 16, 16, 3).

    Returns:
        Groups of at least two indices, each sorted, in the order of their first index.
    """
    leader = list(range(len(hashes)))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = leader[leader[i]]
            i = leader[i]
        return i

    for left, right in _candidates(hashes):
        close = _alike(thumbnails[left], thumbnails[right])
        for i, j in zip(left[close].tolist(), right[close].tolist(), strict=True):
            low, high = sorted((find(i), find(j)))
            leader[high] = low
    groups: dict[int, list[int]] = defaultdict(list)
    for i in range(len(hashes)):
        groups[find(i)].append(i)
    return [group for group in groups.values() if len(group) > 1]


def _candidates(hashes: U64) -> Iterator[tuple[Int64, Int64]]:
    """Yield pairs of images with near hashes.

    Images with equal hashes are paired in a row, those with near ones through the first of each, so
    that a thousand white pages do not give a million pairs.
    """
    values, group_of = np.unique(hashes, return_inverse=True)
    ranked = np.argsort(group_of, kind="stable")
    members = np.split(ranked, np.flatnonzero(np.diff(group_of[ranked])) + 1)
    for same in members:
        if len(same) > 1:
            yield same[:-1], same[1:]
    for one, others in _near(values):
        for other in others.tolist():
            a, b = members[one], members[other]
            yield np.append(a, np.repeat(a[0], len(b))), np.append(np.repeat(b[0], len(a)), b)


def _alike(a: UInt8, b: UInt8) -> npt.NDArray[np.bool_]:
    first, second = (x.reshape(len(x), -1).astype(np.float32) for x in (a, b))
    contrast = np.minimum(first.std(axis=1), second.std(axis=1))
    difference = np.sqrt(np.square(first - second).mean(axis=1))
    return np.asarray(difference <= _MOST_DIFFERENCE * contrast)


def _near(values: U64) -> Iterator[tuple[int, Int64]]:
    """Yield the place of a unique hash, and the places of those at most ``MOST_BITS`` bits away."""
    width = -(-64 // _BANDS)
    for band in range(_BANDS):
        shift = np.uint64(band * width)
        keys = (values >> shift) & np.uint64((1 << width) - 1)
        ranked = np.argsort(keys, kind="stable")
        edges = np.flatnonzero(np.diff(keys[ranked])) + 1
        for bucket in np.split(ranked, edges):
            for place, i in enumerate(bucket[:-1]):
                others = bucket[place + 1 :]
                near = _ones(values[others] ^ values[i]) <= MOST_BITS
                if near.any():
                    yield int(i), others[near]


def _ones(values: U64) -> npt.NDArray[np.uint8]:
    ones: npt.NDArray[np.uint8] = _ONES_OF_16_BITS[values.view(np.uint16).reshape(-1, 4)].sum(
        axis=1, dtype=np.uint8
    )
    return ones
