"""What ``edgexfer advise`` found, as text for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgexfer.report.columns import aligned
from edgexfer.report.words import MISSING, significant, size

if TYPE_CHECKING:
    from edgexfer.advise.advice import Advice
    from edgexfer.advise.layers import Depth, Probe
    from edgexfer.advise.ranking import Ranking
    from edgexfer.advise.students import Student


def advice_lines(found: Advice) -> list[str]:
    """Return tables of sources, layers and students, each with what it says."""
    looked, total = found.images
    lines = [f"{found.classes} classes, {total} training images, {looked} looked at"]
    if found.rankings:
        lines += ["", *_source_lines(found.rankings)]
    lines.append(found.decision)
    if found.depth is not None:
        lines += ["", f"Layers of {found.chosen}:", *_layer_lines(found.depth), found.depth.verdict]
    if found.distance is not None:
        lines += ["", found.distance.verdict]
    if found.students:
        lines += ["", *_student_lines(found.students)]
    lines += ["", f"Strategy: {found.choice.strategy}; {found.choice.why}."]
    return [*lines, *(f"note: {note}" for note in found.notes)]


def _source_lines(rankings: tuple[Ranking, ...]) -> list[str]:
    """Return one row for each source; an asterisk marks what cannot be told from a score's best."""
    cells: dict[str, dict[str, str]] = {}
    for ranking in rankings:
        for score in ranking.scores:
            row = cells.setdefault(score.source, {"source": score.source})
            row[ranking.score] = MISSING
            if score.value is not None and score.high is not None:
                mark = "*" if score.source in ranking.tied else " "
                row[ranking.score] = f"{score.value:.3f} ±{score.high - score.value:.3f}{mark}"
    heads = ["source", *(ranking.score for ranking in rankings)]
    return [*aligned(heads, list(cells.values()), {"source"}), "* first, or not told from it"]


def _layer_lines(depth: Depth) -> list[str]:
    rows = [
        {
            "layer": probe.layer,
            "features": str(probe.features),
            "probe": f"{probe.top1_pct:.1f} %",
            "95 % interval": f"{probe.low_pct:.1f} to {probe.high_pct:.1f}",
            "behind the best": "best" if probe.layer == depth.best else _behind(probe),
        }
        for probe in depth.probes
    ]
    return aligned(list(rows[0]), rows, {"layer"})


def _behind(probe: Probe) -> str:
    interval = f"{probe.behind_low_pt:+.1f} to {probe.behind_high_pt:+.1f}"
    return f"{probe.behind_pt:.1f} points ({interval})"


def _student_lines(students: tuple[Student, ...]) -> list[str]:
    rows = [
        {
            "student": student.name,
            "measured, FP32": _ms(student.measured_ms),
            "bound": _ms(student.bound_ms),
            "precision": student.precision,
            "weights": size(student.weight_bytes),
            "MACs": f"{significant(student.macs / 1e6)} M",
            "memory": MISSING
            if student.memory_pct is None
            else f"{significant(student.memory_pct, 2)} %",
            "note": student.reason,
        }
        for student in students
    ]
    return aligned(list(rows[0]), rows, {"student", "precision", "note"})


def _ms(value: float | None) -> str:
    return MISSING if value is None else f"{significant(value)} ms"
