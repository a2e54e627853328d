"""Strategy ``probe``: a new head on a backbone that stays as it is.

The cheapest transfer, and the yardstick of the others: it cannot forget and hardly overfits. Its
accuracy says how good the features are for the new classes (Kornblith et al., "Do Better ImageNet
Models Transfer Better?", CVPR 2019). The features of all images, as validation sees them, are
computed once; the head is then a logistic regression, a linear SVM or a perceptron with one hidden
layer on them, min_w ||w||²/2 + C Σ loss over its weights w, of features brought to mean 0 and
deviation 1, which is written into the model's head. A perceptron takes the place of the
architecture's linear head; the model's card says so, so that it is loaded, distilled and exported
like any other. Where it ends depends on where the seed has it begin.

Of several tasks each is solved apart, on the images that have its label, and the heads are put side
by side: a perceptron's hidden layer has units of its own for each task.

Of the schedule, optimiser and augmentation only ``head: trained`` makes use; it is a probe in the
training loop, worth its time where the views of augmentation help.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn

from edgexfer.core.errors import ModelError, RecipeError
from edgexfer.core.files import make_dir, write_atomic
from edgexfer.data.images import Images
from edgexfer.models.freeze import freeze_backbone
from edgexfer.models.head import HIDDEN, Perceptron, head_names, set_head
from edgexfer.recipe import Count
from edgexfer.training import checkpoint
from edgexfer.training.distributed import world
from edgexfer.training.evaluate import predict_logits
from edgexfer.training.job import FitResult, Job
from edgexfer.training.stage import images_of
from edgexfer.transfer.heads import Form, Head, Layer, fit_tasks, refuse_few, top1_pct
from edgexfer.transfer.plan import STRICT, Plan, Subject

MULTI_TASK = True
NEEDS_WEIGHTS = True
_FILE = "features.safetensors"


@dataclass(frozen=True)
class Options:
    """How the head comes to be.

    Attributes:
        head: ``logistic``, ``svm`` (whose outputs are margins, no log probabilities), ``mlp`` (a
            hidden layer before the outputs), or ``trained`` (by the training loop, with its
            schedule and augmentation).
        c: C of logistic, svm and mlp; unset takes the one, from 1e-4 to 100, that is best on the
            val images.
        hidden: units of an mlp's hidden layer, of several tasks for each; unset takes 64.
    """

    __pydantic_config__ = STRICT

    head: Literal["logistic", "svm", "mlp", "trained"] = "logistic"
    c: Annotated[float, Gt(0)] | None = None
    hidden: Count | None = None


def prepare(subject: Subject) -> Plan:
    """Freeze all but the head, which becomes a perceptron where that is asked for.

    Raises:
        RecipeError: an option is given for a head that has none of the kind, or there are too few
            labels.
        ModelError: the head is not a linear layer with a bias, or there are two for a perceptron.
    """
    options: Options = subject.options
    model = subject.built.model
    if options.head == "trained" and options.c is not None:
        raise RecipeError(
            "strategy probe: c is set, but the head is trained by steps",
            "leave out c, or use --option head=logistic",
        )
    if options.head != "mlp" and options.hidden is not None:
        raise RecipeError(
            f"strategy probe: hidden is set, but head {options.head} has no hidden layer",
            "leave out hidden, or use --option head=mlp",
        )
    if options.head == "trained":
        return Plan(frozen=freeze_backbone(model))
    dataset = subject.dataset
    train, val = (dataset.splits[split].labels for split in ("train", "val"))
    refuse_few(train, val, options.c, dataset.classes, dataset.tasks)
    form = Form(options.head, options.hidden or Form.hidden, subject.section.train.seed)
    names = _linear_heads(model)
    if options.head == "mlp":
        if len(names) > 1:
            raise ModelError(
                f"{subject.built.name}: has two heads ({' and '.join(names)}), but a perceptron is "
                "one",
                "use --option head=logistic",
            )
        width = form.hidden * max(len(dataset.tasks), 1)
        set_head(model, len(dataset.classes), seed=form.seed, hidden=width)
        subject.built.options[HIDDEN] = width
    report: dict[str, Any] = {}
    return Plan(
        frozen=freeze_backbone(model),
        train=partial(_train, subject, form, names, report),
        results=lambda: {"probe": report},
    )


def is_linear(head: nn.Module) -> bool:
    """Whether a head is what a classifier can be written into: a linear layer with a bias."""
    return isinstance(head, nn.Linear) and head.bias is not None


def _linear_heads(model: nn.Module) -> tuple[str, ...]:
    """Return the name of the model's head, or of both where it is distilled."""
    names = head_names(model)
    for name in names:
        if not is_linear(model.get_submodule(name)):
            raise ModelError(
                f"strategy probe: the head {name} of {type(model).__name__} is not a linear layer "
                "with a bias",
                "use --option head=trained, or --strategy freeze",
            )
    return names


def _train(
    subject: Subject, form: Form, names: Sequence[str], report: dict[str, Any], job: Job
) -> FitResult:
    """Fit the head; of several processes the leader does, and the others wait for it to end."""
    started = time.monotonic()
    if not world().leader:
        return FitResult(0, 0, None, 0, None, 0.0, "fp32", 0, 0.0, 0)
    heads = [job.model.get_submodule(name) for name in names]
    kept = _features(subject, heads, job)
    spent = time.monotonic() - started
    train = (kept["train"].double().numpy(), kept["train_labels"].numpy())
    val = (kept["val"].double().numpy(), kept["val_labels"].numpy())
    dataset = subject.dataset
    head, found = fit_tasks(train, val, form, subject.options.c, dataset.classes, dataset.tasks)
    report.update(found)
    _write(head, heads)
    job.model.eval()
    right_pct = top1_pct(head, *val, dataset.tasks) if len(val[1]) else None
    return FitResult(
        steps=head.iterations,
        epochs=1,
        best_val_top1_pct=right_pct,
        best_epoch=1 if right_pct is not None else 0,
        val_top1_pct=right_pct,
        images_per_s=(len(train[1]) + len(val[1])) / spent,
        precision="fp32",
        micro_batch=0,
        seconds=time.monotonic() - started,
        resumed_from=0,
    )


def _features(subject: Subject, heads: Sequence[nn.Module], job: Job) -> Mapping[str, Tensor]:
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


def _inputs(job: Job, heads: Sequence[nn.Module], images: Images) -> Tensor:
    """Return what goes into the heads for each image, side by side, float32 (N, D)."""
    # The first row is empty: there may be no image.
    caught = [[torch.zeros(0, _first(head).in_features)] for head in heads]

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
def _write(head: Head, modules: Sequence[nn.Module]) -> None:
    """Put a classifier into the model's head; of two, which are averaged, each gets its part."""
    begin = 0
    for module in modules:
        if isinstance(module, Perceptron) and head.hidden is not None:
            _copy(head.hidden, module.hidden)
            _copy(head.out, module.out)
            continue
        end = begin + _first(module).in_features
        part = head.out.weight[:, begin:end] * len(modules)
        _copy(Layer(part, head.out.bias), _first(module))
        begin = end


def _first(head: nn.Module) -> nn.Linear:
    """Return the layer of a head that the features go into."""
    return next(layer for layer in head.modules() if isinstance(layer, nn.Linear))


def _copy(layer: Layer, module: nn.Linear) -> None:
    module.weight.copy_(torch.from_numpy(layer.weight))
    module.bias.copy_(torch.from_numpy(layer.bias))
