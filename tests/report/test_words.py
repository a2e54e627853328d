from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgexfer.report import words


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (None, "–"),
        (0, "0 ms"),
        (189_400, "0.189 ms"),
        (999_600, "1.00 ms"),
        (3_120_000, "3.12 ms"),
        (99_960_000, "100 ms"),
        (1_234_567_890, "1230 ms"),
        (950, "0.000950 ms"),
    ],
)
def test_latency_has_three_digits_and_its_unit(ns: float | None, shown: str) -> None:
    assert words.milliseconds(ns) == shown


@given(st.floats(1e-9, 1e9))
def test_three_digits_keep_the_value_within_half_a_percent(value: float) -> None:
    shown = words.significant(value)
    assert "e" not in shown
    assert float(shown) == pytest.approx(value, rel=5.1e-3)


def test_sizes_are_in_si_units() -> None:
    assert [words.size(n) for n in (None, 0, 999, 1000, 83_000, 1_120_000, 2.5e9)] == [
        "–",
        "0 B",
        "999 B",
        "1.00 kB",
        "83.0 kB",
        "1.12 MB",
        "2.50 GB",
    ]


def test_percentages_near_one_hundred_keep_the_errors_visible() -> None:
    assert [words.percent(v) for v in (None, 0.0, 97.25, 99.86, 100.0)] == [
        "–",
        "0.0 %",
        "97.2 %",
        "99.86 %",
        "100.0 %",
    ]


def test_differences_say_their_size_and_sign() -> None:
    assert [words.points(v) for v in (0.0, 0.04, -1.0, 2.34)] == [
        "0.0 points",
        "0.04 points",
        "1.0 point",
        "2.3 points",
    ]
    assert [words.signed(v) for v in (0.0, -0.04, -1.26, 2.0)] == ["0.0", "0.0", "−1.3", "2.0"]


def test_counts_and_lists_read_as_english() -> None:
    assert words.count(1, "image") == "1 image"
    assert words.count(12_000, "image") == "12\u202f000 images"
    assert [words.joined(n) for n in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_names_lose_what_could_reorder_or_break_a_line() -> None:
    assert words.clean("a\x00b\nc\u202ed\u2028e") == "a\ufffdb\ufffdc\ufffdd\ufffde"
    assert words.clean("👩\u200d🔬 é") == "👩\u200d🔬 é"
    assert words.clean("x" * 10_000) == "x" * 199 + "…"


@given(st.text())
def test_clean_is_idempotent_and_one_line(text: str) -> None:
    once = words.clean(text)
    assert words.clean(once) == once
    assert len(once.splitlines()) <= 1


def test_a_number_stays_with_its_unit() -> None:
    assert words.tied("97.5 % in 0.2 ms, 3 points") == "97.5\u00a0% in 0.2\u00a0ms, 3\u00a0points"
    assert words.tied("5 msgs, 2 Bars") == "5 msgs, 2 Bars"
