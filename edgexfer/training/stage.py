"""What every training stage does around the loop: open data and run, build, test, save."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from edgexfer.core.codec import encode
from edgexfer.core.files import PathLike, sha256_file
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.progress import Progress
from edgexfer.core.rundir import SCHEMA, RunDir, RunInfo, open_run
from edgexfer.core.tasks import Task
from edgexfer.models.create import complete_options, create_model, default_preprocess
from edgexfer.models.groups import parameter_groups
from edgexfer.models.weights import weights_file
from edgexfer.recipe import DataSection, ModelSection, TrainSection
from edgexfer.training import checkpoint
from edgexfer.training.job import Job
from edgexfer.training.objective import Objective

if TYPE_CHECKING:
    from edgexfer.data.dataset import Dataset
    from edgexfer.data.feed import TrainFeed
    from edgexfer.data.images import Images
    from edgexfer.training.loop import FitResult


@dataclass(frozen=True)
class Built:
    """An architecture with its weights, and all that its card says of it.

    Attributes:
        model: on the CPU; the loop trains it in place.
        name: its architecture.
        preprocess: how an image becomes its input.
        origin: where its weights began.
        options: keyword arguments of the architecture.
    """

    model: nn.Module
    name: str
    preprocess: Preprocess
    origin: str
    options: dict[str, Any]


def build_model(section: ModelSection, classes: int, seed: int) -> Built:
    """Make the architecture that a section names, from ``seed`` and its weights alone.

    Raises:
        ModelError: the architecture, its options or its weights are unusable.
        MachineError: pre-trained weights cannot be fetched.
    """
    options = complete_options(section.name, section.options, section.size)
    model, origin = create_model(
        section.name,
        classes,
        options=options,
        pretrained=section.pretrained,
        weights=Path(section.weights) if section.weights else None,
        seed=seed,
    )
    preprocess = default_preprocess(section.name, section.size, options)
    return Built(model, section.name, preprocess, origin, options)


def open_data(data: DataSection) -> Dataset:
    """Open the data set that a section names.

    Raises:
        DataError: it is missing or unusable.
    """
    from edgexfer.data.dataset import open_dataset

    return open_dataset(
        data.path,
        val=data.val,
        test=data.test,
        split_seed=data.split_seed,
        limit=data.limit,
        train_limit=data.train_limit,
        unlabelled=data.unlabelled,
        labels=data.labels,
    )


def make_feed(
    data: DataSection,
    dataset: Dataset,
    preprocess: Preprocess,
    train: TrainSection,
    split: str = "train",
    *,
    balanced: bool = False,
) -> TrainFeed:
    """Make the feed of augmented training batches for this process.

    Args:
        data: how images are read.
        dataset: the data set.
        preprocess: the model's geometry.
        train: batches, views and their seeds.
        split: ``train``, or ``train+unlabelled`` for a student that a teacher answers for.
        balanced: half of each batch has no label.
    """
    from edgexfer.data.feed import TrainFeed
    from edgexfer.training.distributed import world

    here = world()
    return TrainFeed(
        dataset,
        preprocess,
        batch_size=train.batch_size,
        split=split,
        balanced=balanced,
        augment=train.augment,
        seed=train.seed,
        views=train.views,
        view_seed=train.view_seed,
        mixes=bool(train.mixup or train.cutmix),
        cache=data.cache,
        workers=data.workers,
        rank=here.rank,
        world=here.size,
        allow_quarantined=data.allow_quarantined,
        progress=Progress if here.leader else None,
    )


def images_of(data: DataSection, dataset: Dataset, split: str, preprocess: Preprocess) -> Images:
    """Load a split as the model's geometry makes it."""
    from edgexfer.data.images import load_images
    from edgexfer.training.distributed import world

    here = world()
    return load_images(
        dataset,
        split,
        preprocess,
        cache=data.cache,
        workers=data.workers,
        allow_quarantined=data.allow_quarantined,
        progress=Progress if here.leader else None,
    )


def make_job(
    run: RunDir,
    built: Built,
    train: TrainSection,
    feed: TrainFeed,
    val: Images | None,
    objective: Objective,
) -> Job:
    """Return the training of all parameters that are not frozen, titled after run and model.

    A stage changes the job's fields where it wants more: frozen modules, an auxiliary one.
    """
    groups = parameter_groups(
        built.model,
        lr=train.lr,
        backbone_lr=train.backbone_lr,
        layer_decay=train.layer_decay,
        weight_decay=train.weight_decay,
        decay_all=train.decay_all,
    )
    return Job(
        run=run,
        model=built.model,
        preprocess=built.preprocess,
        section=train,
        feed=feed,
        val=val,
        objective=objective,
        groups=groups,
        frozen=[],
        title=f"{run.info.kind} {built.name}",
    )


def train_along(job: Job, module: nn.Module, name: str) -> None:
    """Have a module trained along with the model, and not deployed.

    Args:
        job: changed in place.
        module: its parameters get the head's rate; biases and norms decay with those of the model.
        name: of their group.
    """
    job.auxiliary = module
    train = job.section
    trained = [p for p in module.parameters() if p.requires_grad]
    for ending, decays in (("", True), ("_no_decay", False)):
        parameters = [p for p in trained if (p.ndim > 1 or train.decay_all) == decays]
        if parameters:
            group = {"name": name + ending, "params": parameters, "lr": train.lr}
            job.groups.append({**group, "weight_decay": train.weight_decay * decays})


def open_training(
    kind: str,
    out: PathLike,
    config: dict[str, Any],
    data: DataSection,
    dataset: Dataset,
    parents: dict[str, str] | None = None,
) -> RunDir:
    """Create the run of a stage, or take up the one that is there.

    Args:
        kind: ``finetune``, ``distill`` or ``control``.
        out: the run's folder.
        config: the stage's settings, encoded; one that cannot change the result (how often to save)
            is left out of the run's identity here.
        data: how the data set was opened.
        dataset: the data set itself.
        parents: hashes of what the run is made from; that of a weights file in ``config`` is added
            here.

    Raises:
        RunError: the folder holds a run with other settings, data or parents, or is in use.
        DiskError: the folder cannot be written.
    """
    from edgexfer.training.distributed import world
    from edgexfer.training.host import lineage

    train = {k: v for k, v in config["train"].items() if k != "checkpoint_s"}
    made_from = dict(parents or {})
    weights = config["model"]["weights"]
    # By content: another file under the same name makes another run. One that is not there is named
    # where the model is made.
    file = weights_file(Path(weights)) if weights else None
    if file is not None and file.is_file():
        made_from["weights"] = sha256_file(file)
    wanted = RunInfo(
        SCHEMA,
        kind,
        "running",
        {**config, "train": train},
        dataclasses.asdict(_found_from_anywhere(data)),
        dataset.fingerprint,
        made_from,
        {**lineage(), "seed": train["seed"]},
    )
    return open_run(out, wanted, leader=world().leader, defaults=_defaults())


def _found_from_anywhere(data: DataSection) -> DataSection:
    """Return a section whose files are found from any folder: an export may start in another."""
    from edgexfer.data.dataset import is_place

    def whole(at: str) -> str:
        return str(Path(at).absolute()) if is_place(at) and Path(at).exists() else at

    return dataclasses.replace(
        data,
        path=whole(data.path),
        unlabelled=data.unlabelled and whole(data.unlabelled),
        labels=data.labels and whole(data.labels),
    )


def _defaults() -> dict[str, Any]:
    """Return the settings of a stage as they are where nothing is said, encoded."""
    sections = {"train": TrainSection(), "model": ModelSection("")}
    found: dict[str, Any] = encode(sections)
    del found["train"]["checkpoint_s"]
    return found


def finish(
    run: RunDir,
    built: Built,
    result: FitResult,
    classes: Sequence[str],
    test: Images,
    more: Mapping[str, Any] | None = None,
) -> RunInfo:
    """Measure the trained model on the test images, save it, and mark the run as done.

    The predictions are kept beside it with their probabilities, so that two runs can be compared
    image by image, and their calibration told. What was kept to go on after a kill is removed last.
    Of several processes the leader does all of that alone, so that each image is looked at once;
    the others wait for it as they leave.

    Args:
        run: of the training.
        built: the trained model.
        result: how the training went.
        classes: names of its outputs.
        test: the test images; their labels are places among the outputs.
        more: further results of the stage, as values that JSON can hold.

    Returns:
        What the run says of itself; ``result["test"]`` holds ``n``, ``correct``, ``top1_pct`` and
        the ends of its 95 % interval, and of several tasks the same for each.
    """
    from edgexfer.training.distributed import world
    from edgexfer.training.evaluate import predict_logits
    from edgexfer.training.predictions import keep_predictions

    if not world().leader:
        return run.info
    logits = predict_logits(built.model, built.preprocess, test)
    found = {"test": keep_predictions(run.path, logits, test), **(more or {})}
    return conclude(run, built, result, classes, found, test.tasks)


def conclude(
    run: RunDir,
    built: Built,
    result: FitResult,
    classes: Sequence[str],
    found: Mapping[str, Any],
    tasks: Sequence[Task] = (),
) -> RunInfo:
    """Save the trained model, and mark the run as done; the leader's part of it.

    Args:
        run: of the training.
        built: the trained model.
        result: how the training went.
        classes: names of its outputs.
        found: what else the run says of itself, as values that JSON can hold.
        tasks: of its outputs, where those are several.
    """
    from edgexfer.models.store import save_model

    card = save_model(
        run.path,
        built.model,
        name=built.name,
        classes=classes,
        preprocess=built.preprocess,
        origin=built.origin,
        options=built.options,
        tasks=tasks,
    )
    made = {
        "model": built.name,
        "parameters": card.parameters,
        "weights_sha256": card.weights_sha256,
        "fit": encode(result),
    }
    run.set(status="done", result={**made, **found})
    checkpoint.clear(run.path)
    return run.info
