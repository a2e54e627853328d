"""Which artefacts of a bundle are measured on which machine."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional, Sequence

from edgexfer.bench.job import read_profile
from edgexfer.core.bundle import Artefact, Manifest
from edgexfer.core.errors import BackendError, BundleError, nearest


def artefacts_for(
    bundle: Path, manifest: Manifest, targets: Optional[Sequence[str]], machine: str
) -> List[Artefact]:
    """Return the artefacts to measure.

    Several targets may share one file (an ONNX model that runs on x86 and on a Raspberry Pi), so it
    is the profile's kind of machine that decides.

    Args:
        bundle: the folder.
        manifest: of it.
        targets: profiles by name or alias; ``None`` takes all that are for such a machine.
        machine: ``platform.machine()`` of the machine that measures.

    Raises:
        BundleError: a target is not in the bundle.
        BackendError: a named target is for another kind of machine, or nothing is for this one.
    """
    named = named_artefacts(bundle, manifest, targets)
    kinds = {a.target: read_profile(bundle, manifest, a).machine for a in named}
    found = [a for a in named if kinds[a.target] == machine]
    others = [name for name in kinds if kinds[name] != machine]
    if targets is not None and others:
        raise BackendError(
            f"{bundle}: target {others[0]} is for a {kinds[others[0]]} machine, this one is "
            f"{machine}",
            f"bench it on a {kinds[others[0]]} machine, or leave --target out",
        )
    if not found:
        listed = ", ".join(f"{name} ({kind})" for name, kind in sorted(kinds.items()))
        raise BackendError(
            f"{bundle}: nothing in it is for {machine}; its targets: {listed or 'none'}",
            f"bench it on such a machine, or export for a {machine} target",
        )
    return found


def named_artefacts(
    bundle: Path, manifest: Manifest, targets: Optional[Sequence[str]]
) -> List[Artefact]:
    """Return the artefacts of some targets, for whatever machine; ``None`` takes all.

    Raises:
        BundleError: a target is not in the bundle.
    """
    if targets is None:
        return list(manifest.artefacts)
    profiles = {a.target: read_profile(bundle, manifest, a) for a in manifest.artefacts}
    known = {n: n for n in profiles}
    known.update({alias: n for n, profile in profiles.items() for alias in profile.aliases})
    for target in targets:
        if target not in known:
            raise BundleError(
                f"{bundle}: has nothing for target {target!r}", nearest(target, profiles)
            )
    named = {known[target] for target in targets}
    return [a for a in manifest.artefacts if a.target in named]
