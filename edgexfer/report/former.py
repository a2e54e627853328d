"""What a training that went on from a former task forgot of it, in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgexfer.core.codec import decode
from edgexfer.core.errors import InputError
from edgexfer.core.stats import PairedDrop
from edgexfer.report import words


def forgetting(result: Mapping[str, Any]) -> str | None:
    """Say how a former task fared; ``None`` where there was none.

    Args:
        result: of a run, as it was read from its file.
    """
    task = result.get("old_task")
    if not isinstance(task, dict):
        return None
    before, after, own = (task.get(k) for k in ("before_pct", "after_pct", "among_old_pct"))
    try:
        drop = decode(PairedDrop, task.get("drop"), "old_task")
    except InputError:
        return None
    if not all(isinstance(share, (int, float)) for share in (before, after, own)):
        return None
    lost, low, high = drop.drop_pt, drop.low_pt, drop.high_pt
    verb = "lost"
    if lost < 0:
        verb, lost, low, high = "gained", -lost, -high, -low
    interval = f"95 % interval {words.signed(low)} to {words.signed(high)}"
    return (
        f"former task: {words.percent(before)} \u2192 {words.percent(after)} of "
        f"{words.count(drop.n, 'test image')}, {verb} {words.points(lost)} ({interval}); "
        f"{words.percent(own)} where only its own classes are asked for"
    )
