"""What a report says of records that are to be measured again, and of which it says nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgexfer.core.record import Record, write_record
from edgexfer.report.again import mend
from edgexfer.report.page import build
from tests.report.synthetic import STUDENT, make_record

MOVED = "nonstationary: the level changes by +7 % at sample 310 (in 1 of 5 processes)"
SET = "clock: it was set by +12.0 ms meanwhile"
HOT = "throttled: soft temperature limit"
WRONG = "3 of 64 outputs of the timed run differ from the accuracy run's, first for input 2"


def record_of(*reasons: str, status: str = "invalid", seconds: float = 4.0) -> Record:
    made = make_record(replace(STUDENT[0], status=status, reasons=reasons))
    lasting = {"elapsed_ns": round(1e9 * seconds)}
    runs = [
        replace(run, noise=lasting, cold_start=replace(run.cold_start, total_ns=1_000_000_000))
        for run in made.processes
    ]
    return replace(made, processes=tuple(runs))


def test_it_says_what_to_do_when_and_how_long_it_takes() -> None:
    said = mend([record_of(MOVED), record_of(SET, MOVED), record_of(status="ok")], "Do it again")
    assert said == (
        "2 records spoilt: the machine was not steady meanwhile. "
        "Do it again when nothing else runs on the machine; it takes about 40 s."
    )
    long = mend([record_of(HOT, seconds=120)], "Do it again")
    assert long == (
        "1 record spoilt: the machine was throttled meanwhile. Do it again when the machine is "
        "cool and nothing else runs on it; it takes about 6 min."
    )


@pytest.mark.parametrize(
    ("status", "reasons"),
    [("ok", ()), ("partial", (MOVED,)), ("failed", (MOVED,)), ("invalid", (MOVED, WRONG))],
)
def test_what_another_measurement_would_not_mend_is_left_alone(
    status: str, reasons: tuple[str, ...]
) -> None:
    assert mend([record_of(*reasons, status=status)], "Do it again") == ""


def test_the_report_says_it_once_for_what_was_measured_side_by_side(tmp_path: Path) -> None:
    for number, suite in enumerate(("one", "one", "two", "two")):
        moved = suite == "one"
        made = record_of(*[MOVED] * moved, status="invalid" if moved else "ok")
        settings = {**made.settings, "suite": suite}
        write_record(tmp_path / f"{number}.json", replace(made, settings=settings))
    page = build([tmp_path], tmp_path / "r.html")
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert text.count("2 records spoilt: the machine was not steady meanwhile.") == 1
        assert "Measure again (edgexfer bench) when nothing else runs" in text
