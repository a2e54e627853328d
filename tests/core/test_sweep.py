"""The sweep's file: what is written is read, and what is not one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgexfer.core.errors import RunError
from edgexfer.core.files import read_json, write_json
from edgexfer.core.stats import SeededGain
from edgexfer.core.sweep import FILE, SCHEMA, Arm, Sweep, read_sweep, write_sweep

SWEEP = Sweep(
    schema=SCHEMA,
    student="resnet8",
    teacher_top1_pct=84.0,
    n=1000,
    baseline="control",
    arms=(
        Arm(
            "kd",
            ("../student", "kd/seed-1"),
            (0, 1),
            (81.0, 82.0),
            81.5,
            (1000.0, 1010.0),
            SeededGain(0.5, -0.1, 1.1, 2, 1000),
        ),
        Arm("control", ("../control",), (0,), (81.0,), 81.0, (2000.0,)),
    ),
)


def test_a_sweep_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_sweep(tmp_path, SWEEP)
    assert read_sweep(tmp_path) == SWEEP


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no sweep\.json") as caught:
        read_sweep(tmp_path)
    assert "--seeds" in caught.value.fix


def test_a_sweep_of_another_schema_is_refused(tmp_path: Path) -> None:
    write_sweep(tmp_path, SWEEP)
    write_json(tmp_path / FILE, {**read_json(tmp_path / FILE), "schema": "edgexfer.sweep/9"})
    with pytest.raises(RunError, match=r"edgexfer\.sweep/9"):
        read_sweep(tmp_path)
