"""No figure of time is taken from an emulator; how one is seen is in ``device``."""

from __future__ import annotations

import platform

from edgexfer.bench.device import emulator
from edgexfer.core.errors import BackendError


def refuse_emulation(what: str) -> None:
    """Refuse to time what an emulator computes: the outputs are the machine's, the time is not.

    Args:
        what: would be timed, such as ``a profile's peaks``.

    Raises:
        BackendError: an emulator runs this process.
    """
    seen = emulator()[0]
    if seen is not None:
        raise BackendError(
            f"{what}: this {platform.machine()} is emulated by {seen}, whose times are no device's",
            "measure on the device itself",
        )
