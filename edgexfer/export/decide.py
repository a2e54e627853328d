"""From what was tried for each target to what the bundle keeps: measure, choose, drop the rest.

The choice itself, and its words, are in ``choose.py``; the short benchmark is in ``measure.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgexfer.core.bundle import Manifest
from edgexfer.core.errors import ParityError, QuantizerError
from edgexfer.core.profile import HardwareProfile
from edgexfer.export.choose import REFERENCE, Measurement, Tried, choose
from edgexfer.export.ladder import GOLDEN_IMAGES, Ladder
from edgexfer.export.lower import Lowering, cannot_check
from edgexfer.export.measure import Board, elsewhere, measure, measure_on


def attempt(ladder: Ladder, profile: HardwareProfile, precision: str, asked: str) -> Tried:
    """Make one artefact; where others may take its place, say what is wrong with it instead.

    Args:
        ladder: makes and checks it.
        profile: the target.
        precision: one of its precisions.
        asked: ``auto``, ``all`` or a precision, as the user has it.

    Raises:
        ParityError: it differs too much from the model and was asked for, or is FP32.
        QuantizerError: its quantizer fails on the model, and it was asked for.
        BackendError: a runtime is missing, or refuses the file.
    """
    reason = cannot_check(profile, precision) if asked in ("auto", "all") else None
    if reason is not None:
        return Tried(precision, outcome="skipped", reason=reason)
    try:
        artefact = ladder.climb(profile, precision)
    except (ParityError, QuantizerError) as error:
        if asked != "auto" or precision == REFERENCE:
            raise
        return Tried(precision, outcome="refused", reason=error.what.removeprefix("parity: "))
    return Tried(precision, artefact, ladder.rungs[-1])


def refuse_empty(tried: Mapping[str, Sequence[Tried]]) -> None:
    """Refuse an export that has made nothing for one of its targets.

    Args:
        tried: by target what was tried.

    Raises:
        ParityError: nothing has passed for a target, which can be where it has no FP32.
    """
    for name, candidates in tried.items():
        if all(t.artefact is None for t in candidates):
            raise ParityError(
                f"{name}: no precision is left ({'; '.join(t.reason for t in candidates)})",
                "allow more (--max-drop), or choose another target",
            )


def decide(
    folder: Path,
    manifest: Manifest,
    profiles: Sequence[HardwareProfile],
    tried: Mapping[str, Sequence[Tried]],
    board: Board | None = None,
) -> Manifest:
    """Choose a precision for each target, by measuring here those that are this machine.

    Args:
        folder: the export in the making.
        manifest: of it, with all that was made and every file listed.
        profiles: the targets whose precision is to be chosen.
        tried: by target what was tried, of which something has passed.
        board: measures the others; ``None`` leaves their choice open.

    Returns:
        The manifest with the choices, and without the artefacts that lost.
    """
    passed = {p.name: [t for t in tried[p.name] if t.artefact is not None] for p in profiles}
    away = {p.name: elsewhere(p) for p in profiles if len(passed[p.name]) > 1}
    here = [name for name, reason in away.items() if reason is None]
    far = [p for p in profiles if away.get(p.name) is not None]
    times = dict.fromkeys(here, measure(folder, manifest, here)) if here else {}
    if board is not None and far:
        times |= measure_on(board, folder, manifest, far)
    else:
        times |= {p.name: Measurement({}, obstacle=away[p.name]) for p in far}
    choices = tuple(
        choose(p, manifest.model, tried[p.name], times.get(p.name, Measurement({})))
        for p in profiles
    )
    lost = {(c.target, x.precision) for c in choices for x in c.candidates if x.lost}
    kept = tuple(a for a in manifest.artefacts if (a.target, a.precision) not in lost)
    return replace(manifest, artefacts=kept, choices=choices)


def drop_losers(folder: Path, manifest: Manifest, lowering: Lowering) -> None:
    """Delete models and golden outputs of artefacts that are not in the manifest."""
    kept = {GOLDEN_IMAGES}
    kept |= {entry.path for artefact in manifest.artefacts for entry in artefact.files}
    kept |= {artefact.golden for artefact in manifest.artefacts if artefact.golden}
    for place in (*lowering.leaves(), *(folder / GOLDEN_IMAGES).parent.iterdir()):
        if place.relative_to(folder).as_posix() not in kept:
            place.unlink()
