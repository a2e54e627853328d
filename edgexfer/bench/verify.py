"""Is a bundle whole, and does it compute here what it computed where it was sealed?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, List, Optional, Sequence

from edgexfer.bench.feed import check_session, read_array
from edgexfer.bench.golden import check_golden
from edgexfer.bench.job import load_artefact, read_profile
from edgexfer.bench.tasks import right
from edgexfer.core.backend import get_backend
from edgexfer.core.bundle import REMAKE, Artefact, Manifest, all_entries, verify_files
from edgexfer.core.distributions import binomial_at_most
from edgexfer.core.errors import BackendError, BundleError, EdgexferError
from edgexfer.core.profile import HardwareProfile
from edgexfer.core.tasks import spans

LABELS = "labels.txt"
# Golden answers that fit the labels so rarely are no bad luck.
_IMPROBABLE = 1e-6


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


def nothing_ran(findings: Sequence[Finding]) -> str:
    """Say that no artefact could run, and what would let one; empty where one has been run."""
    artefacts = [f for f in findings if f.name not in ("files", "preprocess")]
    if any(f.status != "skipped" for f in artefacts):
        return ""
    fixes = list(dict.fromkeys(f.fix for f in artefacts if f.fix))
    fixes.append("type `python3 edgexfer.pyz verify .` on the device, or --on ssh:HOST here")
    return f"nothing could run here, so nothing was computed: {'; or '.join(fixes)}"


def _arrays(bundle: Path, manifest: Manifest) -> Finding:
    size = manifest.preprocess.size
    try:
        _check_names(bundle / LABELS, manifest)
        golden = read_array(bundle, manifest.golden_images, "uint8", (-1, *size, 3))
        chosen = manifest.evaluation
        if chosen is not None:
            images = read_array(bundle, chosen.images, "uint8", (chosen.n, *size, 3))
            labels = read_array(bundle, chosen.labels, "int64", manifest.labels_shape(chosen.n))
            _check_labels(bundle / chosen.labels, labels, manifest)
            places = _places(bundle / manifest.golden_images, golden, images)
            _check_answers(bundle, manifest, labels[places])
    except BundleError as error:
        return Finding("preprocess", "failed", error.what, error.fix)
    count = 0 if chosen is None else chosen.n
    return Finding("preprocess", "ok", f"{size[0]}x{size[1]}, {count} evaluation images")


def _check_names(place: Path, manifest: Manifest) -> None:
    """Compare the manifest's class names with the file of them, where there is one."""
    if not place.is_file():
        return
    # One name per line; of what else ends a line elsewhere, a name may hold any.
    named = place.read_bytes().decode("utf-8").split("\n")
    if not named[-1]:
        named.pop()
    for i, (here, there) in enumerate(zip_longest(named, manifest.labels)):
        if here != there:
            raise BundleError(
                f"{place}: class map: output {i} is {here!r} here and {there!r} in the manifest",
                REMAKE,
            )


def _places(golden_file: Path, golden: Any, images: Any) -> List[int]:
    """Return where each golden image stands among the evaluation images it was taken from."""
    wanted = {image.tobytes() for image in golden}
    # One after another: the images are mapped, and a board need not hold them all.
    pixels = (image.tobytes() for image in images)
    at = {each: i for i, each in enumerate(pixels) if each in wanted}
    for k, image in enumerate(golden):
        if image.tobytes() not in at:
            raise BundleError(
                f"{golden_file}: image {k} is none of the evaluation images: one of both is of "
                "another geometry or another export",
                REMAKE,
            )
    return [at[image.tobytes()] for image in golden]


def _check_answers(bundle: Path, manifest: Manifest, labels: Any) -> None:
    """Compare the labels of the golden images with what the artefacts answered at the export."""
    scored = manifest.reference
    chosen = next((a for a in manifest.artefacts if a.golden is not None), None)
    if scored is None or manifest.evaluation is None or chosen is None or chosen.golden is None:
        return
    shape = (len(labels), len(manifest.labels))
    logits = read_array(bundle, chosen.golden, "float32", shape)
    count = int(right(logits, labels, manifest.tasks).sum())
    # One more of each outcome than was seen: no share is 0 or 1.
    share = (scored.correct + 1) / (scored.n + 2)
    if binomial_at_most(len(labels), count, share) < _IMPROBABLE:
        raise BundleError(
            f"{bundle / manifest.evaluation.labels}: class map: the golden outputs have "
            f"{count} of {len(labels)} labels right, where the model had {100 * share:.0f} %",
            REMAKE,
        )


def _check_labels(place: Path, labels: Any, manifest: Manifest) -> None:
    columns = labels.reshape(len(labels), -1).T
    for column, (start, end) in zip(columns, spans(manifest.tasks, len(manifest.labels))):
        # Of several tasks an image may lack the labels of some.
        given = column[column != -1] if manifest.tasks else column
        if len(given) and not start <= given.min() <= given.max() < end:
            raise BundleError(f"{place}: holds labels outside {start}..{end - 1}", REMAKE)


def _artefact(bundle: Path, manifest: Manifest, artefact: Artefact, machine: str) -> Finding:
    try:
        profile = read_profile(bundle, manifest, artefact)
        if profile.machine != machine:
            return Finding(artefact.name, "skipped", f"is for {profile.machine}, this is {machine}")
        missing = _missing(artefact, profile)
        if missing is not None:
            return missing
        return _golden(bundle, manifest, artefact, profile)
    except EdgexferError as error:
        return Finding(artefact.name, "failed", error.what, error.fix)


def _missing(artefact: Artefact, profile: HardwareProfile) -> Optional[Finding]:
    """Say what this machine lacks for an artefact: the runtime, or a float type."""
    try:
        backend = get_backend(artefact.backend)
    except BackendError as error:
        return Finding(artefact.name, "skipped", error.what, error.fix)
    # OpenVINO alone is told the float type when it loads; others find it in the file.
    lacks = getattr(backend, "lacks", None)
    reason = lacks(artefact.precision, profile.device) if lacks is not None else None
    return None if reason is None else Finding(artefact.name, "skipped", reason)


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
