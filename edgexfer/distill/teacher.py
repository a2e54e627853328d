"""The teacher as distillation asks it: eval mode, own normalisation, the student's class order.

What a teacher is loaded from when it is no run of edgexfer lives in ``distill/foreign.py``, and
which runtime computes it in ``distill/engine.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgexfer.core.bundle import MANIFEST
from edgexfer.core.codec import encode
from edgexfer.core.errors import RecipeError, RunError
from edgexfer.core.files import PathLike, fingerprint
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.rundir import read_run
from edgexfer.distill.foreign import (
    Foreign,
    SessionModel,
    load_foreign,
    open_bundle,
    open_onnx,
    read_card,
)
from edgexfer.models.classes import match_classes, read_class_map
from edgexfer.models.normalise import PixelModel
from edgexfer.models.store import load_model
from edgexfer.training.precision import autocast

_RENAME = (
    "if the teacher calls it otherwise, give a YAML file of lines `data's name: teacher's name` "
    "with --class-map, or rename the class folders; else train the teacher on this data first"
)


class Teacher(nn.Module):
    """A model that answers with logits of the student's classes.

    It is fed raw pixels and normalises and resizes them itself, as it was trained; it never trains,
    never leaves eval mode, and no gradient flows through it. Its answers are rounded through
    float16, so that one that was kept on disk and a fresh one are the same bits.

    Attributes:
        identity: SHA-256 of all that decides its answers but the number format.
        reordered: whether the student's classes stand in another order than the teacher's.
        notes: what a reader of the run should know, one line each.
    """

    order: Tensor

    def __init__(
        self,
        model: nn.Module,
        order: Sequence[int],
        identity: str,
        *,
        precision: str = "fp32",
        notes: Sequence[str] = (),
    ) -> None:
        """Freeze the model.

        Args:
            model: takes pixels (B, 3, H, W) on 0..255, gives logits: a ``PixelModel``, or an
                ``Ensemble`` of teachers.
            order: for each of the student's classes the model's output.
            identity: see above.
            precision: what torch computes it in: ``fp32``, ``bf16`` or ``fp16``.
            notes: see above.
        """
        super().__init__()
        self.model = model.requires_grad_(False)
        self.identity = identity
        self.precision = precision
        self.notes = tuple(notes)
        self.reordered = list(order) != sorted(order)
        self.register_buffer("order", torch.as_tensor(list(order), dtype=torch.int64))
        self.train(False)

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode, whatever is asked: batch-norm statistics and dropout stand still."""
        del mode
        return super().train(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, 3, H, W) on 0..255 to float32 logits (B, C), each a float16 number."""
        return self.logits(pixels).half().float()

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """Return the logits in the student's class order before they are rounded, in float32.

        The number format is the teacher's own, whatever the student trains in.
        """
        with autocast(self.precision, pixels.device):
            logits: Tensor = self.model(pixels)
        return logits.float()[:, self.order]

    @property
    def modules_for_features(self) -> nn.Module | None:
        """The bare torch model whose layers a feature loss may look at, ``None`` for none."""
        bare = self.model.model if isinstance(self.model, PixelModel) else None
        return None if isinstance(bare, SessionModel) else bare

    def members(self) -> list[PixelModel]:
        """Return the models that answer, one for each teacher that was named."""
        return [m for m in self.modules() if isinstance(m, PixelModel)]

    def recast(self, precision: str, make: Callable[[PixelModel], PixelModel]) -> Teacher:
        """Return the same teacher in another number format, with other computers of its models.

        Args:
            precision: what torch computes in.
            make: from a model of ``members`` the one that answers in its place.
        """
        if isinstance(self.model, Ensemble):
            parts = [t.recast(precision, make) for t in self.model.teachers()]
            model: nn.Module = Ensemble(parts, self.model.shares)
        else:
            assert isinstance(self.model, PixelModel), "a teacher is one model or several"
            model = make(self.model)
        order = self.order.tolist()
        twin = Teacher(model, order, self.identity, precision=precision, notes=self.notes)
        return twin.to(self.order.device)


class Ensemble(nn.Module):
    """Several teachers that answer as one: the weighted mean of their logits.

    Attributes:
        shares: of each teacher, summing to 1.
    """

    def __init__(self, teachers: Sequence[Teacher], weights: Sequence[float]) -> None:
        """Keep the teachers.

        Args:
            teachers: each answers in the student's class order.
            weights: of each, above 0; only their ratios count.
        """
        super().__init__()
        self.parts = nn.ModuleList(teachers)
        self.shares = tuple(weight / sum(weights) for weight in weights)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, 3, H, W) on 0..255 to float32 logits (B, C)."""
        answers = [t.logits(pixels) for t in self.teachers()]
        return torch.stack([s * a for s, a in zip(self.shares, answers, strict=True)]).sum(0)

    def teachers(self) -> list[Teacher]:
        """Return the teachers in their order."""
        return [t for t in self.parts if isinstance(t, Teacher)]


@dataclass(frozen=True)
class _Source:
    """One teacher as it lies on disk, its classes not yet matched."""

    where: str
    model: nn.Module
    classes: tuple[str, ...]
    preprocess: Preprocess
    sha256: str
    notes: tuple[str, ...] = ()


def load_teacher(
    teachers: PathLike | Sequence[PathLike],
    classes: Sequence[str],
    *,
    class_map: PathLike | None = None,
    card: PathLike | None = None,
    weights: Sequence[float] = (),
) -> Teacher:
    """Load one or several trained models as the teacher of a student with these classes.

    Args:
        teachers: each the folder of a finished ``finetune`` or ``distill``, a sealed bundle, or an
            ONNX file.
        classes: the student's class names, in the order of its outputs.
        class_map: YAML file of the teacher's name of each class that it calls otherwise.
        card: YAML file with classes and preprocess of an ONNX file that does not say them.
        weights: of several teachers' logits, above 0; empty for their mean.

    Raises:
        RunError: a run is not finished.
        BundleError: a bundle is damaged.
        ModelError: a teacher lacks a class that the student has, or cannot be fed.
        RecipeError: the card is wrong, or there are not as many weights as teachers.
        BackendError: no runtime for a bundle or ONNX file is here.
    """
    places = [teachers] if isinstance(teachers, (str, Path)) else list(teachers)
    if weights and len(weights) != len(places):
        raise RecipeError(
            f"there are {len(weights)} teacher weights for {len(places)} teachers",
            "give one weight for each teacher, in their order",
        )
    if any(weight <= 0 for weight in weights):
        raise RecipeError("a teacher weight is not above 0", "leave that teacher out")
    sources = [_open(Path(place), card) for place in places]
    known = [source.classes for source in sources]
    renamed = read_class_map(class_map, classes, known) if class_map else {}
    parts = [_match(source, classes, renamed) for source in sources]
    if len(parts) == 1:
        return parts[0]
    both = Ensemble(parts, weights or [1.0] * len(parts))
    identity = fingerprint(list(zip([p.identity for p in parts], both.shares, strict=True)))
    notes = [note for part in parts for note in part.notes]
    whole = Teacher(both, range(len(classes)), identity, notes=notes)
    whole.reordered = any(part.reordered for part in parts)
    return whole


def _open(place: Path, card: PathLike | None) -> _Source:
    """Load what a path names: an ONNX file, a bundle or a run."""
    if place.suffix == ".onnx":
        return _foreign(str(place), open_onnx(place, read_card(Path(card)) if card else None))
    if (place / MANIFEST).is_file():
        return _foreign(str(place), open_bundle(place))
    info = read_run(place)
    if info.status != "done":
        raise RunError(
            f"{place}: the teacher's training is not finished ({info.status})",
            "type its `edgexfer finetune` command again; it goes on where it stopped",
        )
    model, found = load_model(place)
    return _Source(str(place), model, found.classes, found.preprocess, found.weights_sha256)


def _foreign(where: str, found: Foreign) -> _Source:
    notes = (found.note,) if found.note else ()
    model = load_foreign(found)
    return _Source(where, model, found.classes, found.preprocess, found.sha256, notes)


def _match(source: _Source, classes: Sequence[str], renamed: dict[str, str]) -> Teacher:
    """Put one teacher's answers into the student's class order."""
    order = match_classes(source.classes, classes, source.where, renamed=renamed, fix=_RENAME)
    notes = list(source.notes)
    if order != sorted(order):
        notes.append(f"{source.where}: its classes stand in another order; matched by name")
    extra = len(source.classes) - len(classes)
    if extra:
        notes.append(f"{source.where}: {extra} of its {len(source.classes)} classes are left out")
    facts = {
        "weights": source.sha256,
        "preprocess": encode(source.preprocess),
        "order": order,
    }
    model = PixelModel(source.model, source.preprocess)
    return Teacher(model, order, fingerprint(facts), notes=notes)
