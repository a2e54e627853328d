"""How a benchmark reaches a machine: push, run, pull. ``Local`` is this very machine.

All three take paths and lists of arguments; nothing is ever interpreted by a shell here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from edgexfer.bench.child import Completed, run_child
from edgexfer.core.errors import BackendError

# File of a scratch folder that names what a command has on a board, for as long as it has.
SESSION = "session"
# What scikit-learn sets for its own process when it is imported; it is not the user's word.
_LEFT_BEHIND = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")


class Transport(Protocol):
    """A way to one machine.

    Attributes:
        name: for people, such as ``this machine``.
    """

    name: str

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a record says of the way there, beside what the machine says of itself."""
        ...

    @property
    def python(self) -> Sequence[str]:
        """Arguments that start the machine's Python, without what the host's environment adds."""
        ...

    def push(self, source: Path) -> str:
        """Bring a file or folder there and return its path there."""
        ...

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Completed:
        """Run a program there; at the end of ``timeout_s`` it and all its children are killed."""
        ...

    def pull(self, source: str, out: Path) -> bool:
        """Bring a file from there to ``out``; ``False`` where it does not exist there."""
        ...

    def scratch(self, name: str) -> str:
        """Return the path there of a scratch file that ends with this transport."""
        ...

    def close(self) -> None:
        """End what still runs there and remove scratch files."""
        ...


class Local:
    """This machine, through the same verbs as any other.

    The child runs the same interpreter with ``-E``, so that ``PYTHONPATH`` and the like do not leak
    into it, while its installed packages stay, the user's own included.
    """

    name = "this machine"
    facts: Mapping[str, Any] = MappingProxyType({})
    python: Sequence[str] = (sys.executable, "-E")

    def __init__(self, scratch: Path) -> None:
        """Keep scratch files in the folder ``scratch``, which belongs to the caller."""
        self._scratch = scratch

    def push(self, source: Path) -> str:
        """Return the file's own absolute path: it is there already."""
        return str(source.absolute())

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Completed:
        """Run a program, see ``bench.child.run_child``."""
        environment = {k: v for k, v in os.environ.items() if k not in _LEFT_BEHIND}
        return run_child(argv, timeout_s, environment)

    def pull(self, source: str, out: Path) -> bool:
        """Copy a file, unless it lies where it is wanted."""
        place = Path(source)
        if not place.is_file():
            return False
        if place.absolute() != out.absolute():
            shutil.copyfile(place, out)
        return True

    def scratch(self, name: str) -> str:
        """Return a path in the scratch folder."""
        return str(self._scratch / name)

    def close(self) -> None:
        """Do nothing: children are over, and scratch files belong to the caller."""


def understood(text: str, transport: Transport) -> Any:
    """Return the JSON that the device side wrote, whatever a login or a library wrote around it.

    Raises:
        BackendError: there is none.
    """
    decoder = json.JSONDecoder()
    for start in re.finditer(r'^\[?\{\s*"', text, re.MULTILINE):
        with contextlib.suppress(ValueError):
            return decoder.raw_decode(text, start.start())[0]
    raise BackendError(
        f"{transport.name}: its answer is not understood ({text[:80]!r})",
        f"try it by hand: {' '.join([*transport.python, '--version'])}",
    )


def checked(done: Completed, transport: Transport) -> str:
    """Return what a program wrote, or raise the error that its two lines on stderr name.

    Raises:
        BackendError: the program failed.
    """
    if done.code == 0:
        return done.stdout
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if lines[-2:-1] and lines[-2].startswith("error: ") and lines[-1].startswith("fix: "):
        raise BackendError(f"{transport.name}: {lines[-2][7:]}", lines[-1][5:])
    how = "its time ran out" if done.code is None else done.reason or f"exit code {done.code}"
    what = lines[-1] if lines else how
    raise BackendError(
        f"{transport.name}: the device side does not run ({what[:160]})",
        f"try it by hand: {' '.join([*transport.python, '--version'])}",
    )
