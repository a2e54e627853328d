"""The choice of a target's precision: what was tried, how fast it was, and the verdict in words.

Nothing is made or measured here. The rule of ties is ``core/fastest``, shared with the report; the
limits that a candidate has met before it comes here are in ``parity.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgexfer.core.bundle import Artefact, Candidate, Choice, Rung
from edgexfer.core.fastest import Timed, fastest, is_tie, speed_ratio
from edgexfer.core.profile import HardwareProfile

REFERENCE = "fp32"
# Processes that differ by more were disturbed: alone, those of one artefact differ by 5 to 20 %.
RESTLESS = 1.25


@dataclass(frozen=True)
class Tried:
    """One precision of a target after the ladder.

    Attributes:
        precision: what was asked.
        artefact: what passed; ``None`` where nothing did.
        rung: how it compares with the model; ``None`` where nothing passed.
        outcome: ``refused`` or ``skipped`` where nothing passed.
        reason: why it did not.
    """

    precision: str
    artefact: Artefact | None = None
    rung: Rung | None = None
    outcome: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Measurement:
    """What a short benchmark gave.

    Attributes:
        medians_ns: by artefact, the median latency of each fresh process; empty where nothing was
            measured.
        cpu: the processor, or the board and its address.
        doubts: what disturbed it.
        obstacle: why there is none.
        board: address of the board that was to measure; ``None`` for this machine.
    """

    medians_ns: Mapping[str, tuple[float, ...]]
    cpu: str | None = None
    doubts: tuple[str, ...] = ()
    obstacle: str | None = None
    board: str | None = None


def choose(
    profile: HardwareProfile, model: str, tried: Sequence[Tried], measured: Measurement
) -> Choice:
    """Choose the fastest precision of those that passed, and say why.

    Args:
        profile: the target.
        model: name of the architecture, for the verdict.
        tried: every precision of the target; at least one passed.
        measured: their latencies.
    """
    passed = [t for t in tried if t.artefact is not None]
    notes = _left_out(tried)
    if len(passed) == 1:
        taken = passed[0].precision
        notes[taken] = f"{_name(passed[0])} chosen: no other precision is left"
        notes[taken] += _doubt(passed[0])
    elif measured.obstacle is not None:
        return _undecided(profile, tried, measured, notes)
    else:
        timed = [_timed(t, measured) for t in _most_exact_first(passed)]
        best, tied = fastest(timed)
        taken = best.name
        notes |= _compared(f"on {measured.board or 'this CPU'} for {model}", timed, best, tied)
        notes[taken] += _doubt(next(t for t in passed if t.precision == taken))
        widest = max(t.spread for t in timed)
        if widest > RESTLESS:
            notes[taken] += f"; on a restless machine, where processes differ {widest:.1f} times"
    # What was chosen stands last, where the eye ends.
    order = sorted(notes, key=lambda precision: precision == taken)
    candidates = tuple(
        _candidate(t, _outcome(t, taken), notes[t.precision], measured)
        for t in _preferred(profile, tried)
    )
    spoken = [notes[p] for p in order if p == taken or p != REFERENCE]
    return Choice(
        target=profile.name,
        chosen=taken,
        verdict="; ".join(spoken),
        measured_on=measured.cpu if len(passed) > 1 else None,
        doubts=measured.doubts if len(passed) > 1 else (),
        candidates=candidates,
    )


def all_kept(
    profiles: Sequence[HardwareProfile], tried: Mapping[str, Sequence[Tried]]
) -> tuple[Choice, ...]:
    """Say what is missing or undecided where nothing is to be chosen; else nothing of a target.

    Args:
        profiles: the targets.
        tried: by target every precision of it.
    """
    found = []
    for profile in profiles:
        notes = _left_out(tried[profile.name])
        said = [*notes.values(), *_doubts(tried[profile.name])]
        if said:
            found.append(_choice_of_none(profile, tried[profile.name], "; ".join(said), notes))
    return tuple(found)


def undecided(rung: Rung) -> str | None:
    """Repeat what the images could not decide of a drop; ``None`` where they decided."""
    note = next((note for note in rung.notes if "undecidable" in note), None)
    if note is None or rung.drop_pt is None:
        return None
    interval = f"95 % interval {rung.drop_low_pt:.2f} to {rung.drop_high_pt:.2f}"
    return f"{note} ({rung.drop_pt:.2f} points lost, {interval})"


def _left_out(tried: Sequence[Tried]) -> dict[str, str]:
    return {t.precision: f"{_name(t)} left out: {t.reason}" for t in tried if t.artefact is None}


def _undecided(
    profile: HardwareProfile,
    tried: Sequence[Tried],
    measured: Measurement,
    notes: Mapping[str, str],
) -> Choice:
    names = [_name(t) for t in _preferred(profile, tried) if t.artefact is not None]
    stay = f"{', '.join(names[:-1])} and {names[-1]} stay, a bench on the device decides"
    where = f"on {measured.board}" if measured.board else "here"
    said = f"not measured {where} ({measured.obstacle}): {stay}"
    verdict = "; ".join([*notes.values(), said, *_doubts(tried)])
    return _choice_of_none(profile, tried, verdict, notes)


def _choice_of_none(
    profile: HardwareProfile, tried: Sequence[Tried], verdict: str, notes: Mapping[str, str]
) -> Choice:
    nothing = Measurement({})
    candidates = tuple(
        _candidate(t, t.outcome or "kept", notes.get(t.precision, ""), nothing)
        for t in _preferred(profile, tried)
    )
    return Choice(profile.name, None, verdict, None, (), candidates)


def _compared(
    where: str, timed: Sequence[Timed], best: Timed, tied: Sequence[Timed]
) -> dict[str, str]:
    """Say of each precision how fast it was beside the reference, and of the best why it is it."""
    base = next((t for t in timed if t.name == REFERENCE), max(timed, key=lambda t: t.median_ns))
    found = {}
    for one in timed:
        beside = f"{speed_ratio(one, base):.2f} times the speed of {base.name.upper()}"
        name = one.name.upper()
        if one is best:
            continue
        if one is base:
            found[one.name] = f"{name} kept, the reference"
        elif one in tied:
            found[one.name] = f"{name} is as fast as {best.name.upper()} {where}, and no smaller"
        elif is_tie(one, base) or speed_ratio(one, base) < 1:
            found[one.name] = f"{name} does not pay {where}: {beside}"
        else:
            found[one.name] = f"{name} is slower than {best.name.upper()} {where}: {beside}"
    others = any(name != REFERENCE for name in found)
    chosen = f"{best.name.upper()} chosen" + ("" if others else f" {where}")
    if best is base:
        found[best.name] = chosen
        return found
    found[best.name] = f"{chosen}: {speed_ratio(best, base):.2f} times the speed of "
    found[best.name] += base.name.upper()
    if base in tied:
        found[best.name] += ", no more than the processes differ by, and smaller"
    return found


def _doubt(tried: Tried) -> str:
    """Say what the images could not decide of the precision that is chosen."""
    said = undecided(tried.rung) if tried.rung is not None else None
    return f"; its {said}" if said else ""


def _doubts(tried: Sequence[Tried]) -> list[str]:
    """Say it of every precision that stays."""
    found = [(_name(t), undecided(t.rung)) for t in tried if t.rung is not None]
    return [f"{name}: {said}" for name, said in found if said]


def _timed(tried: Tried, measured: Measurement) -> Timed:
    assert tried.artefact is not None, "only what passed is measured"
    size = sum(entry.bytes for entry in tried.artefact.files)
    return Timed(tried.precision, measured.medians_ns[tried.artefact.name], size)


def _candidate(tried: Tried, outcome: str, reason: str, measured: Measurement) -> Candidate:
    artefact, rung = tried.artefact, tried.rung
    return Candidate(
        precision=tried.precision,
        outcome=outcome,
        reason=reason,
        medians_ns=measured.medians_ns.get(artefact.name, ()) if artefact else (),
        size_bytes=sum(entry.bytes for entry in artefact.files) if artefact else None,
        drop_pt=rung.drop_pt if rung else None,
        drop_high_pt=rung.drop_high_pt if rung else None,
    )


def _outcome(tried: Tried, taken: str) -> str:
    if tried.artefact is None:
        return tried.outcome
    if tried.precision == taken:
        return "chosen"
    return "kept" if tried.precision == REFERENCE else "dropped"


def _most_exact_first(tried: Sequence[Tried]) -> list[Tried]:
    """Order candidates so that of two that are equal in speed and size the more exact wins."""
    order = ("fp32", "fp16", "bf16", "int8")
    return sorted(tried, key=lambda t: order.index(t.precision))


def _preferred(profile: HardwareProfile, tried: Sequence[Tried]) -> list[Tried]:
    return sorted(tried, key=lambda t: [*profile.precisions, REFERENCE].index(t.precision))


def _name(tried: Tried) -> str:
    return tried.precision.upper()
