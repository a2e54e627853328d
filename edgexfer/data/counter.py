"""Random numbers that are a pure function of what they are for: a counter-based hash, no state.

Order, augmentation and splits draw from here, so that they depend on seed, epoch and sample alone:
never on the number of workers, on the place in a batch, or on a generator that others also use.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
F64 = npt.NDArray[np.float64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hashed(index: npt.ArrayLike, *words: int) -> U64:
    """Hash each index together with the words that say what the number is for.

    Args:
        index: integers of any shape, from 0.
        words: such as seed, epoch and stream, each from 0.

    Returns:
        One well mixed 64-bit number per index (finaliser of SplitMix64, Steele et al. 2014, applied
        once per word).
    """
    state = np.zeros(np.shape(index), np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            state = _mix(state + _GOLDEN * np.uint64(word + 1))
        return _mix(state + _GOLDEN * (np.asarray(index).astype(np.uint64) + np.uint64(1)))


def uniform(index: npt.ArrayLike, *words: int) -> F64:
    """Return for each index a float64 in [0, 1) that only ``index`` and ``words`` decide."""
    top = hashed(index, *words) >> np.uint64(11)
    result: F64 = top.astype(np.float64) * 2.0**-53
    return result


def order(n: int, *words: int) -> npt.NDArray[np.int64]:
    """Return a permutation of ``0..n-1``: the indices sorted by their hash."""
    return np.argsort(hashed(np.arange(n), *words), kind="stable").astype(np.int64)


def text_uniform(seed: int, text: str) -> float:
    """Return a float in [0, 1) that only the seed and a text, such as an image's key, decide."""
    digest = hashlib.sha256(f"{seed}:".encode() + text.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def _mix(z: U64) -> U64:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
