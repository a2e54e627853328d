from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgexfer.bench.accuracy import predict, predict_apart, score
from edgexfer.bench.tasks import confidences
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.stats import wilson
from tests.bundles import PREPROCESS, SIZE, write_null


def test_batches_do_not_change_which_image_is_which(tmp_path: Path) -> None:
    session = get_backend("null").load(write_null(tmp_path / "a.npz"), Plan())
    images = np.random.default_rng(0).integers(0, 256, (7, SIZE, SIZE, 3), dtype=np.uint8)
    single = predict(session, images, PREPROCESS)
    assert single.shape == (7, 3)
    assert single.dtype == np.float32
    np.testing.assert_allclose(predict(session, images, PREPROCESS, batch=3), single, rtol=1e-4)


def test_images_that_are_shared_out_come_back_in_their_order(tmp_path: Path) -> None:
    session = get_backend("null").load(write_null(tmp_path / "a.npz"), Plan())
    images = np.random.default_rng(0).integers(0, 256, (7, SIZE, SIZE, 3), dtype=np.uint8)
    single = predict(session, images, PREPROCESS)
    for n in (1, 2, 7, 9):
        assert np.array_equal(predict_apart([session] * n, images, PREPROCESS), single)


def test_the_score_counts_and_bounds() -> None:
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [5.0, 1.0], [1.0, 3.0]])
    found = score(logits, np.array([0, 1, 1, 1]), "test", reference=np.array([0, 1, 0, 0]))
    assert (found.split, found.n, found.correct, found.top1_pct) == ("test", 4, 3, 75.0)
    low, high = wilson(3, 4)
    assert found.low_pct == pytest.approx(100 * low)
    assert found.high_pct == pytest.approx(100 * high)
    assert found.agreement_pct == 75.0
    assert found.predictions == (0, 1, 0, 1)
    assert score(logits, np.array([0, 1, 1, 1]), "test").agreement_pct is None


def test_confidences_are_the_probabilities_of_softmax() -> None:
    logits = np.array([[0.0, np.log(3.0)], [1000.0, 0.0], [5.0, 5.0]], dtype=np.float32)
    assert confidences(logits) == (0.75, 1.0, 0.5)
    assert score(logits, np.array([0, 0, 0]), "test").confidences == (0.75, 1.0, 0.5)
    logits[1, 1] = np.nan
    assert confidences(logits) == ()
