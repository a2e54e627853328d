"""What ``edgexfer init`` writes: a recipe that suits the images, with its reasons as comments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgexfer.data.dataset import Dataset


@dataclass(frozen=True)
class _Plan:
    """What was chosen for the data, and why."""

    reason: str
    size: int
    teacher: str
    start: str
    student: str
    augment: str
    batch: int
    teacher_epochs: int
    student_epochs: int
    teacher_lr: float
    student_lr: float


def draft_recipe(path: str, targets: tuple[str, ...]) -> str:
    """Look at a data set and write a commented recipe for it.

    Args:
        path: the data set, as ``--data`` takes it.
        targets: profiles by name, alias or path.

    Raises:
        DataError: the data set is unusable.
        ProfileError: a target is unknown.
    """
    from edgexfer.data.dataset import open_dataset
    from edgexfer.profiles import find_profile

    profiles = [find_profile(target) for target in targets]
    dataset = open_dataset(path)
    plan = _plan(dataset)
    counts = ", ".join(f"{len(split.keys)} {name}" for name, split in dataset.splits.items())
    meant = "\n".join(
        f"    - {target}  # {p.title}" for target, p in zip(targets, profiles, strict=True)
    )
    return f"""\
# {len(dataset.classes)} classes; images: {counts}.
# {plan.reason}
# Run it:   edgexfer run THIS_FILE
# Try it:   edgexfer run THIS_FILE --set data.limit=500 --set teacher.train.epochs=1 \\
#             --set student.train.epochs=1 --out runs/try
name: {_name(path)}

data:
  path: {_quote(path)}

teacher:                 # the large model; it never leaves this machine
  model:
    name: {plan.teacher}
    size: {plan.size}
{plan.start}
  train:
    epochs: {plan.teacher_epochs}
    batch_size: {plan.batch}
    lr: {plan.teacher_lr}
    augment: {plan.augment}
    label_smoothing: 0.0 # smoothing would hide what the teacher knows of wrong classes

student:                 # the compact model that goes to the device
  model:
    name: {plan.student}
    size: {plan.size}
  temperature: 4.0       # softens the teacher's answers; 2 to 8 is usual
  w_soft: 0.9            # weight of the teacher
  w_hard: 0.1            # weight of the labels
  control: true          # also train it without the teacher, to see whether the teacher helps
  train:
    epochs: {plan.student_epochs}           # distillation gains from patience: more is better
    batch_size: {plan.batch}
    lr: {plan.student_lr}
    augment: {plan.augment}

export:
  targets:
{meant}
  max_drop: 1.0          # most top-1 points that INT8 may lose

bench:
  processes: 5           # fresh processes per artefact
"""


def _plan(dataset: Dataset) -> _Plan:
    from edgexfer.data.sides import SMALL_PX, median_side

    side = median_side(dataset)
    total = sum(len(split.keys) for split in dataset.splits.values())
    if side <= SMALL_PX:
        size = 32 if side > 16 else 16
        return _Plan(
            reason=f"The images are small (shorter side about {side} px), so ResNets for small "
            "images from random weights.",
            size=size,
            teacher="resnet56",
            start="  strategy: scratch      # no pre-trained weights exist for images this small",
            student="resnet8",
            augment="shift" if side <= 16 else "flip",
            batch=64,
            teacher_epochs=30,
            student_epochs=60,
            teacher_lr=0.002,
            student_lr=0.004,
        )
    few = total < 2000
    return _Plan(
        reason=f"The images have a shorter side of about {side} px, so ImageNet models at 224 px.",
        size=224,
        teacher="resnet50",
        start="    pretrained: true     # or: weights: FILE.safetensors\n"
        + (
            "  strategy: freeze       # few images: the layers near the image stay as they are"
            if few
            else "  strategy: full         # enough images to train every layer"
        ),
        student="mobilenetv4_conv_small",
        augment="crop",
        batch=32,
        teacher_epochs=15,
        student_epochs=60,
        teacher_lr=0.0005,
        student_lr=0.002,
    )


def _name(path: str) -> str:
    tail = path.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    plain = "".join(c if c.isalnum() or c in "-_" else "-" for c in tail.split(".")[0])
    return plain or "trip"


def _quote(text: str) -> str:
    """Quote a text for YAML; JSON's double quotes are YAML's."""
    import json

    return json.dumps(text, ensure_ascii=False)
