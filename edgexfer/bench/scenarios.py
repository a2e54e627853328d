"""The measured part of a job, scenario by scenario, as MLPerf's LoadGen means them.

- ``single_stream``: the next call is issued when the last has ended.
- ``multi_stream``: a query is one sample for each stream, all at once; the next is issued when the
  last of them has ended, and that is the query's latency.
- ``offline``: all samples are there from the start; how many per second?
- ``server``: queries arrive at random (Poisson); which rate keeps a bound of latency?
- ``sustained``: ``single_stream`` for so long that a machine without a fan slows down.

The reference kernel is timed between blocks of the first two alone: its work would be counted into
a rate or an energy, and in ``sustained`` a machine that is hot is as slow for it as a busy one.

What the figures are of these samples is worked out in ``analyse``.
"""

from __future__ import annotations

import contextlib
import math
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple

from edgexfer.bench.latency import Limits, Reservoir, Series, measure, now_ns, wait_until
from edgexfer.core.pooled import pooled_quantile
from edgexfer.core.samples import Bulk, Trial
from edgexfer.core.series import correlation
from edgexfer.core.stats import samples_needed

SECONDS = {
    "single_stream": 2.0,
    "multi_stream": 2.0,
    "offline": 60.0,
    "server": 2.0,
    "sustained": 600.0,
}
"""How long a process measures at least where nobody says; of ``server``, each of its trials."""
TOLERANCE = 0.02
_TRIAL_LEAST = 700  # bounds p99, which takes 459 independent samples
_TRIAL_MOST = 5_000  # unless more are asked for, or needed: a record keeps them all
# Queries that wait for the same ones count for fewer: so many more are given to a trial at most.
_LONGEST_S, _NEEDED_MOST = 60.0, 10_000
_MARKS = 1_000

Call = Callable[[Any], Any]


@dataclass(frozen=True)
class Ask:
    """What is to be measured.

    Attributes:
        scenario: its name.
        samples: least number of samples.
        seconds: least time.
        batch: samples per call.
        bound_ns: most latency of ``server``.
        seed: of arrivals, and of which outputs are kept.
    """

    scenario: str
    samples: int
    seconds: float
    batch: int
    bound_ns: Optional[int]
    seed: int


@dataclass
class Measured:
    """What was seen; see ``ProcessRun`` for the fields of the same name.

    Attributes:
        series: of the scenarios that time one call after another.
        bulk: of ``offline``.
        trials: of ``server``.
        kept: up to 64 outputs, each with the index of its input.
    """

    series: Series = field(default_factory=Series)
    bulk: Optional[Bulk] = None
    trials: List[Trial] = field(default_factory=list)
    kept: List[Tuple[int, Any]] = field(default_factory=list)


def run_scenario(
    ask: Ask,
    lanes: Sequence[Call],
    inputs: Sequence[Any],
    pace_ns: float,
    reference: Callable[[], int],
) -> Measured:
    """Measure as a scenario asks.

    Args:
        ask: which, and how long.
        lanes: calls that may be made at the same time, each from one thread.
        inputs: what they are called with, in turn.
        pace_ns: how long one call takes about, from the warm-up.
        reference: times the reference kernel, where the scenario takes it.
    """
    if ask.scenario == "offline":
        return _offline(ask, lanes, inputs, pace_ns)
    if ask.scenario == "server":
        return _server(ask, lanes, inputs, pace_ns)
    if ask.scenario == "multi_stream":
        return _multi_stream(ask, lanes, inputs, pace_ns, reference)
    limits = Limits(ask.samples, ask.seconds, pace_ns)
    if ask.scenario == "sustained":
        series = measure(lanes[0], inputs, replace(limits, most=None), ask.seed)
    else:
        series = measure(lanes[0], inputs, limits, ask.seed, reference)
    return Measured(series, kept=series.kept)


@contextlib.contextmanager
def all_at_once(lanes: Sequence[Call]) -> Iterator[Call]:
    """Give a call that takes one input for each lane and returns when all have ended."""
    with ThreadPoolExecutor(len(lanes)) as pool:

        def call(feeds: Sequence[Any]) -> List[Any]:
            return list(pool.map(lambda lane, feed: lane(feed), lanes, feeds))

        yield call


def groups(inputs: Sequence[Any], size: int) -> List[List[int]]:
    """Return indices of inputs, ``size`` at a time, that pass through all of them in turn."""
    return [[(start * size + i) % len(inputs) for i in range(size)] for start in range(len(inputs))]


def _multi_stream(
    ask: Ask,
    lanes: Sequence[Call],
    inputs: Sequence[Any],
    pace_ns: float,
    reference: Callable[[], int],
) -> Measured:
    places = groups(inputs, len(lanes))
    queries = [[inputs[i] for i in group] for group in places]
    with all_at_once(lanes) as call:
        limits = Limits(ask.samples, ask.seconds, pace_ns)
        series = measure(call, queries, limits, ask.seed, reference)
    kept = [
        (place, output)
        for query, outputs in series.kept
        for place, output in zip(places[query], outputs)
    ]
    return Measured(series, kept=kept)


def _offline(ask: Ask, lanes: Sequence[Call], inputs: Sequence[Any], pace_ns: float) -> Measured:
    """Issue all samples, and have every lane take the next batch until none is left.

    As many are issued as ought to take a tenth more than ``ask.seconds``, which is what LoadGen
    does too: how many there are must be known before the first is done.
    """
    wanted = 1.1 * ask.seconds * 1e9 / pace_ns * len(lanes)
    batches = max(math.ceil(wanted), math.ceil(ask.samples / ask.batch), len(lanes))
    done, kept = _drain(lanes, inputs, [None] * batches, ask.seed)
    samples = batches * ask.batch
    every = max(1, math.ceil(batches / _MARKS))
    ends = sorted(end for _, _, end in done)
    marks = tuple(ends[every - 1 :: every])
    if len(ends) % every:
        marks += (ends[-1],)
    return Measured(bulk=Bulk(samples, every * ask.batch, marks), kept=kept)


def _server(ask: Ask, lanes: Sequence[Call], inputs: Sequence[Any], pace_ns: float) -> Measured:
    """Find the largest rate by bisection, to 2 % of it.

    It begins at the rate at which all lanes would be busy all the time: more cannot be served.
    """
    assert ask.bound_ns is not None, "the scenario needs a bound of latency"
    found = Measured()
    low, high = 0.0, len(lanes) * 1e9 / pace_ns
    while high - low > TOLERANCE * high:
        rate = (low + high) / 2
        seed = ask.seed + len(found.trials)
        trial, kept = _trial(rate, ask, lanes, inputs, seed)
        found.trials.append(trial)
        found.kept = kept
        if min(trial.latency_ns) > ask.bound_ns:
            break  # slower than the bound by itself, at whatever rate
        if keeps(trial, ask.bound_ns):
            low = rate
        else:
            high = rate
        if low == 0.0 and len(found.trials) >= 8:
            break  # not even half a percent of what the lanes could do
    return found


def keeps(trial: Trial, bound_ns: int) -> bool:
    """Say whether the 99 % upper bound of p99 keeps to a bound; what has no bound does not."""
    upper = pooled_quantile([trial.latency_ns], 0.99).upper99
    return upper is not None and upper <= bound_ns


def undecided(trials: Sequence[Trial], bound_ns: int) -> Optional[int]:
    """Return about how many queries would tell whether more can be served; ``None`` where they did.

    Queries that wait for the same ones before them have latencies alike, and count for fewer: of
    the next rate above the best it may be these alone that are missing.
    """
    best = max((t.rate_per_s for t in trials if keeps(t, bound_ns)), default=0.0)
    above = [trial for trial in trials if trial.rate_per_s > best]
    return _needed(min(above, key=lambda trial: trial.rate_per_s), bound_ns) if above else None


def _needed(trial: Trial, bound_ns: int) -> Optional[int]:
    """Return about how many queries would bound p99; ``None`` where it is bound, or late."""
    p99 = pooled_quantile([trial.latency_ns], 0.99)
    if p99.upper99 is not None or p99.value is None or p99.value > bound_ns:
        return None
    return math.ceil(1.2 * samples_needed(0.99) / correlation([trial.latency_ns])[1])


def _trial(
    rate: float, ask: Ask, lanes: Sequence[Call], inputs: Sequence[Any], seed: int
) -> Tuple[Trial, List[Tuple[int, Any]]]:
    """Let queries arrive at one rate, and once more as many as it takes to tell what they say."""
    count = max(_TRIAL_LEAST, ask.samples, min(int(ask.seconds * rate), _TRIAL_MOST))
    trial, kept = _serve(rate, count, lanes, inputs, seed)
    needed = _needed(trial, ask.bound_ns or 0)
    most = min(int(_LONGEST_S * rate), _NEEDED_MOST)
    if needed is not None and count < most:
        return _serve(rate, min(needed, most), lanes, inputs, seed)
    return trial, kept


def _serve(
    rate: float, count: int, lanes: Sequence[Call], inputs: Sequence[Any], seed: int
) -> Tuple[Trial, List[Tuple[int, Any]]]:
    chance = random.Random(seed)
    at, arrivals = 0.0, []
    for _ in range(count):
        at += chance.expovariate(rate)
        arrivals.append(int(at * 1e9))
    done, kept = _drain(lanes, inputs, arrivals, seed)
    spent = tuple(end - due for _, due, end in sorted(done))
    return Trial(rate, tuple(arrivals), spent), kept


def _drain(
    lanes: Sequence[Call], inputs: Sequence[Any], arrivals: Sequence[Optional[int]], seed: int
) -> Tuple[List[Tuple[int, int, int]], List[Tuple[int, Any]]]:
    """Have every lane take the next query, wait until it is due, and answer it.

    Args:
        lanes: the calls, each on a thread of its own.
        inputs: in turn.
        arrivals: when each query is due, from the start; ``None`` for at once.
        seed: of which outputs are kept.

    Returns:
        For each query its number, when it was due and when it was answered, in nanoseconds from
        the start; and up to 64 outputs, each with the index of its input.
    """
    outputs, lock = Reservoir(seed, len(arrivals)), threading.Lock()
    numbers = iter(range(len(arrivals)))
    done: List[Tuple[int, int, int]] = []
    start = now_ns()

    def work(lane: Call) -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            due = arrivals[number] or 0
            wait_until(start + due, alone=len(lanes) == 1)
            index = number % len(inputs)
            output = lane(inputs[index])
            end = now_ns() - start
            with lock:
                done.append((number, due, end))
                outputs.offer((index, output))

    if len(lanes) == 1:
        work(lanes[0])
    else:
        with ThreadPoolExecutor(len(lanes)) as pool:
            list(pool.map(work, lanes))
    return done, outputs.kept
