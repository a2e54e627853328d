"""The verdict in plain words: which artefact to take, what it costs, whether the teacher helped.

Every claim of a difference rests on an interval; where the interval holds zero, the verdict says
that no difference was shown. Nothing is drawn or laid out here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgexfer.core.fastest import fastest
from edgexfer.report import words
from edgexfer.report.collect import Found, FoundRun
from edgexfer.report.compare import Drop, drop_between, drop_from_fp32, run_gain
from edgexfer.report.rows import Group, Row, upper_of
from edgexfer.report.sweep import sweep_answer

DEFAULT_LIMIT_PT = 1.0


@dataclass(frozen=True)
class Verdict:
    """What to conclude of one group of comparable records.

    Attributes:
        headline: one sentence.
        sentences: what stands behind it.
        figures: ``(value, what it is)`` for the eye.
        best: the artefact to take; ``None`` where none may be recommended.
        words: what it makes of each row, by key, in a word or two.
    """

    headline: str
    sentences: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    best: Row | None
    words: Mapping[str, str]


def judge(found: Found, group: Group) -> Verdict:
    """Choose the fastest artefact that stays within its limit of accuracy, and say why.

    Of those that are as fast, within what their processes differ by, the smallest is taken.
    The limit is what the export was asked for (``max_drop``), else the profile's
    ``accuracy_drop_pt``, else 1 point, against the FP32 artefact of the
    same bundle. The teacher is what is compared with, not a candidate.
    """
    candidates = [r for r in group.usable if r.record.accuracy and r is not group.reference]
    # Where the teacher is all there is, it is the one to judge.
    candidates = candidates or [r for r in group.usable if r.record.accuracy]
    judged = [(row, drop_from_fp32(found, group, row)) for row in candidates]
    within = [(r, d) for r, d in judged if d is not None and d.drop_pt <= limit_of(r)]
    if not within:
        said = {row.key: _word(row, judged) for row in group.rows}
        return Verdict(_none_headline(group, judged), (), (), None, said)
    rows = {row.key: row for row, _ in within}
    taken, tied = fastest([row.timed for row in rows.values()])
    best, ties = rows[taken.name], [rows[other.name] for other in tied]
    drop = next(d for row, d in within if row is best)
    doubtful = best.record.status == "partial"
    sentences = [f"Its measurement is not beyond doubt: {_reasons(best)}."] if doubtful else []
    sentences += [_measured(best), _kept(best, drop)]
    sentences += _ties(best, ties)
    sentences += _faster_but_worse(best, [(r, d) for r, d in judged if r.key not in rows])
    sentences += _perhaps_faster(best, group.rows)
    if group.reference is not None and best is not group.reference:
        sentences.append(_against_teacher(found, group.reference, best))
    headline = f"Take {best.full_name}{', with care' if doubtful else ''}."
    said = {row.key: _word(row, judged, best, ties) for row in group.rows}
    return Verdict(headline, tuple(sentences), tuple(_figures(best)), best, said)


def teacher_helped(found: Found) -> str | None:
    """Compare the student with the control, the same student trained without the teacher.

    Returns:
        A sentence; ``None`` where there is no finished control. Where several seeds were trained
        they are what it rests on.
    """
    answers = [sweep_answer(s.sweep) for s in found.sweeps]
    if any(answers):
        return " ".join(a for a in answers if a)
    student, control = found.run_of("student"), found.run_of("control")
    if student is None or control is None:
        return None
    gain = run_gain(student, control)
    if gain is None:
        return "Whether the teacher helped is open: student or control has no test accuracy."
    scores = (
        f"{words.percent(_top1(student))} with it, {words.percent(_top1(control))} without, "
        f"on {words.count(gain.n, 'test image')}"
    )
    interval = _interval(gain)
    if not gain.shown:
        return f"Did the teacher help the student? No difference shown: {scores} ({interval})."
    answer = "Yes" if gain.drop_pt > 0 else "No, it did harm"
    size = words.points(gain.drop_pt)
    return f"Did the teacher help the student? {answer}: {scores}, {size} ({interval})."


def limit_of(row: Row) -> float:
    """Return how many points of accuracy an artefact may lose, by the rule of its export."""
    asked, own = row.record.lineage.get("export"), row.record.profile.get("limits")
    limits = (
        asked.get("max_drop") if isinstance(asked, dict) else None,
        own.get("accuracy_drop_pt") if isinstance(own, dict) else None,
    )
    return next((float(x) for x in limits if isinstance(x, (int, float))), DEFAULT_LIMIT_PT)


def accuracy_text(row: Row) -> str:
    """Return an accuracy with its interval and what it rests on."""
    a = row.record.accuracy
    if a is None:
        return words.MISSING
    return (
        f"{words.percent(a.top1_pct)} of {words.count(a.n, f'{words.clean(a.split)} image')} right "
        f"(95 % interval {words.percent(a.low_pct)} to {words.percent(a.high_pct)})"
    )


def speed_text(row: Row) -> str:
    """Return the p50 latency, or the throughput where that was measured, with its unit."""
    if row.per_s is None:
        return words.milliseconds(row.p50_ns)
    return f"{words.significant(row.per_s)} images/s"


def _measured(best: Row) -> str:
    p90 = best.record.latency.get("p90")
    upper = upper_of(p90)
    bound = f", below {words.milliseconds(upper)} with 99 % confidence" if upper else ""
    speed = (
        f"Half of its runs take at most {words.milliseconds(best.p50_ns)}, nine of ten at most "
        f"{words.milliseconds(best.p90_ns)}{bound}"
        if best.per_s is None
        else f"It does {speed_text(best)}"
    )
    return f"{speed}; {accuracy_text(best)}; its files take {words.size(best.size_bytes)}."


def _kept(best: Row, drop: Drop | None) -> str:
    limit = words.points(limit_of(best))
    if best.record.artefact.get("precision") == "fp32" or drop is None:
        return "It is not quantized, so it is its own yardstick of accuracy."
    text = f"Against FP32 it {_change(drop)} ({_interval(drop)}); up to {limit} may be lost."
    if drop.high_pt > limit_of(best):
        text += " The images are too few to exclude a larger loss."
    return text


def _ties(best: Row, ties: Sequence[Row]) -> list[str]:
    """Name those that cannot be told from the best in speed, and say why it is the best."""
    if not ties:
        return []
    verb = "is" if len(ties) == 1 else "are"
    names = words.joined([row.full_name for row in ties])
    smaller = any((row.size_bytes or 0) > (best.size_bytes or 0) for row in ties)
    why = f", and {best.full_name} is smaller" if smaller else ""
    return [f"{names} {verb} as fast, within what this measurement can tell apart{why}."]


def _faster_but_worse(best: Row, judged: Sequence[tuple[Row, Drop | None]]) -> list[str]:
    said = []
    for row, drop in judged:
        if (row.pace_ns or 0) >= (best.pace_ns or 0):
            continue
        why = (
            f"it {_change(drop)} against FP32, more than {words.points(limit_of(row))}"
            if drop is not None
            else "there is no FP32 measurement to hold its accuracy against"
        )
        said.append(f"{row.full_name} is faster ({speed_text(row)}), but not taken: {why}.")
    return said


def _perhaps_faster(best: Row, rows: Sequence[Row]) -> list[str]:
    """Name those that looked faster in records which cannot be relied on."""
    pace = best.pace_ns or 0
    doubtful = [r for r in rows if not r.usable and r.pace_ns is not None and r.pace_ns < pace]
    if not doubtful:
        return []
    names = words.joined([f"{row.full_name} ({speed_text(row)})" for row in doubtful])
    records = "its record is" if len(doubtful) == 1 else "their records are"
    return [f"{names} looked faster, but {records} invalid: measure again before you decide."]


def _against_teacher(found: Found, teacher: Row, best: Row) -> str:
    parts = []
    if best.speedup is not None:
        faster = best.speedup >= 1
        ratio = words.times(best.speedup if faster else 1 / best.speedup)
        parts.append(f"{ratio} as {'fast' if faster else 'slow'}")
    ratio_size = _ratio(teacher.size_bytes, best.size_bytes)
    if ratio_size is not None:
        smaller = ratio_size >= 1
        ratio = words.times(ratio_size if smaller else 1 / ratio_size)
        parts.append(f"{ratio} as {'small' if smaller else 'large'}")
    drop = drop_between(found, teacher, best)
    if drop is not None:
        parts.append(
            f"{_change(drop)} ({_interval(drop)})"
            if drop.shown
            else f"no difference of accuracy shown ({_interval(drop)})"
        )
    where = "in " + teacher.record.artefact.get("name", "") if not teacher.role else ""
    name = words.clean(f"{teacher.full_name} {where}".strip())
    return f"Beside {name}, measured the same way: {', '.join(parts)}."


def _none_headline(group: Group, judged: Sequence[tuple[Row, Drop | None]]) -> str:
    if not group.rows:
        return "Nothing was measured."
    if not group.usable:
        return f"No measurement is usable: {_reasons(group.rows[0])}."
    if not judged:
        return "No accuracy was measured, so no artefact can be recommended."
    return "No artefact can be recommended: none was shown to stay within its limit of accuracy."


def _figures(best: Row) -> list[tuple[str, str]]:
    figures = [
        (speed_text(best), "p50 latency" if best.per_s is None else "throughput"),
        (words.percent(best.top1_pct), "accuracy"),
        (words.size(best.size_bytes), "size"),
    ]
    if best.speedup is not None:
        figures.insert(1, (words.times(best.speedup), "as fast as the teacher"))
    return figures


def _change(drop: Drop) -> str:
    if drop.drop_pt == 0:
        return "has the same accuracy"
    return f"{'loses' if drop.drop_pt > 0 else 'gains'} {words.points(drop.drop_pt)}"


def _interval(drop: Drop) -> str:
    return f"95 % interval {words.signed(drop.low_pt)} to {words.signed(drop.high_pt)}"


def _reasons(row: Row) -> str:
    reasons = "; ".join(words.clean(r) for r in row.record.reasons)
    return reasons or f"its status is {words.clean(row.record.status)}"


def _top1(run: FoundRun) -> float:
    test = run.info.result["test"]
    return float(100 * test["correct"] / test["n"])


def _word(
    row: Row,
    judged: Sequence[tuple[Row, Drop | None]],
    best: Row | None = None,
    ties: Sequence[Row] = (),
) -> str:
    """Say what a verdict makes of a row."""
    if not row.usable:
        return "not usable"
    if row is best:
        return "take, with care" if row.record.status == "partial" else "take"
    if row in ties:
        return "as fast"
    drops = [drop for candidate, drop in judged if candidate is row]
    if not drops:
        return "compared with" if row.record.accuracy else "accuracy unknown"
    if drops[0] is None:
        return "loss unknown"
    if drops[0].drop_pt > limit_of(row):
        return "loses too much"
    assert best is not None, "what is within its limit can be taken"
    return f"{words.times((row.pace_ns or 0.0) / (best.pace_ns or 1.0))} as slow"


def _ratio(over: int | None, under: int | None) -> float | None:
    return over / under if over and under else None
