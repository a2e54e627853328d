"""Whether a runtime answers from a cache: one input again and again must not be faster (TEST04).

Blocks of one input alternate with blocks of changing inputs, so that a drift of the machine meets
both. Each input is read just before its call: it is then in the processor's caches in both kinds of
block, as it is in real use, and what is left to be faster is a runtime that remembers results.
"""

from __future__ import annotations

from typing import Any, Callable, List, Sequence, Tuple

from edgexfer.bench.latency import now_ns
from edgexfer.core.stats import median

PAIRS, BLOCK = 16, 4
LIMIT = 0.95
# Of 16 pairs of blocks, by chance alone at least 13 favour one kind in 1.1 % of all cases.
_SHARE = 13 / 16


def measure_repeats(
    call: Callable[[Any], Any], inputs: Sequence[Any], cap_s: float
) -> Tuple[List[int], List[int]]:
    """Time pairs of blocks, each of four calls, until there are 16 or ``cap_s`` seconds are over.

    Args:
        call: what is timed.
        inputs: feeds, arrays by name; more than one.
        cap_s: begin no further pair after so long.

    Returns:
        Latencies in nanoseconds over changing inputs, and over one input per block.
    """
    rotated: List[int] = []
    repeated: List[int] = []
    deadline = now_ns() + int(cap_s * 1e9)
    for pair in range(PAIRS):
        if pair and now_ns() >= deadline:
            break
        same = inputs[pair % len(inputs)]
        _time(call, same)  # what is remembered of it must be remembered by now
        repeated += [_time(call, same) for _ in range(BLOCK)]
        first = pair * BLOCK + pair + 1
        rotated += [_time(call, inputs[(first + i) % len(inputs)]) for i in range(BLOCK)]
    return rotated, repeated


def cached_pct(runs: Sequence[Tuple[Sequence[int], Sequence[int]]]) -> float:
    """Return by how many percent one input again and again is faster; 0 where that is not shown.

    It is shown where the median is lower by more than 5 %, and so in 13 of 16 pairs of blocks.

    Args:
        runs: what ``measure_repeats`` returned, of each process.
    """
    pairs = [
        (median(rotated[i : i + BLOCK]), median(repeated[i : i + BLOCK]))
        for rotated, repeated in runs
        for i in range(0, len(rotated), BLOCK)
    ]
    faster = sum(again < LIMIT * other for other, again in pairs)
    if not pairs or len(pairs) < PAIRS // 2 or faster < _SHARE * len(pairs):
        return 0.0
    ratio = median([again for _, again in pairs]) / median([other for other, _ in pairs])
    return 100.0 * (1.0 - ratio) if ratio < LIMIT else 0.0


def _time(call: Callable[[Any], Any], feed: Any) -> int:
    for array in feed.values():
        array.max(initial=0)
    start = now_ns()
    call(feed)
    return now_ns() - start
