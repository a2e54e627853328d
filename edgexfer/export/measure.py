"""A short benchmark of the precisions that were just made, to choose between them.

It is the benchmark of ``remote``, in fresh processes that interleave, with a budget of seconds.
What may be published is measured by ``edgexfer bench``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgexfer.backends.openvino import absent
from edgexfer.bench.device import facts
from edgexfer.core.bundle import MANIFEST, Manifest, seal
from edgexfer.core.errors import BackendError, Interrupted
from edgexfer.core.profile import HardwareProfile
from edgexfer.core.record import Record, read_record
from edgexfer.core.stats import median
from edgexfer.export.choose import RESTLESS, Measurement
from edgexfer.recipe import BenchSection
from edgexfer.remote.bench import How, bench_bundles

# 60 samples bound a p90, so that a record of it is not called too short.
BRIEF = BenchSection(processes=3, seconds=0.5, samples=20)
_MOVED = ("nonstationary: ", "throttled: ")


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
    if profile.machine != here["machine"]:
        return f"it is for {profile.machine}, this machine is {here['machine']}"
    named = profile.facts.get("cpu")
    if named is not None and named.value != here["cpu"]:
        return f"it is for {named.value}, this machine has {here['cpu']}"
    if named is None and "cores" in profile.facts:
        return f"nothing says that this machine is a {profile.title}"
    return None


def measure(folder: Path, manifest: Manifest, targets: Sequence[str]) -> Measurement:
    """Time all artefacts of some targets side by side, and once more where that was disturbed.

    Args:
        folder: an export in the making; it is sealed for the while and left as it was.
        manifest: of it, with every file listed.
        targets: profiles that can be measured here.

    Raises:
        KeyboardInterrupt: by Ctrl-C.
    """
    seal(folder, manifest)
    try:
        found = _bench(folder, targets, BRIEF)
        if any(max(each) / min(each) > RESTLESS for each in found.medians_ns.values()):
            found = _pooled(found, _bench(folder, targets, replace(BRIEF, seed=1)))
    except BackendError as error:
        return Measurement({}, obstacle=error.what)
    except Interrupted as error:
        raise KeyboardInterrupt from error
    finally:
        (folder / MANIFEST).unlink()
    return found


def _bench(folder: Path, targets: Sequence[str], section: BenchSection) -> Measurement:
    with tempfile.TemporaryDirectory(prefix="edgexfer-") as scratch:
        how = How(targets, section, accuracy=False)
        paths = bench_bundles([folder], Path(scratch) / "records", how)
        return _summary([read_record(path) for path in paths])


def _pooled(first: Measurement, second: Measurement) -> Measurement:
    if second.obstacle is not None:
        return second
    both = {name: (*each, *second.medians_ns[name]) for name, each in first.medians_ns.items()}
    return replace(first, medians_ns=both, doubts=_kinds((*first.doubts, *second.doubts)))


def _summary(records: Sequence[Record]) -> Measurement:
    """Take what the choice needs from records; one that is worthless spoils the comparison."""
    for record in records:
        if _worthless(record):
            return Measurement({}, obstacle="; ".join(record.reasons))
    return Measurement(
        {str(r.artefact["name"]): tuple(median(p.infer_ns) for p in r.processes) for r in records},
        cpu=records[0].device["cpu"],
        doubts=_kinds([reason for record in records for reason in record.reasons]),
    )


def _worthless(record: Record) -> bool:
    """Tell whether a record says nothing of which artefact is faster.

    A level that moves forbids to publish a latency. The processes of rivals are interleaved and
    meet the same moves, so that their medians can be ranked nevertheless, with that doubt.
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
