from __future__ import annotations

import random

import pytest

from edgexfer.bench.steady import (
    CpuTimes,
    Noise,
    parse_cpu_times,
    windows_agree,
)

QUIET = Noise(0.0, 0.0, 1000, 1000, 0)


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
    ("noise", "text"),
    [
        (Noise(35.0, 0.0, 1000, 1000, 0), "busy machine: other processes used 35 %"),
        (Noise(0.0, 2.0, 1000, 1000, 0), "busy host: it took 2.0 %"),
        (Noise(0.0, 0.0, 1000, 1200, 0), "speed changed by 20 %"),
        (Noise(None, None, 1000, 800, 0), "speed changed by 20 %"),
    ],
)
def test_each_kind_of_noise_is_named(noise: Noise, text: str) -> None:
    assert len(noise.complaints()) == 1
    assert text in noise.complaints()[0]


def test_a_quiet_machine_gives_no_complaint() -> None:
    assert QUIET.complaints() == []


def test_proc_stat_is_read_by_its_fields() -> None:
    text = "cpu  100 5 50 800 40 3 2 7 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
    assert parse_cpu_times(text) == CpuTimes(total=1007, busy=160, steal=7)


@pytest.mark.parametrize(
    "text", ["", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8 9", "cpu a b c d e f g h i"]
)
def test_another_proc_stat_is_no_reading(text: str) -> None:
    assert parse_cpu_times(text) is None
