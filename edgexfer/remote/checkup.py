"""Asking a machine that is reached with a transport what it lacks; it looks at itself.

What to look at, and the words for it, live in ``bench/checkup.py``; the packed device side carries
them there.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from edgexfer.bench.checkup import Finding
from edgexfer.core.codec import decode
from edgexfer.remote.pack import pack_device_side
from edgexfer.remote.transport import Transport, checked, understood

CHECK_LIMIT_S = 120.0
# Beyond this, files that are made there look older or newer than those of this machine.
SKEW_LIMIT_S = 60.0


def check_machine(reach: Callable[[Path], Transport], backend: str) -> list[Finding]:
    """Let a machine look at itself, and add what only this one sees: the skew of its clock.

    Args:
        reach: makes the way to the machine, given a folder for scratch files.
        backend: the runtime that it is to have.

    Raises:
        MachineError: it cannot be reached, or its Python is missing or too old, with the mend.
        BackendError: its Python runs, but not our program.
    """
    with (
        tempfile.TemporaryDirectory(prefix="edgexfer-doctor-") as folder,
        contextlib.closing(reach(Path(folder))) as way,
    ):
        packed = pack_device_side(Path(folder) / "edgexfer.pyz")
        argv = [*way.python, way.push(packed), "doctor", "--backend", backend, "--json"]
        done = way.run(argv, timeout_s=CHECK_LIMIT_S)
        # A finding that something is missing ends with code 3, and is an answer all the same.
        text = done.stdout if done.code == 3 else checked(done, way)
        findings = [decode(Finding, value, "findings") for value in understood(text, way)]
        return [*findings, *_skew(way)]


def _skew(way: Transport) -> list[Finding]:
    """Compare the clocks; durations do not depend on them, but certificates and file times do."""
    skew = way.facts.get("clock_skew_s")
    if skew is None:
        return []
    if abs(skew) > SKEW_LIMIT_S:
        ahead = "ahead of" if skew > 0 else "behind"
        detail = f"{abs(skew):.0f} s {ahead} this machine's"
        return [Finding("clock", "note", detail, "sudo timedatectl set-ntp true")]
    return [Finding("clock", "ok", "agrees with this machine's")]
