"""What a sweep over seeds and losses shows, as a table and in sentences."""

from __future__ import annotations

import string
from dataclasses import dataclass

from edgexfer.core.stats import SeededGain
from edgexfer.core.sweep import CONTROL, SCRATCH, Arm, Sweep
from edgexfer.report import words
from edgexfer.report.columns import aligned

_HEADS = ("trained by", "accuracy", "of each seed", "gain", "95 % interval", "verdict", "images/s")
_LEFT = {"trained by", "verdict"}


@dataclass(frozen=True)
class Line:
    """One way of training, as it is shown.

    Attributes:
        key: its letter in a drawing.
        cells: its figures, by the heads of the table.
    """

    key: str
    cells: dict[str, str]


def sweep_lines(sweep: Sweep) -> list[Line]:
    """Return a line for each way of training, in the sweep's order."""
    return [Line(_letter(i), _cells(sweep, arm)) for i, arm in enumerate(sweep.arms)]


def sweep_table(sweep: Sweep) -> str:
    """Return a sweep as a text table with what it rests on below, without a final line break."""
    rows = [line.cells for line in sweep_lines(sweep)]
    return "\n".join([*aligned(_HEADS, rows, _LEFT), sweep_basis(sweep)])


def sweep_basis(sweep: Sweep) -> str:
    """Return in one sentence what the intervals of a sweep hold for."""
    against = {
        CONTROL: "the control (labels alone)",
        SCRATCH: "the same model from scratch",
    }.get(sweep.baseline, sweep.baseline)
    seeds = max(len(arm.seeds) for arm in sweep.arms)
    scope = (
        "for other seeds and other images of the kind"
        if seeds > 1
        else "for other images of the kind; one seed says nothing of other seeds"
    )
    return (
        f"Gains are points of top-1 accuracy over {words.clean(against, 60)}, on "
        f"{words.count(sweep.n, 'test image')} and {words.count(seeds, 'seed')}; each interval "
        f"holds {scope}."
    )


def sweep_answer(sweep: Sweep) -> str | None:
    """Say whether the teacher or the transfer helped; ``None`` where there was no control."""
    question = {
        CONTROL: "Did the teacher help the student?",
        SCRATCH: "Did the source weights help?",
    }.get(sweep.baseline)
    if question is None:
        return None
    said = [f"{_name(arm)} {_conclusion(arm.gain)}" for arm in sweep.arms if arm.gain is not None]
    seeds = words.count(max(len(arm.seeds) for arm in sweep.arms), "seed")
    return f"{question} With {seeds}: {'; '.join(said)}."


def _name(arm: Arm) -> str:
    name = words.clean(arm.name, 40)
    return name if arm.task is None else f"{name}, in {words.clean(arm.task, 40)}"


def _conclusion(gain: SeededGain) -> str:
    interval = f"{_signed(gain.low_pt)} to {_signed(gain.high_pt)}"
    return f"{gain.verdict} ({_signed(gain.gain_pt)} points, 95 % interval {interval})"


def _cells(sweep: Sweep, arm: Arm) -> dict[str, str]:
    gain = arm.gain
    return {
        "trained by": _name(arm),
        "accuracy": f"{arm.mean_pct:.2f} %",
        "of each seed": " ".join(f"{v:.2f}" for v in arm.top1_pct),
        "gain": _signed(gain.gain_pt) if gain else words.MISSING,
        "95 % interval": f"{_signed(gain.low_pt)} to {_signed(gain.high_pt)}"
        if gain
        else words.MISSING,
        "verdict": gain.verdict if gain else "baseline" if arm.name == sweep.baseline else "",
        "images/s": " ".join(f"{v:.0f}" for v in arm.images_per_s),
    }


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "−")


def _letter(number: int) -> str:
    letters = string.ascii_uppercase
    return letters[number] if number < len(letters) else str(number + 1)
