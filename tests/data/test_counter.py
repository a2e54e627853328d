"""The counter-based hash: pure, well mixed, independent streams."""

from __future__ import annotations

import numpy as np

from edgexfer.data.counter import hashed, order, text_uniform, uniform


def test_a_number_depends_on_its_index_and_words_alone() -> None:
    together = hashed(np.arange(100), 3, 5)
    alone = [int(hashed(i, 3, 5)) for i in range(100)]
    assert together.tolist() == alone
    assert len(set(alone)) == 100


def test_values_are_pinned() -> None:
    # A change here changes every split, order and view of runs that already exist.
    assert [int(v) for v in hashed(np.arange(3), 1, 2)] == [
        5803727657181717140,
        2726225660025633217,
        15225758135607977585,
    ]
    assert order(6, 0, 0).tolist() == [0, 2, 5, 4, 3, 1]
    assert text_uniform(0, "a/1.jpg") == 0.38902090440044357


def test_uniform_is_uniform_and_streams_are_independent() -> None:
    first, second = uniform(np.arange(20_000), 7, 1), uniform(np.arange(20_000), 7, 2)
    for sample in (first, second):
        assert sample.min() >= 0
        assert sample.max() < 1
        counts = np.histogram(sample, 20, (0, 1))[0]
        assert abs(counts - 1000).max() < 5 * np.sqrt(1000)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.03


def test_order_is_a_permutation_that_differs_by_epoch() -> None:
    one, two = order(500, 0, 1), order(500, 0, 2)
    assert sorted(one) == list(range(500))
    assert (one != two).mean() > 0.9
