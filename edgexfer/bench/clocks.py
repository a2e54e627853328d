"""The one place that changes a machine, on request: its governor, power mode and pinned clocks.

What is changed is written to a file before, and put back after the measurement; after a crash or a
kill, the next start or ``edgexfer doctor`` does it. Commands that need root run through
``sudo -n``, which never asks for a password. Provided, not measured: NVIDIA's tools were replaced
by programs that answer like them.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence

from edgexfer.bench.boards import power_mode, power_modes
from edgexfer.bench.reading import find_tool, read_text
from edgexfer.core.codec import decode, encode
from edgexfer.core.errors import EdgexferError, InputError, MachineError, nearest
from edgexfer.core.files import make_dir, read_json, write_json

SCHEMA = "edgexfer.clocks/1"
_LIMIT_S = 60.0
_BY_HAND = "run as root, or allow it in sudoers without a password"


@dataclass(frozen=True)
class Wanted:
    """How the clocks are to be while it is measured.

    Attributes:
        governor: of all CPUs; empty leaves it.
        power_mode: of a Jetson, by name; empty leaves it.
        pinned: whether ``jetson_clocks`` pins all clocks of a Jetson to their highest.
    """

    governor: str = ""
    power_mode: str = ""
    pinned: bool = False


def fastest(power_mode: str = "", root: Path = Path("/")) -> Wanted:
    """Return the fastest steady clocks that a machine can be set to; none where it has no switch.

    Args:
        power_mode: of a Jetson, by name; empty stays in the one that it is in.
        root: prefix of ``/sys`` and the folders of tools.
    """
    name = "sys/devices/system/cpu/cpu0/cpufreq/scaling_available_governors"
    offered = (read_text(root, name)[0] or "").split()
    return Wanted(
        governor="performance" if "performance" in offered else "",
        power_mode=power_mode,
        pinned=find_tool(root, "jetson_clocks") is not None,
    )


@dataclass(frozen=True)
class Saved:
    """How the machine was before it was changed.

    Attributes:
        schema: ``edgexfer.clocks/1``.
        pid: who changes it.
        started: when that process was started, in the kernel's ticks since its boot.
        boot: the kernel's name of this boot.
        governors: contents of the governors' files.
        power_mode: name of the power mode; empty where it is left alone.
        pinned: file in which ``jetson_clocks`` stored its settings; likewise.
    """

    schema: str
    pid: int
    started: str
    boot: str
    governors: Dict[str, str] = field(default_factory=dict)
    power_mode: str = ""
    pinned: str = ""


def state_file() -> Path:
    """Return where the state of this user's machine is kept while its clocks are changed."""
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(cache) if cache else Path.home() / ".cache"
    except RuntimeError:  # a user without a home, as in a container that is run with any number
        folder = Path(tempfile.gettempdir()) / f"edgexfer-{os.getuid()}"
    return folder / "edgexfer/clocks.json"


@contextlib.contextmanager
def changed_clocks(
    wanted: Wanted, root: Path = Path("/"), state: Optional[Path] = None
) -> Iterator[None]:
    """Set the clocks for the time of a ``with`` block, and put back what was changed.

    Args:
        wanted: what to change.
        root: prefix of ``/sys``, ``/proc``, ``/etc`` and the folders of tools.
        state: the file that outlives a crash; ``None`` for ``state_file()``.

    Raises:
        InputError: this machine has no such governor or power mode.
        MachineError: it may not be changed, is being changed by another process, or could not be
            put back; the file then stays.
    """
    place = state or state_file()
    restore_left_over(root, place)
    if wanted == Wanted():
        yield
        return
    governors = _governors(root, wanted.governor)
    mode = _mode_to_restore(root, wanted.power_mode)
    if wanted.pinned and find_tool(root, "jetson_clocks") is None:
        raise InputError("there is no jetson_clocks here", "leave the clocks as they are")
    make_dir(place.parent)
    stored = str(place.with_suffix(".jetson")) if wanted.pinned else ""
    saved = Saved(
        SCHEMA, os.getpid(), _started(root, os.getpid()), _boot(root), governors, mode, stored
    )
    write_json(place, encode(saved))
    try:
        _change(root, wanted, saved)
        yield
    finally:
        _restore(root, saved)
        place.unlink()


def restore_left_over(root: Path = Path("/"), state: Optional[Path] = None) -> bool:
    """Put back what a process changed that did not live to do so; say whether there was one.

    Raises:
        MachineError: the process is alive, or the state cannot be put back.
    """
    place = state or state_file()
    if not place.exists():
        return False
    try:
        saved = decode(Saved, read_json(place), str(place))
    except EdgexferError as error:
        raise MachineError(error.what, f"check the clocks, then rm {place}") from error
    if saved.boot == _boot(root) and _started(root, saved.pid) == saved.started != "":
        raise MachineError(
            f"process {saved.pid} has changed this machine's clocks", "wait until it has ended"
        )
    _restore(root, saved)
    place.unlink()
    return True


def _governors(root: Path, wanted: str) -> Dict[str, str]:
    """Return the governors that have to be changed, by their files."""
    if not wanted:
        return {}
    found: Dict[Path, str] = {}
    for path in sorted(
        (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    ):
        name = str(path.relative_to(root))
        # Many CPUs may share one policy, which each of them links to.
        if path.resolve() not in {other.resolve() for other in found}:
            found[path] = read_text(root, name)[0] or ""
            offered = read_text(root, name.replace("governor", "available_governors"))[0]
            if offered is not None and wanted not in offered.split():
                raise InputError(
                    f"this machine has no governor {wanted!r}", nearest(wanted, offered.split())
                )
    if not found:
        raise InputError("this machine has no governor to set", "leave the clocks as they are")
    return {str(path.relative_to(root)): now for path, now in found.items() if now != wanted}


def _mode_to_restore(root: Path, wanted: str) -> str:
    """Return the name of the power mode to come back to; empty where none is to be changed."""
    if not wanted:
        return ""
    names = power_modes(root)
    if wanted not in names.values():
        fix = nearest(wanted, names.values()) if names else "leave the power mode as it is"
        raise InputError(f"this machine has no power mode {wanted!r}", fix)
    now, reason = power_mode(root)
    if now not in names.values():
        raise MachineError(f"the power mode to come back to is not known ({reason})", _BY_HAND)
    return str(now) if now != wanted else ""


def _change(root: Path, wanted: Wanted, saved: Saved) -> None:
    if saved.power_mode:
        _set_mode(root, wanted.power_mode)
    if saved.pinned:
        # It asks before it writes over a file, and there is nobody to answer.
        Path(saved.pinned).unlink(missing_ok=True)
        _run(root, ["jetson_clocks", "--store", saved.pinned])
        _run(root, ["jetson_clocks"])
    for name in saved.governors:
        _write(root, name, wanted.governor)


def _restore(root: Path, saved: Saved) -> None:
    """Put back in the reverse order; every part is tried before the first failure is raised."""
    failed: List[EdgexferError] = []
    for name, before in saved.governors.items():
        with _collected(failed):
            _write(root, name, before)
    if saved.pinned and Path(saved.pinned).exists():
        with _collected(failed):
            _run(root, ["jetson_clocks", "--restore", saved.pinned])
            Path(saved.pinned).unlink()
    if saved.power_mode and power_mode(root)[0] != saved.power_mode:
        with _collected(failed):
            _set_mode(root, saved.power_mode)
    if failed:
        raise MachineError(f"clocks were not put back: {failed[0].what}", failed[0].fix)


@contextlib.contextmanager
def _collected(failed: List[EdgexferError]) -> Iterator[None]:
    try:
        yield
    except EdgexferError as error:
        failed.append(error)


def _set_mode(root: Path, name: str) -> None:
    """Set a power mode by its name; one that needs a reboot is refused, as nobody confirms it."""
    number = next(n for n, other in power_modes(root).items() if other == name)
    _run(root, ["nvpmodel", "-m", str(number)])
    now = power_mode(root)[0]
    if now != name:
        raise MachineError(
            f"the power mode is {now}, not {name}: it may need a reboot",
            f"sudo nvpmodel -m {number}",
        )


def _write(root: Path, name: str, text: str) -> None:
    """Write a file of the kernel, as root where this user may not."""
    if read_text(root, name)[0] == text:
        return
    try:
        (root / name).write_text(text + "\n")
    except PermissionError:
        _run(root, ["tee", str(root / name)], text + "\n")
    except OSError as error:
        raise MachineError(f"/{name} takes no {text!r} ({error.strerror})", _BY_HAND) from error
    if read_text(root, name)[0] != text:
        raise MachineError(f"/{name} did not take {text!r}", _BY_HAND)


def _run(root: Path, argv: Sequence[str], stdin: str = "") -> None:
    """Run a tool that changes something, as root.

    Raises:
        MachineError: it is not there, may not be run, or fails.
    """
    command = " ".join(argv)
    sudo, tool = find_tool(root, "sudo"), find_tool(root, argv[0])
    if tool is None or (sudo is None and os.geteuid() != 0):
        raise MachineError(f"`{command}` cannot be run as root", f"sudo {command}")
    prefix = [str(tool)] if os.geteuid() == 0 else [str(sudo), "-n", str(tool)]
    try:
        done = subprocess.run(
            [*prefix, *argv[1:]],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=_LIMIT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise MachineError(
            f"`{command}` does not run ({type(error).__name__})", f"sudo {command}"
        ) from error
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines()
        said = f": {lines[-1][:80]}" if lines else ""
        raise MachineError(f"`{command}` fails{said}", f"sudo {command}")


def _boot(root: Path) -> str:
    return read_text(root, "proc/sys/kernel/random/boot_id")[0] or ""


def _started(root: Path, pid: int) -> str:
    """Return when a process was started, as its number may since be another's; empty where gone."""
    text = read_text(root, f"proc/{pid}/stat")[0] or ""
    # The name in brackets may hold anything; the start is the 20th field after it (proc(5)).
    match = re.search(r"\)((?: \S+){20})", text)
    return match.group(1).split()[-1] if match else ""
