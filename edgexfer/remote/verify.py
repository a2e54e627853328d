"""``verify``: check a bundle in a fresh process that loads nothing but numpy and the runtimes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from edgexfer.bench.verify import Finding
from edgexfer.core.bundle import verify_files
from edgexfer.core.codec import decode
from edgexfer.remote.pack import pack_device_side
from edgexfer.remote.transport import Local, Transport, checked, understood

# Engines that are not there yet are built first, which takes minutes each.
LIMIT_S = 1800.0


def verify(bundle: Path, *, transport: Callable[[Path], Transport] = Local) -> list[Finding]:
    """Check a bundle's hashes, its arrays against its preprocess, and its golden outputs.

    Args:
        bundle: the folder.
        transport: makes the way to the machine that checks, given a folder for scratch files.

    Returns:
        ``files``, ``preprocess``, and one finding for each artefact; an artefact whose runtime is
        missing there, or that is for another kind of machine, is ``skipped`` with the reason.

    Raises:
        BundleError: the folder is no bundle, or a file of it is not as it was sealed.
        BackendError: the device side does not run there.
    """
    verify_files(bundle)
    with (
        tempfile.TemporaryDirectory(prefix="edgexfer-") as scratch,
        contextlib.closing(transport(Path(scratch))) as way,
    ):
        program = [*way.python, way.push(pack_device_side(Path(scratch) / "edgexfer.pyz"))]
        done = way.run([*program, "verify", way.push(bundle), "--json"], timeout_s=LIMIT_S)
        # A finding that failed ends with code 1, and is an answer all the same.
        text = done.stdout if done.code == 1 and done.stdout else checked(done, way)
        return [decode(Finding, value, "the findings") for value in understood(text, way)]
