"""Is a bundle whole, and does it compute here what it computed where it was sealed?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Optional

from edgexfer.bench.feed import check_session, read_array
from edgexfer.bench.golden import check_golden
from edgexfer.bench.job import load_artefact, read_profile
from edgexfer.core.backend import get_backend
from edgexfer.core.bundle import REMAKE, Artefact, Manifest, all_entries, verify_files
from edgexfer.core.errors import BackendError, BundleError, EdgexferError
from edgexfer.core.profile import HardwareProfile


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        name: ``files``, ``preprocess`` or an artefact's name.
        status: ``ok``, ``failed`` or ``skipped``.
        detail: the figure, or the reason.
        fix: what to do; empty where nothing need be done.
    """

    name: str
    status: str
    detail: str
    fix: str = ""


def verify_bundle(bundle: Path, machine: str) -> List[Finding]:
    """Check hashes, the arrays against the preprocess, and each artefact's golden outputs.

    Args:
        bundle: the folder.
        machine: ``platform.machine()`` of this machine; artefacts for another one are skipped.

    Raises:
        BundleError: the folder is no bundle, or its files are not what the manifest says; then
            nothing else in it is looked at.
    """
    manifest = verify_files(bundle)
    count = sum(1 for _ in all_entries(manifest))
    return [
        Finding("files", "ok", f"{count} files, all as sealed"),
        _arrays(bundle, manifest),
        *(_artefact(bundle, manifest, a, machine) for a in manifest.artefacts),
    ]


def _arrays(bundle: Path, manifest: Manifest) -> Finding:
    size = manifest.preprocess.size
    try:
        read_array(bundle, manifest.golden_images, "uint8", (-1, *size, 3))
        chosen = manifest.evaluation
        if chosen is not None:
            read_array(bundle, chosen.images, "uint8", (chosen.n, *size, 3))
            labels = read_array(bundle, chosen.labels, "int64", (chosen.n,))
            _check_labels(bundle / chosen.labels, labels, len(manifest.labels))
    except BundleError as error:
        return Finding("preprocess", "failed", error.what, error.fix)
    images = 0 if chosen is None else chosen.n
    return Finding("preprocess", "ok", f"{size[0]}x{size[1]}, {images} evaluation images")


def _check_labels(place: Path, labels: Any, classes: int) -> None:
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise BundleError(f"{place}: holds labels outside 0..{classes - 1}", REMAKE)


def _artefact(bundle: Path, manifest: Manifest, artefact: Artefact, machine: str) -> Finding:
    try:
        profile = read_profile(bundle, manifest, artefact)
        if profile.machine != machine:
            return Finding(artefact.name, "skipped", f"is for {profile.machine}, this is {machine}")
        missing = _missing_runtime(artefact)
        if missing is not None:
            return missing
        return _golden(bundle, manifest, artefact, profile)
    except EdgexferError as error:
        return Finding(artefact.name, "failed", error.what, error.fix)


def _missing_runtime(artefact: Artefact) -> Optional[Finding]:
    try:
        get_backend(artefact.backend)
    except BackendError as error:
        return Finding(artefact.name, "skipped", error.what, error.fix)
    return None


def _golden(
    bundle: Path, manifest: Manifest, artefact: Artefact, profile: HardwareProfile
) -> Finding:
    session = load_artefact(bundle, artefact, profile, get_backend(artefact.backend))
    try:
        check_session(session, manifest.preprocess, len(manifest.labels))
        found = check_golden(bundle, manifest, artefact, session)
    finally:
        session.close()
    if found is None:
        return Finding(artefact.name, "skipped", "the bundle has no golden outputs for it")
    ratio = "equal to the bit" if found.sqnr_db is None else f"{found.sqnr_db:.1f} dB"
    detail = f"golden outputs: {ratio}, {found.agreement_pct:.0f} % agreement"
    return Finding(artefact.name, "ok", detail)
