"""What this process has taken so far: its memory and the time since it was started.

Read from ``/proc``; ``None`` where the kernel does not tell.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Optional

ROOT = Path("/")


def pss_bytes(root: Path = ROOT) -> Optional[int]:
    """Return this process's proportional set size: its own pages, and its share of shared ones."""
    return _field(root / "proc/self/smaps_rollup", "Pss")


def peak_pss_bytes(root: Path = ROOT) -> Optional[int]:
    """Return the most PSS that this process has had so far.

    The kernel keeps a high-water mark of resident pages alone (``VmHWM``). What was resident at
    that peak and no longer is was given back to the kernel, which happens to private pages: it
    counts in full on top of the PSS of now. ``ru_maxrss`` will not do for the mark: a child
    inherits its parent's through fork and exec.
    """
    pss = pss_bytes(root)
    status = root / "proc/self/status"
    most, now = _field(status, "VmHWM"), _field(status, "VmRSS")
    if pss is None or most is None or now is None:
        return None
    return pss + max(0, most - now)


def process_age_ns(root: Path = ROOT) -> Optional[int]:
    """Return how long ago the kernel started this process; it counts in ticks, mostly of 10 ms."""
    try:
        text = (root / "proc/self/stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may hold anything; field 22 is the 20th after it.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20 or not fields[19].isdigit():
        return None
    started_ns = int(fields[19]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    age = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - started_ns
    return age if age >= 0 else None


def _field(place: Path, key: str) -> Optional[int]:
    try:
        text = place.read_text()
    except OSError:
        return None
    match = re.search(rf"^{key}:\s*(\d+) kB", text, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None
