"""Heads that are fitted to features: logistic regression, linear SVM and perceptron.

All minimise ||w||²/2 + C Σ loss over their weights w, of features at mean 0 and deviation 1, and
are given for the features as they are. What becomes of them in a model stands in ``probe.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgexfer.bench.tasks import right
from edgexfer.core.errors import RecipeError
from edgexfer.core.tasks import Task, spans

Float = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Fitted = Literal["logistic", "svm", "mlp"]
# What is tried where C is not given, from the firmest on.
_CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_ITERATIONS = 1000


@dataclass(frozen=True)
class Form:
    """Which head is fitted.

    Attributes:
        kind: logistic, svm or mlp.
        hidden: units of an mlp's hidden layer, of several tasks for each.
        seed: of the order in which an svm looks at the rows, and of what an mlp begins with.
    """

    kind: Fitted = "logistic"
    hidden: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Layer:
    """A linear map.

    Attributes:
        weight: (outputs, inputs).
        bias: (outputs,).
    """

    weight: Float
    bias: Float

    def __call__(self, inputs: Float) -> Float:
        """Return the outputs, a row for each row of inputs."""
        found: Float = inputs @ self.weight.T + self.bias
        return found


@dataclass(frozen=True)
class Head:
    """What is made of features.

    Attributes:
        out: what the outputs come from: the features, or the hidden layer's units.
        iterations: of the solver.
        hidden: of a perceptron the layer before, whose units are cut off below 0.
    """

    out: Layer
    iterations: int
    hidden: Layer | None = None

    def __call__(self, features: Float) -> Float:
        """Return the outputs (N, C) for features (N, D)."""
        return self.out(features if self.hidden is None else np.maximum(self.hidden(features), 0.0))


def fit_head(features: Float, labels: Labels, form: Form, c: float) -> Head:
    """Fit a classifier.

    Args:
        features: (N, D).
        labels: (N,), 0..C-1, each of which occurs.
        form: which one.
        c: C.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import LinearSVC

    mean, deviation = features.mean(0), features.std(0)
    deviation[deviation == 0] = 1
    model: Any
    if form.kind == "svm":
        model = LinearSVC(C=c, dual="auto", max_iter=_ITERATIONS, random_state=form.seed)
    elif form.kind == "mlp":
        # The mean of the losses and alpha ||w||²/2N: the formula over NC.
        model = MLPClassifier(
            (form.hidden,),
            solver="lbfgs",
            alpha=1 / c,
            max_iter=_ITERATIONS,
            random_state=form.seed,
        )
    else:
        model = LogisticRegression(C=c, max_iter=_ITERATIONS)
    with warnings.catch_warnings():
        # With hardly any penalty the last digits take long, and decide nothing.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((features - mean) / deviation, labels)
    iterations = int(np.max(model.n_iter_))
    if form.kind == "mlp":
        first, last = map(Layer, (w.T for w in model.coefs_), model.intercepts_)
        return Head(_one_each(last), iterations, _of_raw(first, mean, deviation))
    return Head(
        _of_raw(_one_each(Layer(model.coef_, model.intercept_)), mean, deviation), iterations
    )


def choose_c(
    train: tuple[Float, Labels], val: tuple[Float, Labels], form: Form
) -> tuple[float, dict[str, float]]:
    """Return the C that is best on the val features, of equals the firmest, and all accuracies.

    Args:
        train: features (N, D) and labels (N,).
        val: likewise.
        form: which classifier.
    """
    tried = {c: top1_pct(fit_head(*train, form, c), *val) for c in _CS}
    return max(tried, key=lambda c: tried[c]), {f"{c:g}": top1 for c, top1 in tried.items()}


def fit_tasks(
    train: tuple[Float, Labels],
    val: tuple[Float, Labels],
    form: Form,
    c: float | None,
    classes: Sequence[str],
    tasks: Sequence[Task] = (),
) -> tuple[Head, dict[str, Any]]:
    """Fit the heads of all tasks, each on the images that have its label, and put them together.

    Args:
        train: features (N, D) and labels (N,) or (N, T), places among the outputs; -1 for none.
        val: likewise.
        form: which classifiers.
        c: C; ``None`` chooses it for each.
        classes: names of the outputs.
        tasks: what they are about, where that is more than one question.

    Returns:
        The head, and C with the accuracies that it was chosen by; of several tasks for each.

    Raises:
        RecipeError: there are no val images to choose C by, or none to train a class on.
    """
    refuse_few(train[1], val[1], c, classes, tasks)
    heads, reports = [], []
    for number, (begin, _) in enumerate(spans(tasks, len(classes))):
        seen, judges = (_labelled(images, number, begin) for images in (train, val))
        report: dict[str, Any] = {"name": tasks[number].name} if tasks else {}
        if c is None:
            report["c"], report["val_top1_pct"] = choose_c(seen, judges, form)
        else:
            report["c"] = c
        heads.append(fit_head(*seen, form, report["c"]))
        reports.append(report)
    return _side_by_side(heads), {"tasks": reports} if tasks else reports[0]


def refuse_few(
    train: Labels, val: Labels, c: float | None, classes: Sequence[str], tasks: Sequence[Task] = ()
) -> None:
    """Refuse labels that no head can be fitted to, or no C be chosen by; see ``fit_tasks``."""
    for number, (begin, end) in enumerate(spans(tasks, len(classes))):
        seen, judges = (labels[:, number] if tasks else labels for labels in (train, val))
        _refuse_too_few(seen[seen >= 0] - begin, classes[begin:end])
        if c is None:
            _refuse_no_judges(judges[judges >= 0], tasks[number] if tasks else None)


def _labelled(images: tuple[Float, Labels], number: int, begin: int) -> tuple[Float, Labels]:
    """Return the features and classes of the images that have a label of one task."""
    features, labels = images
    ours = labels[:, number] if labels.ndim > 1 else labels
    return features[ours >= 0], ours[ours >= 0] - begin


def _refuse_too_few(labels: Labels, classes: Sequence[str]) -> None:
    lacking = sorted(set(range(len(classes))) - set(labels.tolist()))
    if lacking:
        raise RecipeError(
            f"strategy probe: no training image has the label {classes[lacking[0]]}",
            "label some more, raise data.train_limit, or use --option head=trained",
        )


def _refuse_no_judges(labels: Labels, task: Task | None) -> None:
    if not len(labels):
        of_task = "" if task is None else f" with a label of {task.name}"
        raise RecipeError(
            f"strategy probe: there are no val images{of_task} to choose C by",
            "add some, or give --option c=1",
        )


def _one_each(layer: Layer) -> Layer:
    """Return an output for each class: of two, one row z is between them.

    The softmax of (-z/2, z/2) is the sigmoid of z.
    """
    if len(layer.weight) > 1:
        return layer
    weight, bias = layer.weight / 2, layer.bias / 2
    return Layer(np.concatenate([-weight, weight]), np.concatenate([-bias, bias]))


def _of_raw(layer: Layer, mean: Float, deviation: Float) -> Layer:
    """Return for features what a layer is for them at mean 0 and deviation 1."""
    weight = layer.weight / deviation
    return Layer(weight, layer.bias - weight @ mean)


def _side_by_side(heads: Sequence[Head]) -> Head:
    """Return the heads of several tasks as one; what is hidden in one is nothing to the others."""
    hidden = [head.hidden for head in heads if head.hidden is not None]
    return Head(
        _joined([head.out for head in heads], apart=bool(hidden)),
        max(head.iterations for head in heads),
        _joined(hidden, apart=False) if hidden else None,
    )


def _joined(layers: Sequence[Layer], *, apart: bool) -> Layer:
    """Return one layer with the outputs of all, of the same inputs or of each one's own."""
    from scipy.linalg import block_diag

    weights = [layer.weight for layer in layers]
    weight = block_diag(*weights) if apart else np.concatenate(weights)
    return Layer(weight, np.concatenate([layer.bias for layer in layers]))


def top1_pct(head: Head, features: Float, labels: Labels, tasks: Sequence[Task] = ()) -> float:
    """Return the share of images whose every label is what the head says, in percent."""
    return 100 * float(right(head(features), labels, tasks).mean())
