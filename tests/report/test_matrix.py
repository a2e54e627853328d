"""Which records come into one row and one column of the table of a fleet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgexfer.core.record import Record
from edgexfer.report import view
from edgexfer.report.collect import Found, FoundRecord
from edgexfer.report.view import Fleet
from tests.report.synthetic import STUDENT, make_record


def on(cpu: str, record: Record | None = None, **changes: Any) -> Record:
    found = record or make_record(STUDENT[0])
    return replace(found, device={**found.device, "cpu": cpu}, **changes)


def fleets(*records: Record) -> list[Fleet]:
    found = Found("made", records=[FoundRecord(Path("r.json"), r) for r in records])
    return view.fleets(*view.make_sections(found))


def shown(fleet: Fleet) -> dict[str, list[list[str]]]:
    """Return by artefact and machine the CPUs of the records that stand there."""
    [matrix] = fleet.matrices
    return {
        line.first.artefact: [[r.record.device["cpu"] for r in rows] for rows in line.cells]
        for line in matrix.lines
    }


def test_an_artefact_is_a_row_and_a_machine_a_column() -> None:
    both = [on(cpu, make_record(spec)) for cpu in ("One", "Two") for spec in STUDENT[:2]]
    [fleet] = fleets(*both, on("Two", make_record(STUDENT[2])))
    assert shown(fleet) == {
        "x86-onnxruntime-int8": [["One"], ["Two"]],
        "x86-onnxruntime-fp32": [["One"], ["Two"]],
        "x86-openvino-fp32": [[], ["Two"]],
    }


def test_what_was_measured_again_stands_in_the_same_cell() -> None:
    [fleet] = fleets(on("One"), on("One"), on("Two"))
    assert shown(fleet) == {"x86-onnxruntime-fp32": [["One", "One"], ["Two"]]}


def test_another_precision_or_another_file_of_the_same_name_is_another_row() -> None:
    first = on("One")
    for change in ({"precision": "fp16"}, {"sha256": "f" * 64}):
        other = on("Two", artefact={**first.artefact, **change})
        [fleet] = fleets(first, other)
        [matrix] = fleet.matrices
        assert [[len(rows) for rows in line.cells] for line in matrix.lines] == [[1, 0], [0, 1]]


def test_another_scenario_or_definition_is_no_machine_of_the_fleet() -> None:
    plain, other = [on("One"), on("Two")], on("Three")
    settings = {**other.settings, "scenario": "sustained"}
    for odd in (replace(other, settings=settings), replace(other, definitions="metrics/1")):
        [fleet] = fleets(*plain, odd)
        assert shown(fleet) == {"x86-onnxruntime-fp32": [["One"], ["Two"]]}
    assert fleets(on("One"), replace(other, definitions="metrics/1")) == []


def test_many_machines_take_several_tables() -> None:
    [fleet] = fleets(*(on(f"CPU {n}") for n in range(8)))
    assert [len(matrix.sections) for matrix in fleet.matrices] == [6, 2]
    assert [len(line.cells) for m in fleet.matrices for line in m.lines] == [6, 2]
