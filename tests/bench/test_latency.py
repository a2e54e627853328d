"""The clock, on calls whose length is known: each sleeps or counts in a planned way."""

from __future__ import annotations

import time

import pytest

from edgexfer.bench import latency
from edgexfer.bench.latency import Limits, measure, measure_stage, timed, wait_until, warm_up


class _Clock:
    """A clock that calls move on, so that a test can say how long each of them took."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr(latency, "_now", made)
    return made


def test_the_real_clock_measures_a_sleep() -> None:
    result, spent = timed(lambda: time.sleep(0.02))
    assert result is None
    assert 20_000_000 <= spent < 500_000_000


def test_warm_up_ends_when_the_ramp_has_ended(clock: _Clock) -> None:
    calls = 0

    def call(_: object) -> None:
        nonlocal calls
        calls += 1
        clock.now += max(10_000_000 - 50_000 * calls, 2_000_000) + calls % 7

    spent, converged = warm_up(call, [0], cap_s=60)
    assert converged
    assert spent[0] > 9_000_000
    assert calls >= 160 + 30
    assert set(spent[-30:]) <= {2_000_000 + k for k in range(7)}


def test_a_ramp_that_never_ends_is_not_converged(clock: _Clock) -> None:
    calls = 0

    def call(_: object) -> None:
        nonlocal calls
        calls += 1
        clock.now += 1_000_000 + 10_000 * calls

    spent, converged = warm_up(call, [0], cap_s=1)
    assert not converged
    assert sum(spent) >= 1_000_000_000


def test_one_call_longer_than_the_cap_ends_the_warm_up(clock: _Clock) -> None:
    def call(_: object) -> None:
        clock.now += 5_000_000_000

    assert warm_up(call, [0], cap_s=1) == ([5_000_000_000], False)


@pytest.mark.parametrize(
    ("samples", "seconds", "expected"), [(100, 0.001, 100), (10, 0.5, 500), (1, 100.0, 10_000)]
)
def test_it_measures_at_least_samples_and_seconds(
    clock: _Clock, samples: int, seconds: float, expected: int
) -> None:
    def call(_: object) -> None:
        clock.now += 1_000_000

    found = measure(call, [0], Limits(samples, seconds), seed=0)
    assert len(found.infer_ns) == expected
    assert set(found.infer_ns) == {1_000_000}
    assert found.issued_ns == [i * 1_000_000 for i in range(expected)]
    assert len(found.kept) == min(64, expected)
    assert (found.every, found.references) == (1, [])


def test_inputs_rotate_and_outputs_are_kept_from_the_whole_series(clock: _Clock) -> None:
    seen = []

    def call(item: int) -> int:
        clock.now += 1_000_000
        seen.append(item)
        return 10 * item

    kept = measure(call, [0, 1, 2], Limits(3000, 0.0), seed=1).kept
    assert seen[:6] == [0, 1, 2, 0, 1, 2]
    assert len(kept) == 64
    assert all(output == 10 * index for index, output in kept)
    first = [output for _, output in measure(call, range(3000), Limits(3000, 0.0), seed=1).kept]
    assert sum(output >= 15_000 for output in first) in range(16, 49), "both halves must be drawn"


def test_the_reference_is_timed_between_blocks_and_is_no_sample(clock: _Clock) -> None:
    calls = 0

    def call(_: object) -> None:
        nonlocal calls
        calls += 1
        clock.now += 10_000_000

    def reference() -> int:
        clock.now += 5_000_000
        return 7

    found = measure(call, [0], Limits(35, 0.0), seed=0, reference=reference)
    assert [(r.after, r.ns) for r in found.references] == [
        (0, 7),
        (10, 7),
        (20, 7),
        (30, 7),
        (35, 7),
    ]
    assert found.infer_ns == [10_000_000] * 35
    # After each pause two calls are not timed, and what they take is not the next sample's.
    assert calls == 35 + 4 * 2
    assert found.issued_ns[:2] == [25_000_000, 35_000_000]


def test_a_run_without_end_is_thinned_evenly(
    clock: _Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "THINNED_TO", 50)

    def call(number: int) -> None:
        clock.now += 1000 + number

    found = measure(call, range(330), Limits(330, 0.0, most=None), seed=0)
    assert found.every == 4
    assert found.infer_ns == [1000 + number for number in range(0, 330, 4)]
    assert len(found.issued_ns) == len(found.infer_ns)


def test_waiting_ends_when_it_is_due(clock: _Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += 5_000_000

    monkeypatch.setattr(time, "sleep", sleep)
    wait_until(5_000_000, alone=True)
    wait_until(5_000_000, alone=True)
    assert slept == [0.004]
    wait_until(10_000_000, alone=False)
    assert slept == [0.004, 0.005]


def test_a_stage_is_timed_for_itself(clock: _Clock) -> None:
    def call(item: int) -> None:
        clock.now += item

    assert measure_stage(call, [5, 7]) == [5, 7] * 100
