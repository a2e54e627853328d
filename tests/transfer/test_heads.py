"""Heads that are fitted: each against its formula, of one task and of several side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from edgexfer.core.errors import RecipeError
from edgexfer.core.tasks import Task
from edgexfer.transfer.heads import (
    Fitted,
    Form,
    Labels,
    choose_c,
    fit_head,
    fit_tasks,
    top1_pct,
)

pytestmark = pytest.mark.torch

Float = np.ndarray[Any, np.dtype[np.float64]]


def clouds(classes: int, n: int = 90) -> tuple[Float, np.ndarray[Any, np.dtype[np.int64]]]:
    """Overlapping clouds in five dimensions, each dimension on another scale; one is constant."""
    chance = np.random.default_rng(0)
    labels = np.arange(n) % classes
    features = chance.normal(size=(n, 5)) + chance.normal(size=(classes, 5))[labels]
    features[:, 4] = 3.0
    return features * [1, 10, 0.1, 100, 1] + 5, labels


@pytest.mark.parametrize("classes", [2, 3])
def test_the_logistic_head_minimises_its_formula(classes: int) -> None:
    """Against scipy: ||w||²/2 + C Σ cross entropy, of standardised features, in float64."""
    features, labels = clouds(classes)
    head = fit_head(features, labels, Form(), 0.5)
    x = (features - features.mean(0)) / np.where(features.std(0) > 0, features.std(0), 1)

    # With two classes the one row z between them has the penalty.
    rows = classes if classes > 2 else 1

    def scores(values: Float) -> Float:
        z: Float = x @ values[: rows * 5].reshape(rows, 5).T + values[rows * 5 :]
        return z if rows > 1 else np.concatenate([-z / 2, z / 2], axis=1)

    def objective(values: Float) -> float:
        fit = -log_softmax(scores(values), axis=1)[np.arange(len(labels)), labels].sum()
        return float((values[: rows * 5] ** 2).sum() / 2 + 0.5 * fit)

    best = minimize(objective, np.zeros(rows * 6), method="BFGS", options={"gtol": 1e-7})
    wanted = log_softmax(scores(best.x), axis=1)
    found = log_softmax(head(features), axis=1)
    np.testing.assert_allclose(found, wanted, atol=5e-3)
    assert head.out.weight.shape == (classes, 5)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_svm_tells_the_clouds_apart(classes: int) -> None:
    features, labels = clouds(classes)
    head = fit_head(features, labels, Form("svm"), 1.0)
    found = top1_pct(head, features, labels)
    logistic = top1_pct(fit_head(features, labels, Form(), 1.0), features, labels)
    assert found == pytest.approx(logistic, abs=6) and found > 75
    same = fit_head(features, labels, Form("svm"), 1.0)
    assert same.out.weight.tobytes() == head.out.weight.tobytes()


@pytest.mark.parametrize("classes", [2, 3])
def test_the_perceptron_stands_in_a_dip_of_its_formula(classes: int) -> None:
    """||w||²/2 + C Σ cross entropy of standardised features is more wherever one goes from it."""
    features, labels = clouds(classes)
    mean, deviation = features.mean(0), np.where(features.std(0) > 0, features.std(0), 1)
    x = (features - mean) / deviation

    def weights(c: float) -> list[Float]:
        head = fit_head(features, labels, Form("mlp", hidden=8), c)
        assert head.hidden is not None
        first = head.hidden.weight * deviation
        offset = head.hidden.bias + head.hidden.weight @ mean
        return [first, offset, head.out.weight, head.out.bias]

    layers = weights(0.5)
    assert [layer.shape for layer in layers] == [(8, 5), (8,), (classes, 8), (classes,)]

    def objective(w1: Float, b1: Float, w2: Float, b2: Float) -> float:
        scores = np.maximum(x @ w1.T + b1, 0) @ w2.T + b2
        fit = -log_softmax(scores, axis=1)[np.arange(len(labels)), labels].sum()
        # Of two classes the one row between them, their difference, has the penalty.
        own = w2 if classes > 2 else w2[1] - w2[0]
        return float(((w1**2).sum() + (own**2).sum()) / 2 + 0.5 * fit)

    here, chance = objective(*layers), np.random.default_rng(0)
    for _ in range(100):
        steps = [chance.normal(size=layer.shape) for layer in layers]
        for size in (1e-3, 1e-2):
            near = [layer + size * step for layer, step in zip(layers, steps, strict=True)]
            assert objective(*near) > here
    # And with another C it is another place.
    assert objective(*weights(0.4)) > here and objective(*weights(0.6)) > here


def test_a_perceptron_tells_apart_what_no_line_does() -> None:
    """Opposite quarters of the plane belong together; the seed alone decides where it ends."""
    features = np.random.default_rng(0).uniform(-1, 1, (400, 2))
    labels = (features[:, 0] * features[:, 1] > 0).astype(np.int64)
    seen, unseen = (features[:200], labels[:200]), (features[200:], labels[200:])
    line, head, same, other = (
        fit_head(*seen, form, 1.0)
        for form in (Form(), Form("mlp"), Form("mlp"), Form("mlp", seed=1))
    )
    assert top1_pct(line, *unseen) < 65 and top1_pct(head, *unseen) > 90
    assert same.out.weight.tobytes() == head.out.weight.tobytes()
    assert other.out.weight.tobytes() != head.out.weight.tobytes()


def test_c_is_the_best_on_the_val_images_and_the_firmest_of_equals() -> None:
    features, labels = clouds(3)
    val = (features[:30], labels[:30])
    c, tried = choose_c((features[30:], labels[30:]), val, Form())
    assert len(tried) == 7 and tried[f"{c:g}"] == max(tried.values())
    assert c == min(float(k) for k, v in tried.items() if v == max(tried.values()))
    one = fit_head(features[30:], labels[30:], Form(), c)
    assert top1_pct(one, *val) == tried[f"{c:g}"]


TASKS = (Task("first", ("a", "b", "c")), Task("second", ("x", "y")))


def two_tasks(n: int = 90) -> tuple[Float, Labels]:
    """Clouds with a label in each of two tasks, a quarter of either missing."""
    features, labels = clouds(3, n)
    second = 3 + (features[:, 0] > np.median(features[:, 0]))
    both = np.stack([labels, second], axis=1)
    both[::4, 0] = -1
    both[1::4, 1] = -1
    chance = np.random.default_rng(1).permutation(n)
    return features[chance], both[chance]


@pytest.mark.parametrize("kind", ["logistic", "svm", "mlp"])
def test_each_task_is_solved_on_the_images_that_have_its_label(kind: Fitted) -> None:
    features, labels = two_tasks()
    train, val = (features[20:], labels[20:]), (features[:20], labels[:20])
    form = Form(kind, hidden=4)
    head, report = fit_tasks(train, val, form, None, "abcxy", TASKS)
    assert [task["name"] for task in report["tasks"]] == ["first", "second"]
    begin = 0
    for number, (task, found) in enumerate(zip(TASKS, report["tasks"], strict=True)):
        end = begin + len(task.classes)
        seen, judges = (
            (x[y[:, number] >= 0], y[y[:, number] >= 0, number] - begin) for x, y in (train, val)
        )
        c, tried = choose_c(seen, judges, form)
        assert (found["c"], found["val_top1_pct"]) == (c, tried)
        alone = fit_head(*seen, form, c)
        np.testing.assert_allclose(head(features)[:, begin:end], alone(features), atol=1e-9)
        begin = end


@pytest.mark.parametrize(
    ("train", "val", "c", "what", "fix"),
    [
        ([[0, 3], [1, 4], [2, 4]], [[-1, 3]], None, "no val images with a label of first", "c=1"),
        ([[0, 3], [1, 4], [-1, 4]], [[0, 3]], 1.0, "no training image has the label c", "trained"),
    ],
)
def test_a_task_with_too_few_labels_is_refused(
    train: list[list[int]], val: list[list[int]], c: float | None, what: str, fix: str
) -> None:
    some = [(clouds(3, len(labels))[0], np.array(labels)) for labels in (train, val)]
    with pytest.raises(RecipeError) as caught:
        fit_tasks(some[0], some[1], Form(), c, "abcxy", TASKS)
    assert what in caught.value.what and fix in caught.value.fix


def test_without_val_images_c_cannot_be_chosen() -> None:
    features, labels = clouds(3)
    with pytest.raises(RecipeError, match="no val images to choose C by") as caught:
        fit_tasks((features, labels), (features[:0], labels[:0]), Form(), None, "abc")
    assert "--option c=1" in caught.value.fix
