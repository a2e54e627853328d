"""Reading one file or asking one tool of a machine: a value, or why there is none.

A sensor that is absent, forbidden or talks nonsense gives ``None`` with its reason, never 0. Every
path is taken below a root, so that the readers can be tested on any board's files.
"""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any, Optional, Sequence, Tuple

Reading = Tuple[Any, str]
"""A value and, where it is ``None``, the reason."""

TOOL_LIMIT_S = 5.0
_TOOL_FOLDERS = ("usr/bin", "usr/sbin", "bin", "sbin", "usr/local/bin", "opt/vc/bin")
# What the kernel answers where a file is there and its sensor is not: an unpowered block, a
# virtual machine without the counter.
_SILENT = (errno.EAGAIN, errno.EIO, errno.ENODATA, errno.ENODEV, errno.ENXIO, errno.EINVAL)


def read_text(root: Path, name: str) -> Reading:
    """Read a small text file.

    Args:
        root: prefix of ``name``.
        name: path below it, without a leading slash.
    """
    try:
        return (root / name).read_text(errors="replace").strip("\x00\n\t "), ""
    except OSError as error:
        return None, why_not(error, name)


def why_not(error: OSError, name: str) -> str:
    """Say in words why the file ``/name`` could not be read."""
    if isinstance(error, FileNotFoundError):
        return f"there is no /{name}"
    if isinstance(error, PermissionError):
        return f"/{name} may be read by root alone"
    if error.errno in _SILENT:
        return f"the sensor behind /{name} does not answer"
    return f"/{name} cannot be read ({error.strerror or type(error).__name__})"


def read_number(root: Path, name: str, *, least: int = 1, most: Optional[int] = None) -> Reading:
    """Read a file that holds one integer within limits.

    Args:
        root: prefix of ``name``.
        name: path below it.
        least: smallest value that makes sense; a clock or a voltage of 0 is a sensor that is off.
        most: largest one.
    """
    text, reason = read_text(root, name)
    if text is None:
        return None, reason
    try:
        value = int(text)
    except ValueError:
        return None, f"/{name} holds {text[:20]!r}, no number"
    if value < least or (most is not None and value > most):
        return None, f"/{name} reads {value}, which cannot be"
    return value, ""


def find_tool(root: Path, name: str) -> Optional[Path]:
    """Return the path of a program in the system's own folders, ``None`` where there is none."""
    for folder in _TOOL_FOLDERS:
        place = root / folder / name
        if place.is_file():
            return place
    return None


def ask_tool(root: Path, name: str, arguments: Sequence[str]) -> Reading:
    """Run a program that only reports, and return what it wrote to both of its streams.

    The child is started without a copy of this process's memory, which may be large.
    """
    tool = find_tool(root, name)
    command = " ".join([name, *arguments])
    if tool is None:
        return None, f"there is no {name}"
    try:
        done = subprocess.run(
            [str(tool), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=TOOL_LIMIT_S,
            close_fds=False,  # lets Python 3.8 use posix_spawn
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"`{command}` does not answer ({type(error).__name__})"
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines()
        said = f": {lines[-1][:80]}" if lines else ""
        return None, f"`{command}` ends with exit code {done.returncode}{said}"
    return done.stdout, ""
