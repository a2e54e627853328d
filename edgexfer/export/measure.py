"""A short benchmark of the precisions that were just made, to choose between them.

It is the benchmark of ``remote``, in fresh processes that interleave, with a budget of seconds, on
this machine or on the board that was named for targets that are not this machine.
What may be published is measured by ``edgexfer bench``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgexfer.backends.openvino import absent
from edgexfer.bench.device import facts
from edgexfer.core.bundle import MANIFEST, Manifest, seal
from edgexfer.core.errors import InputError, Interrupted, MachineError
from edgexfer.core.profile import HardwareProfile
from edgexfer.core.record import Record, read_record
from edgexfer.core.stats import median
from edgexfer.export.choose import RESTLESS, Measurement
from edgexfer.recipe import BenchSection
from edgexfer.remote.bench import How, bench_bundles
from edgexfer.remote.fleet import Fleet
from edgexfer.remote.probe import ask_facts
from edgexfer.remote.transport import Local, Transport

# 60 samples bound a p90, so that a record of it is not called too short.
BRIEF = BenchSection(processes=3, seconds=0.5, samples=20)
_MOVED = ("nonstationary: ", "throttled: ")
# An unknown name or host key is an error of input; the bundle is whole without a choice after all.
_OUT_OF_REACH = (InputError, MachineError)


@dataclass(frozen=True)
class Board:
    """The remote machine for targets that are not this host.

    Attributes:
        name: its address, as ``--on`` has it.
        reach: makes the way to it, given a folder for scratch files.
    """

    name: str
    reach: Callable[[Path], Transport]


def board_of(fleet: Fleet) -> Board | None:
    """Return the one machine of a fleet as a board; ``None`` for this machine.

    Raises:
        InputError: it has several.
    """
    machine = fleet.only
    return Board(str(machine), fleet.reach(machine)) if machine.host else None


def elsewhere(profile: HardwareProfile) -> str | None:
    """Say why a target is not this machine, ``None`` where it can be measured here.

    A profile of one chip is this machine only where it names this machine's CPU; a profile of a
    whole class, which states no cores, is for any machine of the kind.
    """
    here = facts()
    missing = absent(profile.device) if profile.backend == "openvino" else None
    if missing is not None:
        return missing
    if profile.compile_on == "device":
        return "its engines are built on the device"
    other = _other_machine(profile, here, "this machine")
    if other is None and "cpu" not in profile.facts and "cores" in profile.facts:
        return f"nothing says that this machine is a {profile.title}"
    return other


def measure(
    folder: Path, manifest: Manifest, targets: Sequence[str], board: Board | None = None
) -> Measurement:
    """Time all artefacts of some targets side by side, and once more where that was disturbed.

    Args:
        folder: an export in the making; it is sealed for the while and left as it was.
        manifest: of it, with every file listed.
        targets: profiles that can be measured there.
        board: where to; ``None`` for this machine.

    Raises:
        KeyboardInterrupt: by Ctrl-C.
    """
    seal(folder, manifest)
    try:
        found = _bench(folder, targets, BRIEF, board)
        if any(max(each) / min(each) > RESTLESS for each in found.medians_ns.values()):
            found = _pooled(found, _bench(folder, targets, replace(BRIEF, seed=1), board))
    except _OUT_OF_REACH as error:
        return _obstacle(error.what, board)
    except Interrupted as error:
        raise KeyboardInterrupt from error
    finally:
        (folder / MANIFEST).unlink()
    return found


def measure_on(
    board: Board, folder: Path, manifest: Manifest, profiles: Sequence[HardwareProfile]
) -> dict[str, Measurement]:
    """Time on a board what is not for this machine; that it is such a board is the user's word.

    Each target is timed by itself, so that a runtime which the board lacks spoils no other. A board
    that cannot be had is an obstacle and no error: the bundle is whole without a choice.

    Args:
        board: the machine.
        folder: as ``measure`` has it.
        manifest: likewise.
        profiles: the targets; one that is plainly another machine than the board is not timed.

    Returns:
        By target what was measured, or why nothing was.

    Raises:
        KeyboardInterrupt: by Ctrl-C.
    """
    try:
        there = ask_facts(board.reach)
    except _OUT_OF_REACH as error:
        return {profile.name: _obstacle(error.what, board) for profile in profiles}
    found = {}
    for profile in profiles:
        other = _other_machine(profile, there, "the board")
        found[profile.name] = (
            measure(folder, manifest, [profile.name], board)
            if other is None
            else _obstacle(other, board)
        )
    return found


def _other_machine(profile: HardwareProfile, there: Mapping[str, Any], name: str) -> str | None:
    """Say why a machine cannot be a target, by what it says of itself."""
    if profile.machine != there["machine"]:
        return f"it is for {profile.machine}, {name} is {there['machine']}"
    named = profile.facts.get("cpu")
    if named is not None and named.value != there["cpu"]:
        return f"it is for {named.value}, {name} has {there['cpu']}"
    return None


def _obstacle(reason: str, board: Board | None) -> Measurement:
    if board is None:
        return Measurement({}, obstacle=reason)
    return Measurement({}, obstacle=reason.removeprefix(f"{board.name}: "), board=board.name)


def _bench(
    folder: Path, targets: Sequence[str], section: BenchSection, board: Board | None
) -> Measurement:
    with tempfile.TemporaryDirectory(prefix="edgexfer-") as scratch:
        reach = board.reach if board is not None else Local
        how = How(targets, section, transport=reach, accuracy=False)
        paths = bench_bundles([folder], Path(scratch) / "records", how)
        return _summary([read_record(path) for path in paths], board)


def _pooled(first: Measurement, second: Measurement) -> Measurement:
    if second.obstacle is not None:
        return second
    both = {name: (*each, *second.medians_ns[name]) for name, each in first.medians_ns.items()}
    return replace(first, medians_ns=both, doubts=_kinds((*first.doubts, *second.doubts)))


def _summary(records: Sequence[Record], board: Board | None = None) -> Measurement:
    """Take what the choice needs from records; one that is worthless spoils the comparison."""
    for record in records:
        if _worthless(record):
            return _obstacle("; ".join(record.reasons), board)
    device = records[0].device
    cpu = device["cpu"]
    if board is not None:
        cpu = f"{device.get('board') or cpu or device['machine']} at {board.name}"
    return Measurement(
        {str(r.artefact["name"]): tuple(median(p.infer_ns) for p in r.processes) for r in records},
        cpu=cpu,
        doubts=_kinds([reason for record in records for reason in record.reasons]),
        board=board.name if board is not None else None,
    )


def _worthless(record: Record) -> bool:
    """Tell whether a record says nothing of which artefact is faster.

    A drifting latency must not be published, but rivals can still be ranked: their processes are
    interleaved and drift alike. The doubt is kept.
    """
    if record.status == "invalid":
        return not all(reason.startswith(_MOVED) for reason in record.reasons)
    return record.status == "failed"


def _kinds(reasons: Sequence[str]) -> tuple[str, ...]:
    """Return the first of each kind of reason; two that differ in figures alone are of one."""
    kinds: dict[str, str] = {}
    for reason in reasons:
        kinds.setdefault("".join(c for c in reason if not c.isdigit()), reason)
    return tuple(kinds.values())
