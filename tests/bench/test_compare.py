from __future__ import annotations

import math

import numpy as np
import pytest

from edgexfer.bench.compare import compare, ratio_db


def test_equal_outputs_have_no_noise() -> None:
    y = np.array([[1.0, 2.0], [4.0, 3.0]], np.float32)
    found = compare(y, y.copy())
    assert (found.n, found.sqnr_db, found.max_abs, found.agreement_pct) == (2, None, 0.0, 100.0)
    assert found.at_least(1e9)


def test_the_ratio_is_that_of_its_definition() -> None:
    y = np.array([[3.0, 4.0]])
    found = compare(y, np.array([[3.0, 4.05]]))
    assert found.sqnr_db == pytest.approx(40.0)  # 20 log10(5 / 0.05)
    assert found.max_abs == pytest.approx(0.05)
    assert found.at_least(39.9)
    assert not found.at_least(40.1)


def test_agreement_counts_images() -> None:
    y = np.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.1], [0.3, 0.4]])
    other = np.array([[0.0, 2.0], [0.0, 1.0], [0.3, 0.1], [0.3, 0.4]])
    assert compare(y, other).agreement_pct == 75.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_never_passes(bad: float) -> None:
    y = np.ones((2, 2))
    other = y.copy()
    other[0, 0] = bad
    found = compare(y, other)
    assert not found.at_least(-100.0)
    assert found.agreement_pct == 50.0


def test_silence_is_not_a_signal() -> None:
    assert not compare(np.zeros((1, 2)), np.ones((1, 2))).at_least(0.0)


@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((0, 3), (0, 3)), ((3,), (3,))])
def test_shapes_that_cannot_be_compared(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="cannot compare logits of shapes"):
        compare(np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_the_ratio_of_arrays_of_any_shape() -> None:
    y = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    assert ratio_db(y, y.reshape(6, 4)) == 1000.0
    assert ratio_db(y, y * np.float32(1.5)) == pytest.approx(20 * math.log10(2), abs=1e-5)
    assert ratio_db(y, y[1:]) == -1000.0
    assert ratio_db(y, np.full_like(y, np.inf)) == -1000.0
    assert ratio_db(np.zeros_like(y), y) == -1000.0
