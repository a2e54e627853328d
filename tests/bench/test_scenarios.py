"""Scenarios on calls that sleep for a known time; none asserts how fast this machine is."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace

import pytest

from edgexfer.bench import latency, scenarios
from edgexfer.bench.scenarios import (
    Ask,
    all_at_once,
    groups,
    keeps,
    run_scenario,
    undecided,
)
from edgexfer.core.samples import Trial

ASK = Ask("single_stream", samples=20, seconds=0.0, batch=1, bound_ns=None, seed=0)
FEEDS = list(range(5))


def _reference() -> int:
    return 1


class _Lane:
    """Answers ten times its input, and sees how many calls run at once."""

    busy = 0
    most = 0
    lock = threading.Lock()

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.threads: set[int] = set()

    def __call__(self, feed: int) -> int:
        self.threads.add(threading.get_ident())
        with _Lane.lock:
            _Lane.busy += 1
            _Lane.most = max(_Lane.most, _Lane.busy)
        time.sleep(self.seconds)
        with _Lane.lock:
            _Lane.busy -= 1
        return 10 * feed


@pytest.fixture(autouse=True)
def _alone() -> None:
    _Lane.most = 0


def test_one_stream_issues_the_next_call_when_the_last_has_ended() -> None:
    for scenario in ("single_stream", "sustained"):
        found = run_scenario(
            replace(ASK, scenario=scenario), [_Lane(0.001)], FEEDS, 1e6, _reference
        )
        series = found.series
        assert len(series.infer_ns) == 20
        ends = [at + spent for at, spent in zip(series.issued_ns, series.infer_ns, strict=True)]
        assert all(end <= at for end, at in zip(ends, series.issued_ns[1:], strict=False))
        assert _Lane.most == 1
        assert all(output == 10 * FEEDS[i] for i, output in found.kept)


def test_several_streams_answer_one_query_together() -> None:
    lanes = [_Lane(0.002) for _ in range(3)]
    ask = replace(ASK, scenario="multi_stream")
    found = run_scenario(ask, lanes, FEEDS, 2e6, _reference)
    assert len(found.series.infer_ns) == 20
    assert _Lane.most == 3
    assert all(spent >= 2_000_000 for spent in found.series.infer_ns)
    assert len(found.kept) == 60
    assert all(output == 10 * FEEDS[i] for i, output in found.kept)


def test_a_query_takes_as_long_as_its_slowest_sample() -> None:
    with all_at_once([_Lane(0.0), _Lane(0.02)]) as call:
        begun = time.perf_counter()
        assert call([1, 2]) == [10, 20]
        assert time.perf_counter() - begun >= 0.02


def test_groups_pass_through_all_inputs() -> None:
    assert groups("abcde", 2) == [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4]]


def test_offline_does_every_sample_on_all_lanes_and_marks_the_way() -> None:
    lanes = [_Lane(0.001), _Lane(0.001)]
    ask = replace(ASK, scenario="offline", samples=300, batch=2)
    found = run_scenario(ask, lanes, FEEDS, 1e6, _reference)
    bulk = found.bulk
    assert bulk is not None
    assert (bulk.samples, bulk.every) == (300, 2)
    assert len(bulk.marks_ns) == 150
    assert list(bulk.marks_ns) == sorted(bulk.marks_ns)
    assert bulk.marks_ns[-1] >= 75 * 1_000_000
    assert _Lane.most == 2
    assert all(len(lane.threads) == 1 for lane in lanes)
    assert found.series.infer_ns == []
    assert all(output == 10 * FEEDS[i] for i, output in found.kept)
    assert len(found.kept) == 64


def test_offline_thins_its_marks_and_keeps_the_last() -> None:
    ask = replace(ASK, scenario="offline", samples=2501)
    bulk = run_scenario(ask, [lambda feed: feed], FEEDS, 1e9, _reference).bulk
    assert bulk is not None
    assert (bulk.samples, bulk.every, len(bulk.marks_ns)) == (2501, 3, 834)


class _Clock:
    """A clock that a call moves on by a millisecond, and waiting to where it is due."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        monkeypatch.setattr(scenarios, "now_ns", lambda: self.now)
        monkeypatch.setattr(scenarios, "wait_until", self.wait)

    def wait(self, due_ns: int, alone: bool) -> None:
        assert alone
        self.now = max(self.now, due_ns)

    def call(self, feed: int) -> int:
        self.now += 1_000_000
        return feed


def test_server_finds_the_rate_of_a_queue_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    ask = replace(ASK, scenario="server", bound_ns=5_000_000, seconds=60.0)
    found = run_scenario(ask, [clock.call], FEEDS, 1e6, _reference)
    kept = [trial for trial in found.trials if keeps(trial, 5_000_000)]
    best = max(trial.rate_per_s for trial in kept)
    # One server of constant service time: p99 of the wait by Lindley's recursion, at 2 % below the
    # rate that was found and at half as much again.
    assert _p99_ms(0.98 * best / 1000) <= 5.0
    assert _p99_ms(1.5 * best / 1000) > 5.0
    assert 500 < best < 1000
    higher = [trial.rate_per_s for trial in found.trials if trial.rate_per_s > best]
    assert min(higher) - best <= 0.03 * best


def _p99_ms(load: float) -> float:
    chance = random.Random(5)
    wait, times = 0.0, []
    for _ in range(200_000):
        times.append(wait + 1.0)
        wait = max(0.0, wait + 1.0 - chance.expovariate(load))
    return sorted(times)[198_000]


def test_a_bound_below_the_service_time_is_given_up_on_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Clock(monkeypatch)
    ask = replace(ASK, scenario="server", bound_ns=900_000)
    found = run_scenario(ask, [clock.call], FEEDS, 1e6, _reference)
    assert [trial.rate_per_s for trial in found.trials] == [500.0]


def test_a_bound_that_each_rate_misses_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)

    def call(feed: int) -> int:
        clock.now += 1_000_000 if feed else 0  # one in five is quick
        return feed

    ask = replace(ASK, scenario="server", bound_ns=900_000)
    found = run_scenario(ask, [call], FEEDS, 1e6, _reference)
    assert [trial.rate_per_s for trial in found.trials] == [1000 / 2**i for i in range(1, 9)]
    for trial in found.trials:
        assert len(trial.arrivals_ns) == len(trial.latency_ns) == 700
        assert list(trial.arrivals_ns) == sorted(trial.arrivals_ns)
        assert sorted(trial.latency_ns)[140] >= 1_000_000


def test_arrivals_are_poisson(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    ask = replace(ASK, scenario="server", bound_ns=1, samples=5000)
    trial = run_scenario(ask, [clock.call], FEEDS, 1e6, _reference).trials[0]
    gaps = [b - a for a, b in zip(trial.arrivals_ns, trial.arrivals_ns[1:], strict=False)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(1e9 / trial.rate_per_s, rel=0.05)
    # Of an exponential law the standard deviation is the mean.
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert spread == pytest.approx(mean, rel=0.08)


def test_a_lane_that_waits_sleeps_and_leaves_the_processor_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = []

    def clock() -> int:
        looks.append(threading.get_ident())
        return time.perf_counter_ns()

    monkeypatch.setattr(latency, "_now", clock)
    ask = replace(ASK, scenario="server", bound_ns=1)
    # Each of two lanes takes every other query, and waits about all the time for it.
    trial, _ = scenarios._trial(2000.0, ask, [lambda feed: feed] * 2, FEEDS, 0)
    # Awake, it would look at the clock all the time.
    assert len(looks) < 8 * len(trial.arrivals_ns)


def test_a_trial_without_a_bound_does_not_keep_it() -> None:
    few = Trial(1.0, (0,) * 100, (5,) * 100)
    assert not keeps(few, 10)
    assert keeps(Trial(1.0, (0,) * 700, (5,) * 700), 10)
    assert not keeps(Trial(1.0, (0,) * 700, (5,) * 680 + (50,) * 20), 10)


def test_as_many_queries_arrive_as_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    ask = replace(ASK, scenario="server", bound_ns=1, samples=6000)
    trial = run_scenario(ask, [clock.call], FEEDS, 1e6, _reference).trials[0]
    assert len(trial.latency_ns) == 6000


def test_queries_that_wait_for_each_other_are_followed_by_as_many_as_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = _Clock(monkeypatch)
    ask = replace(ASK, scenario="server", bound_ns=10_000_000)

    def serve() -> tuple[float, int | None]:
        trials = run_scenario(ask, [clock.call], FEEDS, 1e6, _reference).trials
        best = max(trial.rate_per_s for trial in trials if keeps(trial, 10_000_000))
        return best, undecided(trials, 10_000_000)

    more, _ = serve()
    assert _p99_ms(0.98 * more / 1000) <= 10.0
    assert _p99_ms(1.3 * more / 1000) > 10.0
    monkeypatch.setattr(scenarios, "_NEEDED_MOST", 0)
    few, needed = serve()
    assert few < more / 3
    assert needed is not None
    assert needed > 700


def test_what_the_bound_itself_decides_is_not_open() -> None:
    kept, late = Trial(1.0, (0,) * 700, (5,) * 700), Trial(2.0, (0,) * 700, (50,) * 700)
    assert undecided([late, kept], 10) is None
    assert undecided([kept], 10) is None
    assert undecided([], 10) is None
