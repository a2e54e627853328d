from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgexfer.bench.analyse import analyse
from edgexfer.bench.gate import judge_records, parse_gates
from edgexfer.bench.verdict import Delta, compare
from edgexfer.core.codec import encode
from edgexfer.core.pooled import pooled_quantile
from edgexfer.core.record import Record, read_record, write_record
from edgexfer.core.samples import Bulk, ColdStart, Sensors, Trial
from tests.bench.made import make_record, make_run


def _steady(processes: int = 5, n: int = 200, seed: int = 0) -> list[list[int]]:
    chance = random.Random(seed)
    return [[int(1e6 * chance.gauss(1, 0.02)) for _ in range(n)] for _ in range(processes)]


def _one(runs: list[list[int]], change: Any) -> list[list[int]]:
    """Return the runs with the first changed, sample by sample."""
    return [[change(i, s) for i, s in enumerate(runs[0])], *runs[1:]]


def test_a_steady_record_is_ok_and_has_all_its_figures() -> None:
    runs = _steady()
    record = analyse(make_record(runs))
    assert (record.status, record.reasons, record.warnings) == ("ok", (), ())
    assert record.latency["p90"] == pooled_quantile(runs, 0.9)
    assert record.memory == {"host_bytes": 200}
    assert record.cold_start == {
        "startup_ns": 10,
        "import_ns": 20,
        "load_ns": 30,
        "first_ns": 5,
        "total_ns": 65,
    }
    assert record.steadiness is not None
    assert record.steadiness.n_eff == 1000
    assert record.steadiness.mean_ns == sum(map(sum, runs)) / 1000
    assert record.absent["throughput"] == "the scenario is single_stream"
    assert record.absent["power"] == "no sensor was read"


def test_a_record_analysed_again_is_the_same_to_the_bit(tmp_path: Path) -> None:
    record = analyse(make_record(_one(_steady(), lambda i, s: s * 3 if i % 50 == 0 else s)))
    write_record(tmp_path / "record.json", record)
    write_record(tmp_path / "again.json", analyse(read_record(tmp_path / "record.json")))
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "record.json").read_bytes()


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 10**7), max_size=80), min_size=1, max_size=4),
    st.sampled_from(["single_stream", "sustained"]),
)
def test_whatever_was_measured_is_analysed_and_twice_the_same(
    runs: list[list[int]], scenario: str
) -> None:
    made = make_record(runs, settings={"scenario": scenario})
    issued = [tuple(sum(run[:i]) for i in range(len(run))) for run in runs]
    timed = zip(made.processes, issued, strict=True)
    made = replace(made, processes=tuple(replace(p, issued_ns=i) for p, i in timed))
    once = analyse(made)
    assert encode(analyse(once)) == encode(once)
    json.dumps(encode(once), allow_nan=False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda i, s: int(s * 1.25) if i >= 120 else s,
            "nonstationary: the level changes by +25 %",
        ),
        (lambda i, s: int(s * 0.8) if i >= 40 else s, "nonstationary: the level changes by -25 %"),
        (lambda i, s: int(s * (1 + 0.12 * i / 200)), "nonstationary: "),
    ],
)
def test_a_level_that_moves_makes_a_record_invalid(change: Any, reason: str) -> None:
    record = analyse(make_record(_one(_steady(), change)))
    assert record.status == "invalid"
    assert record.reasons[0].startswith(reason)
    assert record.reasons[0].endswith("(in 1 of 5 processes)")


def test_what_slows_down_in_ten_minutes_is_the_result_of_the_sustained_scenario() -> None:
    runs = _one(_steady(1, 1000), lambda i, s: s * 2 if i >= 500 else s)
    record = make_record(runs, settings={"scenario": "sustained"})
    issued = tuple(sum(runs[0][:i]) for i in range(1000))
    record = analyse(replace(record, processes=(replace(record.processes[0], issued_ns=issued),)))
    assert not any("nonstationary" in reason for reason in record.reasons)
    assert record.sustained is not None
    assert record.sustained.ratio == pytest.approx(2, rel=0.02)
    assert len(record.sustained.minutes_ns) == 10
    assert "sustained" not in record.absent


def test_two_modes_are_both_reported() -> None:
    chance = random.Random(1)
    runs = [[s if chance.random() < 0.6 else int(1.3 * s) for s in run] for run in _steady()]
    record = analyse(make_record(runs))
    assert record.status == "partial"
    assert record.reasons[0].startswith("two modes: 1.0")
    assert " ms and 1.298 ms, 41 % in the higher" in record.reasons[0]


def test_outliers_are_flagged_and_kept() -> None:
    record = analyse(make_record(_one(_steady(), lambda i, s: s * 3 if i in (7, 90) else s)))
    assert record.steadiness is not None
    assert record.steadiness.outliers == ((7, 90), (), (), (), ())
    assert record.latency["p50"].n == 1000
    assert record.status == "ok"


def test_outliers_in_a_row_are_bursts_and_make_a_record_partial() -> None:
    record = analyse(make_record(_one(_steady(), lambda i, s: s * 2 if 50 <= i < 60 else s)))
    assert record.status == "partial"
    assert "bursts: 1.0 % of the samples lie far off, 9 in a row" in record.reasons


def test_too_few_samples_make_a_record_partial() -> None:
    record = analyse(make_record(_steady(2, 10)))
    assert record.status == "partial"
    assert record.reasons == ("20 samples are too few to bound p90, which takes 44",)
    assert record.latency["p90"].value is None


def test_samples_that_hang_together_make_a_record_partial() -> None:
    runs = [[level for level in run[:8] for _ in range(25)] for run in _steady(1)]
    record = analyse(make_record(runs))
    assert record.status == "partial"
    assert any(r.startswith("p90 has no bound: n=200 count for ") for r in record.reasons)


def test_a_drift_from_process_to_process_makes_a_record_partial() -> None:
    runs = [[int(s * (1 + 0.04 * i)) for s in run] for i, run in enumerate(_steady(6))]
    record = analyse(make_record(runs))
    assert record.status == "partial"
    assert any(r.startswith("drift from process to process by +") for r in record.reasons)
    assert any(w.startswith("medians of the processes differ by 2") for w in record.warnings)


def test_each_reason_comes_once_with_its_count() -> None:
    made = make_record(_steady(3))
    noise = {"foreign_pct": 31.0, "steal_pct": 0.0, "involuntary_switches": 0}
    busy = [replace(run, noise=dict(noise)) for run in made.processes]
    busy[2].noise["foreign_pct"] = 45.5
    busy[0] = replace(busy[0], noise={})
    record = analyse(replace(made, processes=tuple(busy)))
    assert record.status == "partial"
    assert record.reasons == (
        "busy machine: other processes used 31 % of its CPUs (in 2 of 3 processes)",
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"faults": ("other bits",)}, "other bits (in 1 of 2 processes)"),
        (
            {"noise": {"foreign_pct": 0.0, "steal_pct": 0.0, "involuntary_switches": 0,
                       "suspended_ns": 2 * 10**9}},
            "clock: the machine slept for 2.0 s meanwhile (in 1 of 2 processes)",
        ),
        (
            {"sensors": Sensors(10**6, (0, 50), {}, {"cooling:cpu": (0, 2)})},
            "throttled: cpu was at step 2 (in 1 of 2 processes)",
        ),
        (
            {"rotated_ns": (100,) * 128, "repeated_ns": (50,) * 128},
            "caching: one input again and again is 50 % faster",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_believed_is_invalid(changes: dict[str, Any], reason: str) -> None:
    made = make_record(_steady(2))
    first = replace(made.processes[0], **changes)
    record = analyse(replace(made, processes=(first, made.processes[1])))
    assert record.status == "invalid"
    assert reason in record.reasons


def test_no_steady_state_is_a_doubt() -> None:
    made = make_record(_steady(1))
    cold = (replace(made.processes[0], warmup_converged=False),)
    record = analyse(replace(made, processes=cold))
    assert record.reasons[0] == "no steady state within 1 s of warm-up"


def test_a_failed_record_stays_failed_and_an_emulated_one_invalid() -> None:
    failed = make_record([], status="failed", reasons=("it broke; fix: mend it",))
    record = analyse(failed)
    assert (record.status, record.reasons) == (failed.status, failed.reasons)
    assert record.steadiness is None
    assert record.latency["p50"].reason == "no samples"
    emulated = analyse(make_record([], absent={"latency": "emulated: this is not; only a real"}))
    assert (emulated.status, emulated.reasons) == ("invalid", ("emulated: this is not",))


def _offline(*per_s: float) -> Record:
    made = make_record([()] * len(per_s), settings={"scenario": "offline", "batch": 8})
    bulks = [Bulk(1000, 500, (int(5e11 / rate), int(1e12 / rate))) for rate in per_s]
    return replace(made, processes=tuple(make_run(i, bulk=b) for i, b in enumerate(bulks)))


def test_throughput_is_all_samples_by_all_the_time() -> None:
    record = analyse(_offline(400.0, 500.0, 250.0))
    assert record.throughput is not None
    assert record.throughput.per_s == 400.0
    assert record.throughput.each_per_s == (400.0, 500.0, 250.0)
    assert (record.throughput.samples, record.throughput.batch) == (3000, 8)
    assert record.throughput.seconds == pytest.approx(2.5 + 2 + 4)
    assert record.absent["server"] == "the scenario is offline"


def _trial(rate: float, latency_ns: int) -> Trial:
    step = int(1e9 / rate)
    return Trial(rate, tuple(step * i for i in range(700)), (latency_ns,) * 700)


def test_the_servers_rate_is_the_largest_that_kept_the_bound() -> None:
    made = make_record([(), ()], settings={"scenario": "server", "bound_ns": 1000})
    trials = [(_trial(100.0, 900), _trial(200.0, 999), _trial(250.0, 2000)), (_trial(100.0, 1),)]
    runs = tuple(make_run(i, trials=each) for i, each in enumerate(trials))
    record = analyse(replace(made, processes=runs))
    assert record.server is not None
    assert record.server.each_per_s == pytest.approx((200.0, 100.0))
    assert record.server.per_s == record.server.each_per_s[1]
    assert record.server.p99 is not None
    assert record.server.p99.value == 1
    none = (make_run(0, trials=(_trial(100.0, 2000),)), runs[1])
    record = analyse(replace(made, processes=none))
    assert record.server is not None
    assert (record.server.per_s, record.server.p99) == (None, None)
    assert record.absent["server"] == "no rate was shown to keep the bound, in 1 of 2 processes"
    assert "server" not in analyse(replace(made, processes=runs)).absent
    found = compare(record, record, Delta())
    assert [row.reason for row in found.rows if row.metric == "server"] == [record.absent["server"]]
    (outcome,) = judge_records([record], parse_gates("server_per_s>1"))
    assert outcome.detail == record.absent["server"]


def test_a_record_says_which_limits_of_the_profile_are_missed() -> None:
    limits = {"latency_p90_ms": 0.5, "size_bytes": 10, "accuracy_drop_pt": None}
    record = analyse(make_record(_steady(), profile={"limits": limits}))
    assert len(record.warnings) == 2
    assert record.warnings[0].startswith("over the profile's limit: p90 1.0")
    assert record.warnings[0].endswith(" ms, not 0.5")
    assert record.warnings[1] == "over the profile's limit: 1000 bytes, not 10"
    limits = {"latency_p90_ms": (record.latency["p90"].value or 0) / 1e6, "size_bytes": 1000}
    assert analyse(make_record(_steady(), profile={"limits": limits})).warnings == ()


def test_unknown_parts_of_a_cold_start_are_left_out() -> None:
    made = make_record(_steady(1))
    cold = ColdStart(None, 20, 7, 8, 15, 5, None)
    record = analyse(replace(made, processes=(replace(made.processes[0], cold_start=cold),)))
    assert set(record.cold_start) == {
        "import_ns",
        "deserialise_ns",
        "compile_ns",
        "load_ns",
        "first_ns",
    }


def _bulk(lanes: int, slower: float, batches: int = 600) -> Record:
    """Return an offline record whose lanes take turns, and are slower from the middle on."""
    chance, ends = random.Random(0), []
    for lane in range(lanes):
        at = 1e6 * lane / lanes
        for i in range(batches // lanes):
            at += 1e6 * chance.gauss(1, 0.02) * (slower if 2 * i >= batches // lanes else 1)
            ends.append(int(at))
    settings = {"scenario": "offline", "batch": 4, "streams": lanes}
    made = make_record([()], settings=settings)
    bulk = Bulk(4 * batches, 4, tuple(sorted(ends)))
    return replace(made, processes=(make_run(0, bulk=bulk),))


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_a_bulk_whose_pace_moves_makes_a_record_invalid(lanes: int) -> None:
    assert analyse(_bulk(lanes, 1.0)).status == "ok"
    record = analyse(_bulk(lanes, 1.3))
    assert record.status == "invalid"
    (reason,) = record.reasons
    found = re.fullmatch(r"nonstationary: the level changes by \+(\d+) % at sample (\d+)", reason)
    assert found is not None
    assert 25 < int(found[1]) < 35
    assert 1150 < int(found[2]) < 1250


def test_a_rate_that_too_few_queries_decided_comes_with_a_warning() -> None:
    # Each latency is that of the one before it: 700 queries tell as little as seventy.
    held = tuple(500 + 5 * (i // 10 * 7 % 70) for i in range(700))
    kept = _trial(100.0, 900)
    made = make_record([()], settings={"scenario": "server", "bound_ns": 1000})
    runs = (make_run(0, trials=(kept, replace(_trial(200.0, 1), latency_ns=held))),)
    record = analyse(replace(made, processes=runs))
    assert record.server is not None
    assert record.server.per_s == pytest.approx(100.0)
    (warning,) = (text for text in record.warnings if "--samples" in text)
    start, _, count = warning.rpartition(" ")
    assert start == "more may be served than was shown: it takes about --samples"
    assert int(count) > 2000
