"""Quantization-aware training: a student that computes as its INT8 artefact will.

``prepare`` makes of a trained float student a module that the ordinary training loop takes, and
``finish`` puts the trained weights back into the student. What an INT8 file of it holds afterwards
are just the Q/DQ nodes that post-training quantization places, with the ranges of the training.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from edgexfer.core.errors import ModelError, RecipeError
from edgexfer.core.profile import HardwareProfile
from edgexfer.models.onnx import export_onnx, frozen
from edgexfer.quantize.binding import Bound, bind
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.graph import QuantizedGraph
from edgexfer.quantize.qdq import quantize_qdq
from edgexfer.quantize.ranges import SCHEMA, TrainedRanges, is_restricted

_LEVELS, _LEVELS_REDUCED = 127, 64


class AwareStudent(nn.Module):
    """A student with quantization in the loop; it takes and gives what the student does.

    The statistics of batch norms stand still, and dropout is off. Its parameters are the student's
    and the logarithms of the activations' scales. It computes in float32, whatever precision
    surrounds it.

    Attributes:
        graph: what computes.
        profile: the target.
    """

    def __init__(
        self,
        graph: QuantizedGraph,
        profile: HardwareProfile,
        bound: Mapping[str, Bound],
        images: Tensor,
    ) -> None:
        """Keep what ``finish`` needs; use ``prepare``."""
        super().__init__()
        self.graph, self.profile = graph, profile
        self._bound, self._images = bound, images

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to logits (B, C)."""
        logits: Tensor = self.graph(images)
        return logits

    def get_classifier(self) -> nn.Module:
        """Return the student's head, by timm's convention."""
        return self.graph.get_classifier()

    def finish(self, student: nn.Module) -> TrainedRanges:
        """Put the trained weights into the student that this was prepared from.

        Args:
            student: changed in place.

        Returns:
            The ranges of the activations, to be kept beside the weights.

        Raises:
            ModelError: an export of the student does not hold the weights that were trained.
        """
        student.load_state_dict(self.graph.student.state_dict())
        with tempfile.TemporaryDirectory() as folder:
            _, bound = _export(frozen(student), self._images, Path(folder))
        if bound != self._bound:
            raise ModelError(
                f"{type(student).__name__}: its ONNX file does not hold the trained weights",
                "leave out --qat-for, and report the model's name",
            )
        return TrainedRanges(
            schema=SCHEMA,
            profile=self.profile.name,
            scheme=self.profile.quantization,
            restricted=is_restricted(self.profile),
            activations=self.graph.ranges(),
        )


def refuse_target(profile: HardwareProfile) -> None:
    """Refuse a target that quantization-aware training does not cover.

    Raises:
        RecipeError: it has no INT8, or one that is not written as Q/DQ.
    """
    if "int8" not in profile.precisions:
        raise RecipeError(f"qat_for: target {profile.name} has no INT8", "leave out --qat-for")
    if profile.quantization.scheme != "qdq":
        raise RecipeError(
            f"qat_for: target {profile.name} is quantized by {profile.quantization.scheme}, "
            "which cannot be trained for",
            "name a target of scheme qdq, such as x86-onnxruntime, or leave out --qat-for",
        )


def prepare(student: nn.Module, calibration: Calibration, profile: HardwareProfile) -> AwareStudent:
    """Put the quantization of a target into a student.

    Args:
        student: trained in float; stays as it is.
        calibration: images that the ranges begin with.
        profile: the target.

    Returns:
        On the CPU, in float32. The same student, images and profile give the same.

    Raises:
        RecipeError: the target is not covered.
        ModelError: the student cannot be exported, or its ONNX file cannot be trained.
        BackendError: ONNX Runtime cannot quantize it.
    """
    import onnx

    refuse_target(profile)
    mine, images = frozen(student), torch.from_numpy(next(calibration.batches())[:1])
    with tempfile.TemporaryDirectory() as folder:
        file, bound = _export(mine, images, Path(folder))
        out = Path(folder) / "int8.onnx"
        scheme = profile.quantization
        quantize_qdq(file, out, calibration, scheme, restricted=is_restricted(profile))
        levels = _LEVELS_REDUCED if scheme.reduce_range else _LEVELS
        graph = QuantizedGraph(mine, bound, onnx.load(out), levels=levels)
    return AwareStudent(graph, profile, bound, images)


def _export(student: nn.Module, images: Tensor, folder: Path) -> tuple[Path, dict[str, Bound]]:
    """Write a student as FP32 ONNX and say which of its weights are where in the file."""
    import onnx

    height, width = images.shape[-2:]
    file = export_onnx(student, (height, width), folder / "fp32.onnx", merge=False)
    return file, bind(student, onnx.load(file), images)
