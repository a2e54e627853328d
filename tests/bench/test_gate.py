from __future__ import annotations

import itertools
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from edgexfer.bench.analyse import analyse
from edgexfer.bench.gate import (
    FIGURES,
    Outcome,
    judge_pair,
    judge_records,
    parse_gates,
    write_junit,
)
from edgexfer.bench.verdict import Delta, compare
from edgexfer.core.errors import InputError
from edgexfer.core.record import Record
from edgexfer.core.stats import Quantile
from tests.bench.made import make_accuracy, make_record

P90 = Quantile(0.9, 1000, 7.5e6, 8.1e6)


def _record(**changes: Any) -> Record:
    return make_record([[1] * 50] * 2, **{"latency": {"p90": P90}, **changes})


def _judge(record: Record, gate: str) -> Outcome:
    (outcome,) = judge_records([record], parse_gates(gate))
    return outcome


@pytest.mark.parametrize(
    ("gate", "passed"),
    [
        ("latency_p90_ms<8.2", True),
        ("latency_p90_ms < 8.2", True),
        ("latency_p90_ms<8", False),  # 7.5 was measured, but only 8.1 is shown
        ("latency_p90_ms<8.1", False),
        ("latency_p90_ms<=8.1", True),
        ("latency_p90_ms>7", True),
        ("latency_p90_ms>=7.6", False),
        ("size_bytes<=1000", True),
        ("size_bytes<1000", False),
    ],
)
def test_a_gate_is_passed_by_what_is_shown(gate: str, passed: bool) -> None:
    outcome = _judge(_record(), gate)
    assert (outcome.subject, outcome.gate, outcome.passed) == ("made", gate, passed)
    if "latency" in gate:
        assert outcome.detail == "7.5 ms, below 8.1 ms with 99 % confidence"


@pytest.mark.parametrize("status", ["partial", "invalid", "failed"])
def test_a_record_that_is_not_ok_passes_no_gate(status: str) -> None:
    outcome = _judge(_record(status=status, reasons=("busy machine",)), "latency_p90_ms<100")
    assert not outcome.passed
    assert outcome.detail == (
        "7.5 ms, below 8.1 ms with 99 % confidence, but "
        f"the record of made is {status}: busy machine"
    )


@pytest.mark.parametrize("status", ["partial", "invalid"])
def test_what_a_busy_machine_cannot_change_is_judged_all_the_same(status: str) -> None:
    records = [
        replace(_with_accuracy(name, 0), status=status, reasons=("busy machine",))
        for name in ("fp32", "int8")
    ]
    gates = parse_gates("top1_drop_pt<0.5,size_bytes<1000,top1_pct>99,profile")
    small = [replace(r, profile={"limits": {"size_bytes": 5}}) for r in records]
    found = [*judge_records(small, gates), *judge_pair(small[0], small[1], (), gates)]
    assert {outcome.passed for outcome in found} == {True}, found
    assert {outcome.subject for outcome in found[4:]} == {"int8"}


def test_outputs_that_were_wrong_pass_no_gate() -> None:
    right, wrong = _with_accuracy("fp32", 0), _with_accuracy("int8", 0)
    runs = (replace(wrong.processes[0], faults=("outputs differ",)), *wrong.processes[1:])
    wrong = replace(wrong, processes=runs, status="invalid", reasons=("outputs differ",))
    gates = parse_gates("top1_drop_pt<0.5,size_bytes<1000,top1_pct>99")
    said = "the record of int8 is invalid: outputs differ"
    for found in (judge_records([right, wrong], gates)[3:], judge_pair(right, wrong, (), gates)):
        assert not any(outcome.passed for outcome in found)
        assert all(outcome.detail.endswith(said) for outcome in found)
    swapped = judge_pair(wrong, right, (), gates)
    assert [(o.subject, o.passed) for o in swapped] == [
        ("fp32", False),
        ("fp32", True),
        ("fp32", True),
    ]
    assert swapped[0].detail == said


@pytest.mark.parametrize("figure", [f for f in FIGURES if f not in ("profile", "size_bytes")])
def test_a_figure_that_is_missing_passes_no_gate_and_says_why(figure: str) -> None:
    record = _record(latency={"p90": Quantile(0.9, 3, None, None, "n=3 < 44")})
    for sign in ("<1000000", ">0"):
        outcome = _judge(record, figure + sign)
        assert not outcome.passed
        assert outcome.detail


def test_the_reason_of_the_record_is_given_for_what_is_missing() -> None:
    record = analyse(make_record([[1] * 50] * 2, absent={"accuracy": "no images"}))
    record = replace(record, status="ok")
    assert _judge(record, "throughput_per_s>5").detail == "the scenario is single_stream"
    assert _judge(record, "energy_net_mj<5").detail == "no sensor was read"
    assert _judge(record, "top1_pct>5").detail == "no images"
    assert _judge(record, "cold_start_ms<1").passed


@pytest.mark.parametrize(
    ("limits", "passed", "detail"),
    [
        ({"latency_p90_ms": 8.2}, True, "within its limits"),
        ({"latency_p90_ms": 7.0}, False, "over the profile's limit: p90 7.500 ms, not 7"),
        ({"latency_p90_ms": 8.0}, False, "p90 is not shown to be within 8 ms: 7.5 ms, below 8.1 "),
        ({"size_bytes": 999}, False, "over the profile's limit: 1000 bytes, not 999"),
        ({"size_bytes": 1000}, True, "within its limits"),
        ({}, False, "the profile sets no limit of latency or size"),
    ],
)
def test_the_profile_s_own_limits_are_a_gate(
    limits: dict[str, float], passed: bool, detail: str
) -> None:
    outcome = _judge(_record(profile={"limits": limits}), "profile")
    assert outcome.passed == passed
    assert outcome.detail.startswith(detail)


def _with_accuracy(name: str, wrong: int, n: int = 2000) -> Record:
    predictions = [i % 10 if i >= wrong else (i + 1) % 10 for i in range(n)]
    artefact = {"name": name, "precision": name, "size_bytes": 1}
    return _record(artefact=artefact, accuracy=make_accuracy(predictions, n - wrong))


def test_a_loss_of_accuracy_is_that_against_the_bundles_fp32() -> None:
    records = [_with_accuracy("fp32", 0), _with_accuracy("int8", 20)]
    found = judge_records(records, parse_gates("top1_drop_pt<0.5,top1_drop_pt<2"))
    assert [outcome.passed for outcome in found] == [True, True, False, True]
    assert found[2].detail.startswith("+1.00 points on 2000 images, 95 % interval +0.")
    (alone,) = judge_records(records[1:], parse_gates("top1_drop_pt<2"))
    assert (alone.passed, alone.detail) == (
        False,
        "no FP32 artefact of its bundle was measured with it",
    )


def test_one_file_that_answers_otherwise_elsewhere_has_an_interval() -> None:
    first, second = _with_accuracy("int8", 0, 300), _with_accuracy("int8", 1, 300)
    assert first.artefact == second.artefact
    (outcome,) = judge_pair(first, second, (), parse_gates("top1_drop_pt<0.5"))
    assert not outcome.passed
    assert outcome.detail.startswith("+0.33 points on 300 images, 95 % interval -")


def test_what_few_images_cannot_show_passes_no_gate() -> None:
    records = [_with_accuracy("fp32", 0, 200), _with_accuracy("int8", 1, 200)]
    outcome = judge_records(records, parse_gates("top1_drop_pt<1"))[1]
    assert not outcome.passed
    assert outcome.detail.startswith("+0.50 points on 200 images")


def test_a_pair_is_judged_by_its_change() -> None:
    chance = random.Random(0)
    runs = [[int(1e6 * chance.gauss(1, 0.01)) for _ in range(100)] for _ in range(6)]
    first = replace(analyse(make_record(runs)), status="ok")
    slower = [[int(1.05 * s) for s in run] for run in runs]
    second = replace(analyse(make_record(slower)), status="ok")
    gates = parse_gates("latency_p50_change_pct<4,latency_p50_change_pct<6,top1_drop_pt<1")
    rows = compare(first, second, Delta()).rows
    found = judge_pair(first, second, rows, gates)
    assert [outcome.passed for outcome in found] == [False, True, False]
    assert found[0].detail.startswith("+5.0 %, 99 % interval +")
    assert found[2].detail == "no accuracy was measured"
    doubtful = replace(first, status="partial", reasons=("busy",))
    found = judge_pair(doubtful, second, rows, gates)
    assert {outcome.subject for outcome in found} == {"made"}
    doubt = "the record of made is partial: busy"
    assert [o.detail for o in found] == [doubt, doubt, "no accuracy was measured"]
    assert _judge(first, "latency_p50_change_pct<4").detail == "it takes two records to compare"


def test_every_figure_is_in_the_table_of_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| figure of a gate |")[2].partition("\n\n")[0]
    named = set()
    firsts = " ".join(line.split("|")[1] for line in table.splitlines()[2:])
    for name in re.findall(r"`([a-z0-9_{},]+)`", firsts):
        fields = [field.split(",") for field in re.findall(r"{([^}]+)}", name)]
        plain = re.sub(r"{[^}]+}", "{}", name)
        named |= {plain.format(*values) for values in itertools.product(*fields)}
    assert named == set(FIGURES)


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("latency_p90_ms", "'latency_p90_ms' is not a limit", "write it like latency_p90_ms<8"),
        ("latency_p90_ms<", "is not a limit", "write it like"),
        ("latency_p90_ms<8,", "'' is not a limit", "write it like"),
        ("latency_p90_ms=8", "is not a limit", "write it like"),
        ("latency_p90_ms<nan", "is not a limit", "write it like"),
        ("latency_p09_ms<8", "no figure 'latency_p09_ms'", "latency_p90_ms"),
    ],
)
def test_what_is_no_gate_is_refused(text: str, what: str, fix: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_gates(text)
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_the_junit_file_can_be_read_whatever_the_names_hold(tmp_path: Path) -> None:
    place = tmp_path / "gates.xml"
    evil = 'a"<b>&\x00\x1b]]>\ud800'
    outcomes = [
        Outcome(evil, "latency_p90_ms<8", passed=False, detail=evil),
        Outcome("good", "size_bytes<5", passed=True, detail="4"),
    ]
    write_junit(place, "bundle", outcomes)
    root = ElementTree.parse(place).getroot()
    assert (root.tag, root.get("tests"), root.get("failures")) == ("testsuites", "2", "1")
    failed, passed = root.iter("testcase")
    assert failed.get("classname") == 'a"<b>&??]]>?'
    failure = failed.find("failure")
    assert failure is not None
    assert failure.get("message") == 'a"<b>&??]]>?'
    assert (passed.get("name"), passed.find("failure")) == ("size_bytes<5", None)
