from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from edgexfer.bench.steady import (
    CpuTimes,
    Noise,
    clock_faults,
    complaints,
    parse_cpu_times,
    windows_agree,
)
from edgexfer.core.codec import encode
from edgexfer.core.samples import Reference
from tests.bench.made import make_run

QUIET = Noise(0.0, 0.0, 0, 1.0, 10**9, 0, 0)


def _window(centre: float, seed: int, n: int = 30, spread: float = 0.01) -> list[int]:
    chance = random.Random(seed)
    return [int(centre * chance.gauss(1, spread)) for _ in range(n)]


def test_two_windows_of_one_steady_state_agree() -> None:
    agreed = sum(windows_agree(_window(1e6, 2 * s), _window(1e6, 2 * s + 1)) for s in range(200))
    assert agreed >= 195


@pytest.mark.parametrize("change", [0.9, 1.1])
def test_a_step_is_no_steady_state(change: float) -> None:
    assert not windows_agree(_window(1e6, 0), _window(1e6 * change, 1))


def test_a_wider_spread_is_no_steady_state() -> None:
    assert not windows_agree(_window(1e6, 0, 500), _window(1e6, 1, 500, spread=0.2))


def test_a_ramp_is_no_steady_state_although_medians_agree() -> None:
    ramp = [1_000_000 + 500 * i for i in range(-15, 15)]
    assert not windows_agree(ramp, ramp)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"foreign_pct": 35.0}, "busy machine: other processes used 35 % of its CPUs"),
        ({"steal_pct": 2.0}, "busy host: it took 2.0 % of the CPU time (steal)"),
        ({"waiting_pct": 41.0}, "busy machine: tasks waited for a CPU in 41 % of the time"),
    ],
)
def test_each_kind_of_noise_is_named(changes: dict[str, Any], text: str) -> None:
    run = make_run(noise=encode(replace(QUIET, **changes)))
    assert (complaints(run), clock_faults(run)) == ([text], [])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"suspended_ns": 3 * 10**9}, "clock: the machine slept for 3.0 s meanwhile"),
        ({"slewed_ns": -5_000_000}, "clock: it was set by -5.0 ms meanwhile"),
    ],
)
def test_a_clock_that_cannot_be_believed_is_named(changes: dict[str, Any], text: str) -> None:
    run = make_run(noise=encode(replace(QUIET, **changes)))
    assert (complaints(run), clock_faults(run)) == ([], [text])


def test_times_that_run_backwards_are_a_fault_of_the_clock() -> None:
    assert clock_faults(make_run(infer_ns=(5, -1))) == ["clock: a latency is negative"]
    assert clock_faults(make_run(infer_ns=(5, 5), issued_ns=(9, 8))) == [
        "clock: a query was issued before the one that came first"
    ]


def test_a_core_that_is_taken_away_shows_in_the_reference_kernel() -> None:
    times = [1000, 1010, 990, 2000, 1900, 1000, 1020, 1000, 1000, 1000]
    run = make_run(references=tuple(Reference(i, ns) for i, ns in enumerate(times)))
    assert complaints(run) == [
        "busy machine: the reference kernel took up to 102 % longer in 2 of 10 pauses"
    ]
    once = make_run(references=run.references[:1])
    assert complaints(once) == []


def test_a_quiet_machine_gives_no_complaint() -> None:
    run = make_run(noise=encode(QUIET))
    assert complaints(run) + clock_faults(run) == []
    assert complaints(make_run()) == []


def test_proc_stat_is_read_by_its_fields() -> None:
    text = "cpu  100 5 50 800 40 3 2 7 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
    assert parse_cpu_times(text) == CpuTimes(total=1007, busy=160, steal=7)


@pytest.mark.parametrize(
    "text", ["", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8 9", "cpu a b c d e f g h i"]
)
def test_another_proc_stat_is_no_reading(text: str) -> None:
    assert parse_cpu_times(text) is None
