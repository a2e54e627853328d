"""Which of several timed artefacts to take, and which of them cannot be told apart.

One rule for the export, which measures for moments, and for the report, which measures at length:
what lies within the spread between processes, and within 3 %, is a tie, and of a tie the smallest
is taken. Whether an artefact is accurate enough to be a candidate is asked elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence, Tuple

from edgexfer.core.stats import median

# A larger gap is no tie however far the processes spread: on a restless machine everything lies
# within the spread, and the better guess then is the one that was faster. Nor is a smaller file
# worth more speed than this.
WIDEST_TIE = 1.03


@dataclass(frozen=True)
class Timed:
    """One artefact as it was timed.

    Attributes:
        name: of the artefact.
        medians_ns: the median latency of each fresh process; at least one.
        size_bytes: of its files.
    """

    name: str
    medians_ns: Tuple[float, ...]
    size_bytes: int

    @property
    def median_ns(self) -> float:
        """The median of its processes' medians, in nanoseconds."""
        return median(self.medians_ns)

    @property
    def spread(self) -> float:
        """The slowest process over the fastest; 1 where there is but one."""
        return max(self.medians_ns) / min(self.medians_ns)


def speed_ratio(one: Timed, other: Timed) -> float:
    """Return how many times as fast as ``other`` the artefact ``one`` is."""
    return other.median_ns / one.median_ns


def is_tie(one: Timed, other: Timed) -> bool:
    """Tell whether two latencies differ by no more than the processes of either do.

    A gap of more than 3 % is never a tie.
    """
    ratio = speed_ratio(one, other)
    return max(ratio, 1 / ratio) <= min(max(one.spread, other.spread), WIDEST_TIE)


def fastest(timed: Sequence[Timed]) -> Tuple[Timed, Tuple[Timed, ...]]:
    """Choose among artefacts.

    Args:
        timed: at least one, in the order of preference where both speed and size are equal.

    Returns:
        The smallest of those that are a tie with the fastest, and the others of that tie.
    """
    first = min(timed, key=lambda t: t.median_ns)
    tied = [t for t in timed if t is first or is_tie(t, first)]
    taken = min(tied, key=lambda t: t.size_bytes)
    return taken, tuple(t for t in tied if t is not taken)
