from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgexfer.bench.analyse import QUANTILES
from edgexfer.bench.gate import judge_pair, parse_gates
from edgexfer.bench.verdict import FIELDS, Delta, Row, Verdict, compare, corrected, top1_drop
from edgexfer.core.errors import InputError
from edgexfer.core.record import Record
from edgexfer.core.stats import Z95_TWO_SIDED, paired_drop, quantile
from tests.bench.made import make_accuracy, make_record

TIMES = st.lists(
    st.lists(st.integers(10**6, 10**7), min_size=7, max_size=20), min_size=2, max_size=4
)
DEVICE = {"cpu": "Example CPU", "machine": "x86_64"}
MIRROR = {"faster": "slower", "better": "worse", "same": "same", "inconclusive": "inconclusive"}
MIRROR |= {other: one for one, other in MIRROR.items()}


def _record(
    factor: float = 1.0, *, seed: int = 0, processes: int = 10, spread: float = 0.01, **changes: Any
) -> Record:
    """Return a record whose processes differ by a spread that each round shares with its pair."""
    rounds, own = random.Random(99), random.Random(seed)
    runs = []
    for _ in range(processes):
        level = 1e6 * factor * rounds.gauss(1, 0.03) * own.gauss(1, spread)
        runs.append([int(level * own.gauss(1, 0.02)) for _ in range(100)])
    return _plain(runs, **changes)


def _plain(runs: list[list[int]], **changes: Any) -> Record:
    """Return a record with no more than the figures that are compared."""
    pooled = [sample for run in runs for sample in run]
    latency = {name: quantile(pooled, q) for name, q in QUANTILES.items()}
    return make_record(runs, latency=latency, **changes)


def _row(found: Verdict, metric: str) -> Row:
    return next(row for row in found.rows if row.metric == metric)


@pytest.mark.parametrize(
    ("factor", "spread", "verdict"),
    [
        (1.05, 0.01, "slower"),
        (0.95, 0.01, "faster"),
        (1.0, 0.01, "same"),
        (1.03, 0.05, "inconclusive"),
    ],
)
def test_the_four_verdicts(factor: float, spread: float, verdict: str) -> None:
    found = compare(_record(spread=spread), _record(factor, seed=1, spread=spread), Delta())
    row = _row(found, "latency_p50")
    assert found.paired
    assert row.verdict == verdict
    assert row.low is not None
    assert row.high is not None
    assert row.low < 100 * (factor - 1) < row.high
    assert (row.reason is None) == (verdict != "inconclusive")


def test_pairs_see_what_the_change_of_the_machine_hides_otherwise() -> None:
    first, second = _record(spread=0.003), _record(1.03, seed=1, spread=0.003)
    assert _row(compare(first, second, Delta()), "latency_p50").verdict == "slower"
    alone = replace(second, settings={**second.settings, "suite": "another"})
    found = compare(first, alone, Delta())
    assert not found.paired
    assert _row(found, "latency_p50").verdict == "inconclusive"


@settings(max_examples=25, deadline=None)
@given(TIMES, TIMES, st.booleans())
def test_comparing_the_other_way_round_gives_the_opposite(
    one: list[list[int]], other: list[list[int]], interleaved: bool
) -> None:
    first, second = _plain(one), _plain(other)
    if not interleaved:
        second = replace(second, settings={**second.settings, "suite": "another"})
    there, back = compare(first, second, Delta()), compare(second, first, Delta())
    for row, mirrored in zip(there.rows, back.rows, strict=True):
        assert mirrored.verdict == MIRROR[row.verdict]
        assert mirrored.p == pytest.approx(row.p)
        if row.change is not None and row.low is not None and row.high is not None:
            assert mirrored.change is not None
            assert (1 + mirrored.change / 100) * (1 + row.change / 100) == pytest.approx(1)
            if abs(row.high) < 1e5 and abs(row.low) < 99:
                product = (1 + (mirrored.low or 0) / 100) * (1 + row.high / 100)
                assert product == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(TIMES)
def test_a_record_is_the_same_as_itself(runs: list[list[int]]) -> None:
    record = _plain(runs, accuracy=make_accuracy([1, 2, 3], 2))
    for row in compare(record, record, Delta()).rows:
        assert row.verdict == "same" or row.first is None
        assert row.change in (0.0, None)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("definitions", {"definitions": "metrics/1"}),
        ("scenario", {"settings": {"scenario": "sustained"}}),
        ("batch", {"settings": {"batch": 8}}),
        ("streams", {"settings": {"streams": 2}}),
        ("threads", {"settings": {"threads": 4}}),
        ("precision", {"artefact": {"name": "b", "precision": "int8", "size_bytes": 1}}),
        ("power_mode", {"device": {**DEVICE, "power_mode": "15W"}}),
        ("machine", {"device": {**DEVICE, "cpu": "Other CPU"}}),
        ("data", {"data": {"images_sha256": "other"}}),
        ("data", {"data": {"images_sha256": "aa", "labels_sha256": "other"}}),
    ],
)  # fmt: skip
def test_what_was_not_measured_alike_is_refused(field: str, changes: dict[str, Any]) -> None:
    first, second = _record(processes=2), _record(processes=2, **changes)
    with pytest.raises(InputError, match=f"cannot compare: {field} is ") as caught:
        compare(first, second, Delta())
    values = [repr(FIELDS[field](record)) for record in (first, second)]
    assert all(value in caught.value.what for value in values)
    if field in ("definitions", "scenario"):
        assert caught.value.fix == "measure both alike"
        with pytest.raises(InputError, match="cannot differ on purpose"):
            compare(first, second, Delta(), [field])
    else:
        assert caught.value.fix.endswith(f"--across {field}")
        assert compare(first, second, Delta(), [field]).across == (field,)


def test_an_interval_that_says_nothing_is_wide_but_a_number() -> None:
    first, second = _plain([[1] * 50, [10**9] * 50]), _plain([[10**9] * 50, [1] * 50])
    row = _row(compare(first, second, Delta()), "latency_p50")
    assert row.verdict == "inconclusive"
    assert (row.high or 0) > 1e20


def test_what_is_invalid_is_not_compared() -> None:
    first = _record()
    second = replace(_record(1.5), status="invalid", reasons=("throttled: cpu",))
    found = compare(first, second, Delta())
    assert {row.verdict for row in found.rows} == {"inconclusive"}
    *times, top1 = found.rows
    assert {row.reason for row in times} == {"made is invalid: throttled: cpu"}
    assert top1.reason == "was not measured"
    assert found.doubts == ("made is invalid: throttled: cpu",)


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ([[100] * 50], "it takes two processes of each, and ten to see small changes"),
        ([[100] * 50, [0] * 50], "a value is 0: the clock is too coarse for it"),
        ([[100] * 50, [100] * 5], "a process has too few samples for it"),
    ],
)
def test_what_cannot_be_compared_says_why(runs: list[list[int]], reason: str) -> None:
    other = [[run[0] + 1, *run[1:]] for run in runs]
    found = compare(_plain(runs), _plain(other), Delta())
    assert _row(found, "latency_p50").reason == reason
    assert _row(found, "latency_p50").verdict == "inconclusive"


def test_what_one_metric_would_show_three_may_not() -> None:
    """Holm's correction: the smallest of m p-values counts m times."""
    shown = Row("latency_p50", "ms", 1.0, 1.1, 10.0, 1.0, 20.0, p=0.004, verdict="slower")
    others = [replace(shown, metric=name, p=p) for name, p in (("a", 0.2), ("b", 0.03))]
    alone, beside = corrected([shown]), corrected([*others, shown])
    assert (alone[0].verdict, alone[0].p) == ("slower", 0.004)
    assert [row.p for row in beside] == pytest.approx([0.2, 0.06, 0.012])
    assert [row.verdict for row in beside] == ["inconclusive"] * 3


def test_a_lower_accuracy_is_worse_and_as_good_a_one_the_same() -> None:
    n = 4000
    truth = [i % 10 for i in range(n)]
    worse = [(t + (i % 20 == 0)) % 10 for i, t in enumerate(truth)]
    artefact = {"name": "b", "precision": "fp32", "size_bytes": 1}
    first = _record(processes=2, accuracy=make_accuracy(truth, n))
    second = _record(processes=2, accuracy=make_accuracy(worse, n - n // 20), artefact=artefact)
    row = _row(compare(first, second, Delta()), "top1")
    assert (row.verdict, row.unit) == ("worse", "%")
    assert row.change == pytest.approx(-5)
    assert row.low is not None
    assert row.low < -5 < (row.high or 0) < 0
    slowed = replace(second, status="invalid", reasons=("nonstationary",))
    assert _row(compare(first, slowed, Delta()), "top1").verdict == "worse"
    run = replace(slowed.processes[0], faults=("outputs differ",))
    faulty = replace(slowed, processes=(run, *slowed.processes[1:]))
    row = _row(compare(first, faulty, Delta()), "top1")
    assert (row.verdict, row.reason) == ("inconclusive", "b is invalid: nonstationary")
    again = replace(second, accuracy=first.accuracy)
    assert _row(compare(first, again, Delta()), "top1").verdict == "same"
    none = replace(second, accuracy=None, absent={"accuracy": "was not asked for"})
    assert _row(compare(first, none, Delta()), "top1").reason == "was not asked for"
    fewer = replace(second, accuracy=make_accuracy(worse[:100], 90))
    reason = _row(compare(first, fewer, Delta()), "top1").reason
    assert reason == "the records do not hold the predictions of the same images"


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=80))
def test_the_loss_from_predictions_alone_is_never_narrower_than_with_labels(
    images: list[tuple[int, int, int]],
) -> None:
    labels, one, other = (list(column) for column in zip(*images, strict=True))
    right = [[p == y for p, y in zip(side, labels, strict=True)] for side in (one, other)]
    wanted = paired_drop(right[0], right[1])
    found = top1_drop(
        make_accuracy(one, sum(right[0])), make_accuracy(other, sum(right[1])), Z95_TWO_SIDED
    )
    assert found is not None
    drop, low, high, p = found
    assert drop == pytest.approx(wanted.drop_pt)
    assert low <= wanted.low_pt + 1e-9
    assert high >= wanted.high_pt - 1e-9
    assert 0 <= p <= 1


@pytest.mark.parametrize(
    ("changes", "paired"),
    [
        ({"images_sha256": "cc"}, False),
        ({"images_sha256": "cc", "labels_sha256": "dd"}, False),
        ({"images_sha256": "cc", "split": "val", "preprocess_sha256": "ee"}, False),
        ({"images_sha256": "cc", "preprocess_sha256": "ee"}, True),  # the same at another size
    ],
)
def test_accuracies_on_other_images_are_never_paired(changes: dict[str, Any], paired: bool) -> None:
    # Both sets stand in the order of their classes: place by place, predictions agree by chance.
    truth = [i // 100 for i in range(4000)]
    first = _record(processes=2, accuracy=make_accuracy(truth, 4000))
    artefact = {"name": "b", "precision": "fp32", "size_bytes": 1}
    second = replace(first, artefact=artefact, data={**first.data, **changes})
    row = _row(compare(first, second, Delta(), ["data"]), "top1")
    assert (row.verdict == "same") == paired
    reason = "the records do not hold the predictions of the same images"
    assert row.reason == (None if paired else reason)
    (outcome,) = judge_pair(first, second, (), parse_gates("top1_drop_pt<0.5"))
    assert outcome.passed == paired
    assert paired or outcome.detail == reason
