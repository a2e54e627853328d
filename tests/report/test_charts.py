from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from edgexfer.report import charts
from edgexfer.report.rows import Group, Row, group_rows
from tests.report.synthetic import STUDENT, TEACHER, failed, make_record

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def group() -> Group:
    records = [make_record(TEACHER, {"name": "teacher"}), *(make_record(s) for s in STUDENT)]
    [group] = group_rows(Row("", r) for r in [*records, failed(STUDENT[0], "no")])
    return group


@pytest.fixture
def slots(group: Group) -> dict[str, int]:
    return {r.key: n for n, r in enumerate(group.rows)}


def texts(svg: str | None) -> list[str]:
    assert svg is not None
    return [e.text or "" for e in ET.fromstring(svg).iter(f"{SVG}text")]


def test_the_scatter_names_every_usable_artefact_once(group: Group, slots: dict[str, int]) -> None:
    svg = charts.accuracy_latency(group.rows, slots)
    letters = [t for t in texts(svg) if re.fullmatch("[A-Z]", t)]
    assert sorted(letters) == ["A", "B", "C", "D", "E"]
    assert "p50 latency, ms" in texts(svg)
    assert "top-1 accuracy, %" in texts(svg)


def test_a_chart_has_a_title_and_no_colour_or_font_of_its_own(
    group: Group, slots: dict[str, int]
) -> None:
    for svg in (
        charts.accuracy_latency(group.rows, slots),
        charts.latency_distribution(group.rows, slots),
        charts.training_curves([charts.Curve(0, (1.0, 2.0), (3.0, 4.0))], "training loss"),
    ):
        assert svg is not None
        tree = ET.fromstring(svg)
        assert tree.get("role") == "img"
        assert tree.get("aria-label")
        assert not any("style" in element.attrib for element in tree.iter())
        assert not re.findall(r"#[0-9a-fA-F]{6}\b", svg)
        assert "DejaVu" not in svg
        assert "<style" not in svg
        assert "http" not in svg.replace("http://www.w3.org/", "")


def test_the_same_rows_give_the_same_bytes(group: Group, slots: dict[str, int]) -> None:
    first = charts.accuracy_latency(group.rows, slots)
    assert first == charts.accuracy_latency(group.rows, slots)


def test_ids_of_two_charts_do_not_meet(group: Group, slots: dict[str, int]) -> None:
    svgs = [
        charts.accuracy_latency(group.rows, slots),
        charts.latency_distribution(group.rows, slots),
    ]
    ids = [set(re.findall(r'\bid="([^"]+)"', svg or "")) for svg in svgs]
    assert ids[0]
    assert ids[1]
    assert not ids[0] & ids[1]
    for svg, known in zip(svgs, ids, strict=True):
        used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg or ""))
        assert used
        assert used <= known


def test_nothing_to_draw_is_none() -> None:
    [group] = group_rows([Row("", failed(STUDENT[0], "no"))])
    assert charts.accuracy_latency(group.rows, {"A": 0}) is None
    assert charts.latency_distribution(group.rows, {"A": 0}) is None
    assert charts.training_curves([charts.Curve(0, (), ())], "training loss") is None


def test_a_single_artefact_and_a_single_epoch_are_drawn() -> None:
    [group] = group_rows([Row("", make_record(STUDENT[0]))])
    assert "A" in texts(charts.accuracy_latency(group.rows, {"A": 0}))
    assert charts.training_curves([charts.Curve(0, (1.0,), (3.0,))], "training loss")


def test_the_front_holds_those_that_none_beats(group: Group) -> None:
    usable = [r for r in group.rows if r.usable]
    front = charts.pareto(usable)
    assert [r.key for r in front] == ["A", "B", "C", "E"]
    for row in usable:
        beaten = any(
            (o.p50_ns or 0) <= (row.p50_ns or 0) and (o.top1_pct or 0) >= (row.top1_pct or 0)
            for o in usable
            if o is not row
        )
        assert beaten == (row not in front)


def test_a_wide_spread_takes_a_logarithmic_axis_with_plain_numbers() -> None:
    records = [make_record(replace(STUDENT[0], name=f"a{n}", p50_ms=10.0**n)) for n in range(-1, 3)]
    [group] = group_rows(Row("", r) for r in records)
    shown = texts(charts.accuracy_latency(group.rows, {r.key: 0 for r in group.rows}))
    assert {"0.1", "1", "10", "100"} <= set(shown)
