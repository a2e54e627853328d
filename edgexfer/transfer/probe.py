"""Strategy ``probe``: a new head on a backbone that stays as it is (linear probing).

The cheapest transfer, and the yardstick of the others: it cannot forget and hardly overfits. Its
accuracy says how good the features are for the new classes (Kornblith et al., "Do Better ImageNet
Models Transfer Better?", CVPR 2019). The features of all images, as validation sees them, are
computed once; the head is then a logistic regression or a linear SVM on them, min_w ||w||²/2 + C
Σ loss, of features brought to mean 0 and deviation 1, which is written into the model's own head.

Of the schedule, optimiser and augmentation only ``head: trained`` makes use; it is a probe in the
training loop, worth its time where the views of augmentation help, and the one for several tasks.
A perceptron of several layers is not offered: an architecture has a linear head, and its card could
not rebuild another.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Gt
from torch import Tensor, nn

from edgexfer.core.errors import ModelError, RecipeError
from edgexfer.core.files import make_dir, write_atomic
from edgexfer.data.images import Images
from edgexfer.models.freeze import freeze_backbone
from edgexfer.models.head import head_names
from edgexfer.training import checkpoint
from edgexfer.training.distributed import world
from edgexfer.training.evaluate import predict_logits
from edgexfer.training.job import FitResult, Job
from edgexfer.training.stage import images_of
from edgexfer.transfer.plan import STRICT, Plan, Subject

MULTI_TASK = True
NEEDS_WEIGHTS = True
Float = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
# What is tried where C is not given, from the firmest on.
_CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
_FILE = "features.safetensors"
_ITERATIONS = 1000


@dataclass(frozen=True)
class Options:
    """How the head comes to be.

    Attributes:
        head: logistic, svm (whose outputs are margins, no log probabilities), or trained (by the
            training loop, with its schedule and augmentation).
        c: C of logistic and svm; unset takes the one, from 1e-4 to 100, that is best on the val
            images.
    """

    __pydantic_config__ = STRICT

    head: Literal["logistic", "svm", "trained"] = "logistic"
    c: Annotated[float, Gt(0)] | None = None


@dataclass(frozen=True)
class Head:
    """A linear map from features to outputs.

    Attributes:
        weight: (C, D).
        bias: (C,).
        iterations: of the solver.
    """

    weight: Float
    bias: Float
    iterations: int

    def top1_pct(self, features: Float, labels: Labels) -> float:
        """Return the share of rows (N, D) whose largest output is the label, in percent."""
        found = (features @ self.weight.T + self.bias).argmax(1)
        return 100 * float((found == labels).mean())


def prepare(subject: Subject) -> Plan:
    """Freeze all but the head.

    Raises:
        RecipeError: C is given for a head that has none, or several tasks to one that is fitted.
        ModelError: the head is no linear layer with a bias.
    """
    options: Options = subject.options
    frozen = freeze_backbone(subject.built.model)
    if options.head == "trained":
        if options.c is not None:
            raise RecipeError(
                "strategy probe: c is set, but the head is trained by steps",
                "leave out c, or use --option head=logistic",
            )
        return Plan(frozen=frozen)
    if subject.dataset.tasks:
        raise RecipeError(
            f"strategy probe: head {options.head} knows one label of each image, data.labels has "
            f"{len(subject.dataset.tasks)} tasks",
            "use --option head=trained, or leave data.labels out",
        )
    heads = _heads(subject.built.model)
    report: dict[str, Any] = {}
    return Plan(
        frozen=frozen,
        train=partial(_train, subject, heads, report),
        results=lambda: {"probe": report},
    )


def fit_head(features: Float, labels: Labels, options: Options, c: float, seed: int) -> Head:
    """Fit a linear classifier.

    Args:
        features: (N, D).
        labels: (N,), 0..C-1, each of which occurs.
        options: which one.
        c: C.
        seed: of the order in which ``svm`` looks at the rows.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    mean, deviation = features.mean(0), features.std(0)
    deviation[deviation == 0] = 1
    model: Any
    if options.head == "svm":
        model = LinearSVC(C=c, dual="auto", max_iter=_ITERATIONS, random_state=seed)
    else:
        model = LogisticRegression(C=c, max_iter=_ITERATIONS)
    with warnings.catch_warnings():
        # With hardly any penalty the last digits take long, and decide nothing.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit((features - mean) / deviation, labels)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        # Two classes have one row z between them: the softmax of (-z/2, z/2) is its sigmoid.
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / deviation
    return Head(weight, bias - weight @ mean, int(np.max(model.n_iter_)))


def choose_c(
    train: tuple[Float, Labels], val: tuple[Float, Labels], options: Options, seed: int
) -> tuple[float, dict[str, float]]:
    """Return the C that is best on the val features, of equals the firmest, and all accuracies.

    Args:
        train: features (N, D) and labels (N,).
        val: likewise.
        options: which classifier.
        seed: as for ``fit_head``.

    Raises:
        RecipeError: there are no val images.
    """
    if not len(val[1]):
        raise RecipeError(
            "strategy probe: there are no val images to choose C by",
            "add some, or give --option c=1",
        )
    tried = {c: fit_head(*train, options, c, seed).top1_pct(*val) for c in _CS}
    return max(tried, key=lambda c: tried[c]), {f"{c:g}": top1 for c, top1 in tried.items()}


def _heads(model: nn.Module) -> list[nn.Linear]:
    """Return the model's head, or both where it is distilled."""
    heads = []
    for name in head_names(model):
        head = model.get_submodule(name)
        if not isinstance(head, nn.Linear) or head.bias is None:
            raise ModelError(
                f"strategy probe: the head {name} of {type(model).__name__} is no linear layer "
                "with a bias",
                "use --option head=trained, or --strategy freeze",
            )
        heads.append(head)
    return heads


def _train(
    subject: Subject, heads: Sequence[nn.Linear], report: dict[str, Any], job: Job
) -> FitResult:
    """Fit the head; of several processes the leader does, and the others wait for it to end."""
    started = time.monotonic()
    if not world().leader:
        return FitResult(0, 0, None, 0, None, 0.0, "fp32", 0, 0.0, 0)
    options: Options = subject.options
    seed = job.section.seed
    kept = _features(subject, heads, job)
    spent = time.monotonic() - started
    train = (kept["train"].double().numpy(), kept["train_labels"].numpy())
    val = (kept["val"].double().numpy(), kept["val_labels"].numpy())
    if options.c is None:
        report["c"], report["val_top1_pct"] = choose_c(train, val, options, seed)
    else:
        report["c"] = options.c
    head = fit_head(*train, options, report["c"], seed)
    _write(head, heads)
    job.model.eval()
    top1_pct = head.top1_pct(*val) if len(val[1]) else None
    return FitResult(
        steps=head.iterations,
        epochs=1,
        best_val_top1_pct=top1_pct,
        best_epoch=1 if top1_pct is not None else 0,
        val_top1_pct=top1_pct,
        images_per_s=(len(train[1]) + len(val[1])) / spent,
        precision="fp32",
        micro_batch=0,
        seconds=time.monotonic() - started,
        resumed_from=0,
    )


def _features(subject: Subject, heads: Sequence[nn.Linear], job: Job) -> Mapping[str, Tensor]:
    """Compute the features of train and val images, or read those that an earlier process kept."""
    from safetensors.torch import load, save

    place = job.run.path / checkpoint.FOLDER / _FILE
    if not place.is_file():
        kept: dict[str, Tensor] = {}
        for split in ("train", "val"):
            images = images_of(subject.data, subject.dataset, split, job.preprocess)
            kept[split], kept[f"{split}_labels"] = _inputs(job, heads, images), images.labels
        make_dir(place.parent)
        write_atomic(place, save(kept))
    return load(place.read_bytes())


def _inputs(job: Job, heads: Sequence[nn.Linear], images: Images) -> Tensor:
    """Return what goes into the heads for each image, side by side, float32 (N, D)."""
    # The first row is empty: there may be no image.
    caught = [[torch.zeros(0, head.in_features)] for head in heads]

    def catch(rows: list[Tensor], _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows.append(inputs[0].float().cpu())

    handles = [
        head.register_forward_pre_hook(partial(catch, rows))
        for head, rows in zip(heads, caught, strict=True)
    ]
    try:
        if len(images):
            predict_logits(job.model, job.preprocess, images)
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat([torch.cat(rows) for rows in caught], dim=1)


@torch.no_grad()
def _write(head: Head, heads: Sequence[nn.Linear]) -> None:
    """Put a classifier into the model's head; of two, which are averaged, each gets its part."""
    begin = 0
    for module in heads:
        end = begin + module.in_features
        module.weight.copy_(torch.from_numpy(head.weight[:, begin:end] * len(heads)))
        module.bias.copy_(torch.from_numpy(head.bias))
        begin = end
