from __future__ import annotations

import random
import time
from typing import Any

import numpy as np

from edgexfer.bench.caching import BLOCK, PAIRS, cached_pct, measure_repeats

FEEDS = [{"x": np.full(4, i)} for i in range(10)]


def _busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_a_runtime_that_remembers_its_last_answer_is_seen() -> None:
    remembered: list[Any] = [None]

    def call(feed: dict[str, Any]) -> None:
        if remembered[0] is not feed:
            _busy(0.0005)
        remembered[0] = feed

    rotated, repeated = measure_repeats(call, FEEDS, cap_s=10)
    assert len(rotated) == len(repeated) == PAIRS * BLOCK
    assert cached_pct([(rotated, repeated)]) > 50


def test_a_runtime_that_computes_each_answer_is_not_accused() -> None:
    chance = random.Random(0)
    accused = 0
    for _ in range(300):
        noise = [round(1e6 * chance.lognormvariate(0, 0.2)) for _ in range(2 * PAIRS * BLOCK)]
        accused += cached_pct([(noise[: PAIRS * BLOCK], noise[PAIRS * BLOCK :])]) > 0
    assert accused <= 6


def test_inputs_change_in_one_kind_of_block_and_stay_in_the_other() -> None:
    seen: list[int] = []
    measure_repeats(lambda feed: seen.append(int(feed["x"][0])), FEEDS, cap_s=10)
    first = seen[: 1 + 2 * BLOCK]
    assert first == [0] * (1 + BLOCK) + [1, 2, 3, 4]
    assert len(set(seen)) == len(FEEDS)


def test_time_ends_it_and_few_pairs_show_nothing() -> None:
    rotated, repeated = measure_repeats(lambda _: _busy(0.001), FEEDS, cap_s=0.0)
    assert len(rotated) == len(repeated) == BLOCK
    assert cached_pct([((100,) * BLOCK, (10,) * BLOCK)]) == 0.0
    assert cached_pct([]) == 0.0
    assert cached_pct([((100,) * 64, (90,) * 64)]) > 9
    assert cached_pct([((100,) * 64, (97,) * 64)]) == 0.0
