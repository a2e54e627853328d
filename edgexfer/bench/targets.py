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
    profiles = {a.target: read_profile(bundle, manifest, a) for a in manifest.artefacts}
    if targets is None:
        wanted = {name for name, profile in profiles.items() if profile.machine == machine}
        if not wanted:
            kinds = ", ".join(f"{n} ({p.machine})" for n, p in sorted(profiles.items()))
            raise BackendError(
                f"{bundle}: nothing in it is for {machine}; its targets: {kinds or 'none'}",
                f"bench it on such a machine, or export for a {machine} target",
            )
        return [a for a in manifest.artefacts if a.target in wanted]
    known = {n: n for n in profiles}
    known.update({alias: n for n, profile in profiles.items() for alias in profile.aliases})
    for target in targets:
        if target not in known:
            raise BundleError(
                f"{bundle}: has nothing for target {target!r}", nearest(target, profiles)
            )
        kind = profiles[known[target]].machine
        if kind != machine:
            raise BackendError(
                f"{bundle}: target {target} is for a {kind} machine, this one is {machine}",
                f"bench it on a {kind} machine, or leave --target out",
            )
    named = {known[target] for target in targets}
    return [a for a in manifest.artefacts if a.target in named]
