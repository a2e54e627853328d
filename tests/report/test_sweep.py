"""A sweep in words, as a table and on the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgexfer.core.errors import RunError
from edgexfer.core.stats import SeededGain
from edgexfer.core.sweep import FILE, SCHEMA, Arm, Sweep, write_sweep
from edgexfer.report.collect import collect
from edgexfer.report.page import build
from edgexfer.report.sweep import sweep_answer, sweep_lines, sweep_table
from edgexfer.report.verdict import teacher_helped

KD = Arm(
    "kd",
    ("../student", "kd/seed-1", "kd/seed-2"),
    (0, 1, 2),
    (81.8, 81.5, 82.1),
    81.8,
    (1459.0, 1460.0, 1461.0),
    SeededGain(0.8, 0.2, 1.4, 3, 10_000),
)
DKD = replace(KD, name="dkd", gain=SeededGain(0.1, -0.4, 0.6, 3, 10_000))
HARD = replace(KD, name="hard", gain=SeededGain(-1.0, -1.5, -0.5, 3, 10_000))
CONTROL = Arm(
    "control",
    ("../control", "control/seed-1", "control/seed-2"),
    (0, 1, 2),
    (81.0, 81.1, 80.9),
    81.0,
    (2000.0, 2000.0, 2000.0),
)
SWEEP = Sweep(SCHEMA, "resnet8", 84.0, 10_000, "control", (KD, DKD, HARD, CONTROL))


def test_each_loss_has_its_verdict_against_the_control() -> None:
    said = sweep_answer(SWEEP)
    assert said == (
        "Did the teacher help the student? With 3 seeds: "
        "kd helps (+0.80 points, 95 % interval +0.20 to +1.40); "
        "dkd no difference shown (+0.10 points, 95 % interval −0.40 to +0.60); "
        "hard hurts (−1.00 points, 95 % interval −1.50 to −0.50)."
    )


def test_the_table_has_every_figure_and_what_it_rests_on() -> None:
    lines = sweep_table(SWEEP).splitlines()
    assert lines[2].split() == [
        *("kd", "81.80", "%", "81.80", "81.50", "82.10", "+0.80", "+0.20", "to", "+1.40"),
        *("helps", "1459", "1460", "1461"),
    ]
    assert "baseline" in lines[5] and "+" not in lines[5]
    assert "10\u202f000 test images and 3 seeds" in lines[6]
    assert "for other seeds and other images" in lines[6]


def test_one_seed_claims_nothing_of_other_seeds() -> None:
    arms = tuple(
        replace(arm, seeds=(0,), top1_pct=arm.top1_pct[:1]) for arm in (replace(KD, gain=None), DKD)
    )
    sweep = replace(SWEEP, baseline="kd", arms=arms)
    assert "one seed says nothing of other seeds" in sweep_table(sweep)
    assert sweep_answer(sweep) is None
    assert [line.key for line in sweep_lines(sweep)] == ["A", "B"]


def test_the_report_shows_a_sweep(tmp_path: Path) -> None:
    hostile = replace(SWEEP, arms=(replace(KD, name="<script>alert(1)</script>"), CONTROL))
    write_sweep(tmp_path, hostile)
    found = collect([tmp_path])
    assert [s.sweep for s in found.sweeps] == [hostile]
    said = teacher_helped(found)
    assert said is not None and "helps (+0.80 points" in said
    page = build([tmp_path], tmp_path / "report.html").read_text()
    assert "Ways of training resnet8, compared" in page
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert page.count("<figure>") == 1


def test_a_damaged_sweep_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(RunError, match=FILE):
        collect([tmp_path])
