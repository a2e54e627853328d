"""The rule of ties: what the processes' own spread hides is no difference, and size decides."""

from __future__ import annotations

import pytest

from edgexfer.core.fastest import Timed, fastest, is_tie, speed_ratio

FP32 = Timed("fp32", (1.00, 1.01, 0.99), 4000)


def test_a_gap_beyond_the_spread_is_a_difference() -> None:
    int8 = Timed("int8", (0.95, 0.94, 0.95), 1000)
    assert not is_tie(FP32, int8)
    assert fastest([FP32, int8]) == (int8, ())
    assert speed_ratio(int8, FP32) == pytest.approx(1.0 / 0.95)


def test_a_gap_within_the_spread_is_a_tie_that_size_decides() -> None:
    slower = Timed("int8", (1.00, 1.06, 1.02), 1000)
    assert is_tie(FP32, slower)
    assert is_tie(slower, FP32)
    assert fastest([FP32, slower]) == (slower, (FP32,))


def test_of_equal_size_the_first_is_taken() -> None:
    half = Timed("bf16", (0.99, 1.02, 0.98), 4000)
    assert fastest([FP32, half]) == (FP32, (half,))


def test_a_wide_gap_is_no_tie_however_restless_the_machine() -> None:
    slower = Timed("int8", (1.6, 9.0, 1.2), 1000)
    assert slower.spread > speed_ratio(FP32, slower) > 1.1
    assert fastest([FP32, slower]) == (FP32, ())
    little = Timed("int8", (0.97, 1.05, 1.07), 1000)
    assert little.spread > speed_ratio(FP32, little) > 1.03
    assert fastest([FP32, little]) == (FP32, ())


def test_a_tie_is_one_with_the_fastest_and_no_chain() -> None:
    """B ties with A and C with B, but C is not as fast as A."""
    a = Timed("a", (1.00, 1.04, 1.02), 3000)
    b = Timed("b", (1.03, 1.09, 1.05), 2000)
    c = Timed("c", (1.08, 1.07, 1.08), 1000)
    assert is_tie(b, c)
    assert not is_tie(a, c)
    assert fastest([a, b, c]) == (b, (a,))


def test_one_process_each_has_no_spread() -> None:
    one, other = Timed("a", (1.0,), 2), Timed("b", (1.001,), 1)
    assert not is_tie(one, other)
    assert fastest([one, other])[0] is one
