"""The recipe: the sections that describe one whole trip, and how a YAML file becomes them.

Every option of the command line is a field of one of these sections, so that a recipe, a command
and a Python call say the same thing. What the sections do lives in the stages.
"""

from __future__ import annotations

import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le, Lt, MinLen

from edgexfer.core.codec import encode
from edgexfer.core.errors import RecipeError
from edgexfer.core.files import PathLike
from edgexfer.yamlio import dump_yaml, json_schema, key_lines, read_yaml, set_key, validate

_STRICT = {"extra": "forbid"}
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]
Count = Annotated[int, Ge(1)]
T = TypeVar("T")


@dataclass(frozen=True)
class DataSection:
    """Which images, and how they are split.

    Attributes:
        path: a folder of class folders, ``digits``, ``torchvision:NAME``, ``hf:OWNER/NAME``, or a
            ``.tar`` of such a folder.
        val: share of the training images that becomes the val split where there is none, 0..0.5.
        test: share of all images that becomes the test split where there is none, 0..0.5.
        split_seed: seed of the stratified hash that splits a flat folder.
        limit: use at most so many images of each split, evenly from the classes; unset takes all.
        train_limit: train on at most so many images, evenly from the classes; val and test stay as
            they are; unset takes all.
        cache: ``ram`` decodes once and keeps uint8 images, ``none`` decodes anew each epoch,
            ``auto`` takes ``ram`` where the images fit.
        workers: threads that decode; unset takes the machine's cores.
        allow_quarantined: go on where more images are unreadable than is usual (0.1 % of train).
        unlabelled: a folder of images without classes that a student is distilled on as well, by
            the teacher's word alone, and that strategies such as ``coral`` adapt to.
        labels: a CSV file with a column ``image`` and one column a task, for a model that answers
            several questions; an empty cell is no label. The folders of ``path`` are no classes
            then.
    """

    __pydantic_config__ = _STRICT

    path: Annotated[str, MinLen(1)]
    val: Annotated[float, Gt(0), Le(0.5)] = 0.1
    test: Annotated[float, Gt(0), Le(0.5)] = 0.2
    split_seed: int = 0
    limit: Count | None = None
    train_limit: Count | None = None
    cache: Literal["auto", "ram", "none"] = "auto"
    workers: Count | None = None
    allow_quarantined: bool = False
    unlabelled: str | None = None
    labels: str | None = None


@dataclass(frozen=True)
class TrainSection:
    """One training: schedule, optimiser, augmentation, speed.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step, over all processes.
        optimizer: ``adamw`` or ``sgd`` (momentum 0.9).
        nesterov: Nesterov's momentum for ``sgd``.
        lr: peak learning rate of the head, for ``batch_size`` as it stands.
        backbone_lr: factor on ``lr`` for pre-trained layers.
        layer_decay: further factor on ``lr`` for each stage that a layer stands below the head, so
            that layers near the image move least; 1 for none.
        weight_decay: for weights of two or more dimensions.
        decay_all: let biases and batch norms decay as well.
        schedule: of the learning rate: ``cosine``, or ``step`` (a tenth at each of ``milestones``).
        milestones: epochs at which the ``step`` schedule falls.
        warmup: epochs of linear warm-up; at most half of all epochs are taken.
        min_lr: factor on ``lr`` at the end of the cosine.
        label_smoothing: share of the target spread over all classes, 0..1.
        augment: ``none``, ``shift`` (small translations, no mirror: digits, text), ``flip`` (padded
            crop and mirror, the CIFAR standard), ``crop`` (random resized crop and mirror, the
            ImageNet standard), or ``randaugment`` (``crop`` or ``flip``, then RandAugment).
        mixup: alpha of mixup, 0 for none.
        cutmix: alpha of cutmix, 0 for none.
        ema: decay of the exponential moving average of the weights, 0 for none.
        clip_grad: largest norm of the gradient, 0 for no limit.
        patience: stop after so many epochs without a better val accuracy; unset never stops early.
        accumulate: split each step into so many micro-batches.
        precision: ``fp32``, ``bf16``, ``fp16``; ``auto`` times a few steps and takes the faster of
            fp32 and what the hardware offers; the choice is kept in the run.
        compile: ``on`` takes ``torch.compile``; ``auto`` tries it in trainings of more than a
            quarter of an hour, where timed steps must gain a tenth; the choice is kept in the run.
        views: epochs' worth of different augmented views, which later epochs see again in turn, so
            that the teacher's answers to them can be kept; unset gives every epoch its own.
        view_seed: of augmentation; unset takes ``seed``.
        balance: how the losses of several tasks are weighed: ``fixed``; ``uncertainty`` learns the
            variance of each, ``gradnorm`` evens out their gradients (Chen et al. 2018).
        task_weights: of several tasks' losses, in the order of the columns; unset takes 1 for each.
        checkpoint_s: seconds between two checkpoints inside an epoch.
        seed: of weights, order, augmentation, dropout.
    """

    __pydantic_config__ = _STRICT

    epochs: Count = 10
    batch_size: Count = 64
    optimizer: Literal["adamw", "sgd"] = "adamw"
    nesterov: bool = True
    lr: Positive = 1e-3
    backbone_lr: NotNegative = 1.0
    layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    weight_decay: NotNegative = 0.05
    decay_all: bool = False
    schedule: Literal["cosine", "step"] = "cosine"
    milestones: tuple[Count, ...] = ()
    warmup: NotNegative = 1.0
    min_lr: Annotated[float, Ge(0), Le(1)] = 0.01
    label_smoothing: Share = 0.0
    augment: Literal["none", "shift", "flip", "crop", "randaugment"] = "flip"
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    ema: Share = 0.0
    clip_grad: NotNegative = 0.0
    patience: Count | None = None
    accumulate: Count = 1
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    views: Count | None = None
    view_seed: Annotated[int, Ge(0)] | None = None
    balance: Literal["fixed", "uncertainty", "gradnorm"] = "fixed"
    task_weights: tuple[Positive, ...] = ()
    checkpoint_s: Positive = 60.0
    seed: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True)
class ModelSection:
    """Which architecture, on which input.

    Attributes:
        name: a timm name, or one of edgexfer's own: ``resnet8``, ``resnet8x4``, ``resnet20``,
            ``resnet32x4``, ``resnet56``, ...
        size: height and width of the input in pixels; unset takes the architecture's own.
        weights: a finished run, safetensors file or timm checkpoint to start from; unset for none.
        pretrained: fetch timm's weights from its hub.
        options: further keyword arguments of the architecture; ``head_hidden`` gives any one with a
            linear head a hidden layer of so many units there.
    """

    __pydantic_config__ = _STRICT

    name: str
    size: Count | None = None
    weights: str | None = None
    pretrained: bool = False
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TeacherSection:
    """How the teacher comes to be.

    Attributes:
        model: its architecture.
        strategy: a file of ``transfer/``, such as ``probe``, ``freeze``, ``full``, ``scratch``.
        strategy_options: the strategy's own, by name; ``finetune --list-strategies`` explains them.
        guard: also train the same model from scratch, and a probe, on the same schedule, and stop
            where the source weights are shown to hurt.
        seeds: trainings of each that ``guard`` compares, from ``train.seed`` on.
        train: how it is trained.
    """

    __pydantic_config__ = _STRICT

    model: ModelSection
    strategy: str = "full"
    strategy_options: dict[str, Any] = field(default_factory=dict)
    guard: bool = False
    seeds: Count = 1
    train: TrainSection = TrainSection()


@dataclass(frozen=True)
class PretrainSection:
    """How a model is pre-trained on images without labels.

    Attributes:
        model: its architecture.
        method: ``simclr``: two views of each image find each other among those of the others.
        temperature: of the similarities; the paper has 0.5 for small images, 0.1 for ImageNet.
        projection: size of the embeddings that are compared.
        jitter: strength of the colour jitter; the paper has 1 for ImageNet and 0.5 for CIFAR-10.
        train: how it is trained.
    """

    __pydantic_config__ = _STRICT

    model: ModelSection
    method: Literal["simclr"] = "simclr"
    temperature: Positive = 0.5
    projection: Count = 128
    jitter: NotNegative = 0.5
    train: TrainSection = TrainSection()


@dataclass(frozen=True)
class StudentSection:
    """How the student is distilled.

    Attributes:
        model: its architecture.
        loss: a sum of losses such as ``kd``, ``dkd+hint@2`` or ``0.5*kd+2*dist``, or several sums
            with commas between them, to compare. Of logits: ``kd``, ``dkd`` (``tckd``, ``nckd``),
            ``dist`` (``inter``, ``intra``), ``mse``, ``hard``; of feature maps: ``hint``,
            ``attention``, ``relational``, ``similarity``, ``review``. A weight may stand in front,
            and the layers of feature maps behind (``hint@STUDENT:TEACHER``, by number or name).
        temperature: softens both distributions of a logit loss, above 0.
        w_soft: weight of a logit loss that has none written in front of it (a loss carries its own
            T²); unset takes the paper's.
        w_hard: weight of cross entropy with the labels; unset takes the paper's.
        standardise: bring both models' logits to mean 0 and deviation 1 first (Sun et al. 2024).
        soft_warmup: epochs over which the weights of logit losses grow from 0; unset takes the
            paper's: 20 epochs for ``dkd``, at most a twelfth of all, and none for the others.
        teacher_weights: of several teachers' logits; unset takes their mean.
        class_map: a YAML file that gives the teacher's name of each class that it calls otherwise.
        teacher_card: a YAML file with classes and preprocess of a teacher that is a bare ONNX file.
        teacher_engine: what computes the teacher; ``auto`` times a few batches of each.
        teacher_cache: keep the teacher's logits for views that are seen again; ``auto`` does so
            where they are and fit into ``cache_gb``.
        cache_gb: most disk space for the teacher's logits, in 10⁹ bytes.
        cache_top_k: keep only so many of the largest logits of each view, and the mass of the rest.
        assistants: architectures between teacher and student, each distilled from the one before.
        qat_for: a profile such as ``x86-onnxruntime``; trains a student that is trained already
            (``model.weights``) on, with the quantization of that target's INT8 in the loop.
        control: also train the same student without the teacher.
        seeds: repeat student and control with so many seeds, from ``train.seed`` on.
        train: how it is trained.
    """

    __pydantic_config__ = _STRICT

    model: ModelSection
    loss: Annotated[str, MinLen(1)] = "kd"
    temperature: Positive = 4.0
    w_soft: NotNegative | None = None
    w_hard: NotNegative | None = None
    standardise: bool = False
    soft_warmup: NotNegative | None = None
    teacher_weights: tuple[Positive, ...] = ()
    class_map: str | None = None
    teacher_card: str | None = None
    teacher_engine: Literal["auto", "torch", "openvino", "onnxruntime"] = "auto"
    teacher_cache: Literal["auto", "on", "off"] = "auto"
    cache_gb: Positive = 10.0
    cache_top_k: Count | None = None
    assistants: tuple[str, ...] = ()
    qat_for: str | None = None
    control: bool = False
    seeds: Count = 1
    train: TrainSection = TrainSection()


@dataclass(frozen=True)
class ExportSection:
    """What is made for which target.

    Attributes:
        targets: profiles, by name, alias or path.
        precision: ``auto`` tries what each profile lists and keeps FP32 and the fastest that is
            accurate enough, measured where the target is this machine; ``all`` keeps all; else one
            precision (FP32 is made beside it, as the reference, where the target has it).
        max_drop: most top-1 accuracy that BF16 and INT8 may lose, in points; unset takes the
            profile's limit, or 1 point.
        calibration_images: how many training images calibrate INT8.
        evaluation_images: most test images that travel with the bundle.
        placement: of Q/DQ nodes for TensorRT: edgexfer's own, or NVIDIA's (the extra modelopt).
        stack: a software release by its name in the profile, such as ``JetPack 6.0``, for the
            targets that list it; unset takes each profile's default.
    """

    __pydantic_config__ = _STRICT

    targets: tuple[str, ...] = ("x86-onnxruntime", "x86-openvino")
    precision: Literal["auto", "all", "fp32", "fp16", "bf16", "int8"] = "auto"
    max_drop: NotNegative | None = None
    calibration_images: Count = 300
    evaluation_images: Count = 1000
    placement: Literal["own", "modelopt"] = "own"
    stack: str | None = None


@dataclass(frozen=True)
class BenchSection:
    """How long and how often is measured.

    Attributes:
        processes: fresh processes per artefact, interleaved over the artefacts.
        seconds: least time that each process measures after its warm-up, or 10,000 inferences,
            whichever is first; without it 2, in offline 60 and in sustained 600.
        samples: least number of inferences that each process measures.
        threads: threads of the runtime; 0 leaves the choice to it.
        seed: of the interleaved order.
        scenario: single_stream issues the next call when the last has ended; multi_stream one
            sample for each stream at once; offline all at once, for throughput; server at random
            times, for the largest rate under a bound of latency; sustained is single_stream for ten
            minutes, to see throttling.
        streams: calls that may run at the same time.
        batch: samples per call.
        latency_bound_ms: largest p99 that server allows.
        allow_clock_changes: set the governor to performance, and pin a Jetson's clocks, while it is
            measured; needs root or sudo without a password, and is put back. Otherwise nothing on
            the machine is changed.
        power_mode: name of a Jetson's power mode for the same time, such as MAXN_SUPER.
    """

    __pydantic_config__ = _STRICT

    processes: Count = 5
    seconds: Positive | None = None
    samples: Count = 100
    threads: Annotated[int, Ge(0)] = 0
    seed: Annotated[int, Ge(0)] = 0
    scenario: Literal["single_stream", "multi_stream", "offline", "server", "sustained"] = (
        "single_stream"
    )
    streams: Count = 1
    batch: Count = 1
    latency_bound_ms: Positive | None = None
    allow_clock_changes: bool = False
    power_mode: str | None = None


@dataclass(frozen=True)
class Recipe:
    """One whole trip.

    Attributes:
        name: for people; a title of the report.
        data: the images.
        teacher: the large model; null where ``student`` is trained without one.
        student: the small model.
        export: the targets.
        bench: the measurement.
    """

    __pydantic_config__ = _STRICT

    name: str
    data: DataSection
    student: StudentSection
    teacher: TeacherSection | None = None
    export: ExportSection = ExportSection()
    bench: BenchSection = BenchSection()


def load_recipe(path: PathLike, overrides: typing.Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``key=value`` overrides to it.

    Args:
        path: a YAML file; YAML 1.2, so that ``no`` is text.
        overrides: such as ``"student.train.epochs=3"``; the value is read as YAML.

    Raises:
        RecipeError: with the line and key of every fault, and the nearest valid key.
    """
    place = Path(path)
    value = read_yaml(place, RecipeError)
    lines = key_lines(place)
    for override in overrides:
        lines[set_key(value, override, RecipeError)] = 0
    return validate(Recipe, value, place, RecipeError, lines)


def check_section(section: T) -> T:
    """Check a section that was built in code or from command-line options, as a recipe's would be.

    Raises:
        RecipeError: with the key of every fault.
    """
    place = Path(type(section).__name__.removesuffix("Section").lower())
    return validate(type(section), json.loads(json.dumps(encode(section))), place, RecipeError)


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe as YAML, with every default spelled out."""
    return dump_yaml(encode(recipe))


def recipe_schema() -> str:
    """Return the JSON Schema of a recipe, for editors."""
    return json_schema(Recipe)
