"""What to do about records that their machine spoilt: one thing, and how long it takes.

No process whose level moved is replaced by another one: what is kept would be chosen by its speed.
So all is measured again, side by side as before.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgexfer.core.record import Record
from edgexfer.report import words

_HOT = "throttled:"
# How the reasons begin that a quieter or cooler machine would not have given.
_SPOILT = ("nonstationary:", "clock:", _HOT)


def mend(records: Sequence[Record], act: str) -> str:
    """Say what to do about records that are invalid through their machine alone.

    Args:
        records: that were measured side by side.
        act: what measures them again, as a sentence begins.

    Returns:
        Two sentences, or nothing where measuring again helps none of them.
    """
    invalid = [record for record in records if record.status == "invalid"]
    spoilt = [r for r in invalid if all(why.startswith(_SPOILT) for why in r.reasons)]
    if not spoilt:
        return ""
    count = words.count(len(spoilt), "record")
    is_hot = any(why.startswith(_HOT) for record in spoilt for why in record.reasons)
    cause, when = "not steady", "nothing else runs on the machine"
    if is_hot:
        cause, when = "throttled", "the machine is cool and nothing else runs on it"
    return (
        f"{count} spoilt: the machine was {cause} meanwhile. "
        f"{act} when {when}; it takes about {_length(records)}."
    )


def _length(records: Sequence[Record]) -> str:
    """Say how long these records took, from the start of each process to its last sample."""
    runs = [run for record in records for run in record.processes]
    ns = sum((run.cold_start.total_ns or 0) + run.noise.get("elapsed_ns", 0) for run in runs)
    tens = max(1, round(ns / 1e10))
    return f"{10 * tens} s" if tens < 12 else f"{round(tens / 6)} min"
