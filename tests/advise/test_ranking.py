"""What the half-samples say of a ranking: it is decided where it should be, and not elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from edgexfer.advise.features import HEAD, Features
from edgexfer.advise.ranking import (
    SCORES,
    Ranking,
    Score,
    decision,
    half_samples,
    rank,
)
from edgexfer.advise.transferability import Labels

N = 120
LABELS: Labels = np.arange(N, dtype=np.int64) % 3


def seen(apart: float, seed: int, *, head: bool = False) -> Features:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(3, 8))
    features = (apart * centres[LABELS] + rng.normal(size=(N, 8))).astype(np.float32)
    probabilities = rng.dirichlet(np.ones(4), N).astype(np.float32) if head else None
    return Features({HEAD: features}, probabilities, LABELS, tuple(map(str, range(N))))


def test_a_clear_winner_is_told_apart() -> None:
    rankings = rank({"good": seen(1.5, 1), "bad": seen(0.2, 2), "worse": seen(0.0, 3)}, halves=20)
    assert [r.score for r in rankings] == [s for s in SCORES if s != "leep"]
    first = rankings[0]
    assert first.decided
    assert first.scores[0].source == "good"
    best, why = decision(rankings)
    assert best == "good"
    assert "tells it apart from every other" in why


def test_equal_sources_cannot_be_decided() -> None:
    rankings = rank({"one": seen(0.6, 1), "other": seen(0.6, 2)}, halves=20)
    assert not rankings[0].decided
    best, why = decision(rankings)
    assert best is None
    assert why.startswith("The scores cannot decide: logme")


def test_scores_that_contradict_the_first_one_undo_its_choice() -> None:
    def ranking(score: str, first: str, second: str) -> Ranking:
        return Ranking(
            score, (Score(first, 1.0, 0.9, 1.1), Score(second, 0.0, -0.1, 0.1)), (first,)
        )

    best, why = decision([ranking("logme", "a", "b"), ranking("knn", "b", "a")])
    assert best is None
    assert "only 1 of 2 scores agree (knn chooses b)" in why


def test_a_single_source_is_compared_with_nothing() -> None:
    rankings = rank({"only": seen(1, 1, head=True)}, halves=4)
    assert len(rankings) == len(SCORES)
    assert decision(rankings) == ("only", "only is the only source; nothing is compared.")
    assert decision(()) == (None, "No source was looked at.")


def test_a_source_without_a_head_has_no_leep() -> None:
    rankings = rank({"with": seen(1, 1, head=True), "without": seen(1, 2)}, halves=4)
    leep = next(r for r in rankings if r.score == "leep")
    assert [(s.source, s.value is None) for s in leep.scores] == [
        ("with", False),
        ("without", True),
    ]
    assert leep.scores[1].reason == "it has no trained head"


def test_halves_take_half_of_every_class_and_differ() -> None:
    labels = np.repeat(np.arange(3, dtype=np.int64), [11, 4, 2])
    halves = half_samples(labels, 40, seed=0)
    counts = np.stack([np.bincount(labels[half], minlength=3) for half in halves])
    assert set(counts[:, 0]) == {5, 6}
    assert set(counts[:, 1]) == {2}
    assert set(counts[:, 2]) == {1}
    assert len({half.tobytes() for half in halves}) > 30
    assert all(len(set(half)) == len(half) for half in halves)


@pytest.mark.parametrize("n", [40, 400])
def test_the_spread_over_halves_is_the_standard_error_of_a_mean(n: int) -> None:
    values = np.random.default_rng(3).normal(size=n)
    halves = half_samples(np.zeros(n, np.int64), 2000, seed=1)
    spread = np.std([values[half].mean() for half in halves])
    assert spread == pytest.approx(values.std(ddof=1) / np.sqrt(n), rel=0.08)
