"""The clock, on calls whose length is known: each sleeps or counts in a planned way."""

from __future__ import annotations

import time

import pytest

from edgexfer.bench import latency
from edgexfer.bench.latency import Limits, measure, measure_stage, timed, warm_up


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

    spent, kept = measure(call, [0], Limits(samples, seconds), seed=0)
    assert len(spent) == expected
    assert set(spent) == {1_000_000}
    assert len(kept) == min(64, expected)


def test_inputs_rotate_and_outputs_are_kept_from_the_whole_series(clock: _Clock) -> None:
    seen = []

    def call(item: int) -> int:
        clock.now += 1_000_000
        seen.append(item)
        return 10 * item

    _, kept = measure(call, [0, 1, 2], Limits(3000, 0.0), seed=1)
    assert seen[:6] == [0, 1, 2, 0, 1, 2]
    assert len(kept) == 64
    assert all(output == 10 * index for index, output in kept)
    first = [output for _, output in measure(call, range(3000), Limits(3000, 0.0), seed=1)[1]]
    assert sum(output >= 15_000 for output in first) in range(16, 49), "both halves must be drawn"


def test_a_stage_is_timed_for_itself(clock: _Clock) -> None:
    def call(item: int) -> None:
        clock.now += item

    assert measure_stage(call, [5, 7]) == [5, 7] * 100
