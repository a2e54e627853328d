"""Lowering: the model file that a target's runtime loads, in the precision that is asked for.

Each file is made once, however many targets take it. Whether it computes what the model computes is
asked by the ladder in ``parity.py``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from edgexfer.backends.openvino import absent, lacks
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.codec import encode
from edgexfer.core.model import ModelCard
from edgexfer.core.profile import HardwareProfile
from edgexfer.export.flavour import (
    default_row,
    int8_name,
    takes_cache,
    target_opset,
    typed_strongly,
)
from edgexfer.export.half import to_half
from edgexfer.export.passes.editor import Editor
from edgexfer.export.passes.opset import lower_opset
from edgexfer.export.passes.pooling import means_to_pooling, reshapes_to_flatten
from edgexfer.export.program import export_program
from edgexfer.models.onnx import OPSET, check_onnx, export_onnx
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.ranges import TrainedRanges, is_restricted

if TYPE_CHECKING:
    from edgexfer.quantize.search import Found, Judge, Tell


@dataclass(frozen=True)
class Lowered:
    """One model file, with the files that lie beside it.

    Attributes:
        files: the first is what the runtime loads.
        parent: the file that it was made from; ``None`` for the first of a chain.
        scheme: how it was quantized, in words; ``None`` where it was not.
        opset: ONNX opset; ``None`` where it is not an ONNX file.
        tools: the packages that made it.
    """

    files: tuple[Path, ...]
    tools: tuple[str, ...]
    parent: Path | None = None
    scheme: str | None = None
    opset: int | None = None


@dataclass(frozen=True)
class Tuned:
    """An INT8 file that was searched for.

    Attributes:
        lowered: the file.
        found: what the search tried and took.
    """

    lowered: Lowered
    found: Found


class Lowering:
    """Makes the files of one bundle from one model."""

    def __init__(
        self,
        model: nn.Module,
        card: ModelCard,
        folder: Path,
        calibration: Calibration | None,
        trained: TrainedRanges | None = None,
        placement: str = "own",
    ) -> None:
        """Keep what files are made from.

        Args:
            model: the trained model.
            card: its card.
            folder: where files go.
            calibration: the images for INT8; ``None`` where none is made.
            trained: the quantization that the model was trained with, where it was.
            placement: ``own`` or ``modelopt``, of Q/DQ nodes for TensorRT.
        """
        self._model, self._card, self._folder = model, card, folder
        self._calibration, self._trained, self._placement = calibration, trained, placement
        self._made: dict[str, Lowered] = {}
        self._tuned: dict[str, Tuned] = {}

    def make(self, profile: HardwareProfile, precision: str) -> Lowered:
        """Return the file to check for a target and precision, made now or before; see ``ship``.

        Raises:
            ModelError: the model cannot be exported.
            BackendError: a runtime is missing, or cannot convert or quantize the model.
        """
        if profile.backend == "torch":
            return self._once("fp32.pt2", self._program)
        if profile.backend == "openvino":
            if precision != "int8":
                # One file for all float types: which of them computes is said when it is loaded.
                return self._once("fp32.xml", self._ir)
            return self._once(int8_name(profile), self._nncf, profile)
        if precision == "fp32":
            return self.base(profile)
        if precision == "fp16":
            name = self.base(profile).files[0].name.replace("fp32", "fp16")
            name = name if typed_strongly(profile) else f"flagged-{name}"
            return self._once(name, self._half, profile)
        return self._once(int8_name(profile), self._qdq, profile)

    def base(self, profile: HardwareProfile) -> Lowered:
        """Return the FP32 ONNX file in the opset and the operators that a target takes.

        Raises:
            ModelError: the model cannot be exported, or an operator has no older form.
        """
        opset, dla = target_opset(profile), profile.device == "DLA"
        if opset == OPSET and not dla:
            return self.onnx()
        name = f"fp32-op{opset}-dla.onnx" if dla else f"fp32-op{opset}.onnx"
        return self._once(name, self._older, opset, dla)

    def onnx(self) -> Lowered:
        """Return the FP32 ONNX file, the first of every chain but torch's own."""
        return self._once("fp32.onnx", self._onnx)

    def leaves(self) -> list[Path]:
        """Return the files from which nothing else was made."""
        parents = {lowered.parent for lowered in self._made.values()}
        made = [x for x in self._made.values() if x.files[0] not in parents]
        return [place for lowered in made for place in lowered.files]

    def _once(self, name: str, make: Callable[..., Lowered], *args: Any) -> Lowered:
        if name not in self._made:
            self._made[name] = make(self._folder / name, *args)
        return self._made[name]

    def _onnx(self, out: Path) -> Lowered:
        card = self._card
        facts = {
            "edgexfer.model": card.name,
            "edgexfer.classes": list(card.classes),
            "edgexfer.preprocess": encode(card.preprocess),
        }
        # Trained ranges are those of the file that the training saw.
        export_onnx(
            self._model,
            card.preprocess.size,
            out,
            metadata=facts,
            tasks=card.tasks,
            merge=self._trained is None,
        )
        return Lowered((out,), ("torch", "onnxscript", "onnx"), opset=OPSET)

    def _older(self, out: Path, opset: int, dla: bool) -> Lowered:
        import onnx

        first = self.onnx()
        file = first.files[0]
        model = lower_opset(onnx.load(file), opset, file.name)
        if dla:
            means_to_pooling(Editor(model, file.name))
            reshapes_to_flatten(Editor(model, file.name))
        onnx.save(model, out)
        check_onnx(out, opset)
        return Lowered((out,), first.tools, file, opset=opset)

    def _program(self, out: Path) -> Lowered:
        export_program(self._model, self._card.preprocess.size, out, self._card.tasks)
        return Lowered((out,), ("torch",))

    def _half(self, out: Path, profile: HardwareProfile) -> Lowered:
        base = self.base(profile)
        to_half(base.files[0], out)
        tools = (*base.tools, "onnxruntime")
        return Lowered((out,), tools, base.files[0], opset=base.opset)

    def _ir(self, out: Path) -> Lowered:
        base = self.onnx()
        get_backend("openvino").compile(base.files[0], out, Plan())
        tools = (*base.tools, "openvino")
        return Lowered((out, out.with_suffix(".bin")), tools, base.files[0])

    def _nncf(self, out: Path, profile: HardwareProfile) -> Lowered:
        from edgexfer.quantize.nncf import quantize_nncf

        base = self.onnx()
        get_backend("openvino")  # says what to install, before NNCF fails on the import
        scheme = quantize_nncf(base.files[0], out, self.images(), profile.quantization)
        tools = (*base.tools, "openvino", "nncf")
        return Lowered((out, out.with_suffix(".bin")), tools, base.files[0], scheme)

    def _qdq(self, out: Path, profile: HardwareProfile) -> Lowered:
        from edgexfer.quantize.qdq import quantize_qdq

        base = self.base(profile)
        restricted = is_restricted(profile)
        tools = (*base.tools, "onnxruntime")
        if restricted and self._placement == "modelopt":
            from edgexfer.quantize.modelopt import quantize_modelopt

            scheme = quantize_modelopt(base.files[0], out, self.images())
            scheme += self._between(out, profile)
            return Lowered((out,), (*tools, "modelopt"), base.files[0], scheme, base.opset)
        suits = self._trained is not None and self._trained.suit(profile)
        scheme = quantize_qdq(
            base.files[0],
            out,
            self.images(),
            profile.quantization,
            restricted=restricted,
            trained=self._trained.activations if self._trained and suits else None,
        )
        scheme += self._between(out, profile)
        return Lowered((out,), tools, base.files[0], scheme, base.opset)

    def ship(self, profile: HardwareProfile, lowered: Lowered) -> Lowered:
        """Return what the device gets of a file that was checked: mostly that file itself.

        A DLA that takes no Q/DQ nodes gets a float file and a calibration cache, with its scales.
        Where a flag of the builder says FP16, the device gets the FP32 file: what was checked shows
        what FP16 does to it, and is deleted.
        """
        if profile.backend != "tensorrt" or typed_strongly(profile):
            return lowered
        if lowered.scheme is None:
            base = self.base(profile)
            if lowered != base:
                self.discard(lowered)
            return base
        if not takes_cache(profile):
            return lowered
        version = default_row(profile).runtime_version
        name = lowered.files[0].name.replace("qdq", f"cached-{version}")
        return self._once(name, self._cached, version, lowered)

    def _cached(self, out: Path, version: str, lowered: Lowered) -> Lowered:
        from edgexfer.quantize.cache import split_qdq

        source, cache = lowered.files[0], out.with_suffix(".cache")
        split_qdq(source, out, cache, version)
        scheme = f"{lowered.scheme}, as a calibration cache"
        return replace(lowered, files=(out, cache), parent=source, scheme=scheme)

    def tune(
        self, profile: HardwareProfile, judge: Judge, max_drop: float, tell: Tell | None = None
    ) -> Tuned | None:
        """Look for an INT8 file that loses less than the one that ``make`` has given.

        Args:
            profile: the target.
            judge: compares files with FP32 on images held out.
            max_drop: most accuracy that may be lost, in points; one file is kept for each.
            tell: is told of every try.

        Returns:
            ``None`` where the model was trained for this very quantization, or ModelOpt made it.

        Raises:
            BackendError: the quantizer fails on the model.
        """
        if self._trained is not None and self._trained.suit(profile):
            return None
        if is_restricted(profile) and self._placement == "modelopt":
            return None
        first = Path(int8_name(profile))
        key = f"{first.stem}-drop-{max_drop:g}{first.suffix}"
        if key not in self._tuned:
            self._tuned[key] = self._tune(self._folder / key, profile, judge, tell)
            self._made[key] = self._tuned[key].lowered
        return self._tuned[key]

    @contextmanager
    def whole(self, profile: HardwareProfile) -> Iterator[Path]:
        """Hand out a Q/DQ file with the target's quantization and every node of the FP32 file.

        Raises:
            BackendError: the model cannot be quantized.
        """
        from edgexfer.quantize.observe import extremes
        from edgexfer.quantize.qdq import Placed, write_qdq

        base = self.base(profile).files[0]
        placed = Placed(profile.quantization, is_restricted(profile), whole=True)
        trained = self._trained if self._trained and self._trained.suit(profile) else None
        ranges = trained.activations if trained else None
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "whole.onnx"
            write_qdq(base, out, extremes(base, self.images()), placed, trained=ranges)
            yield out

    def discard(self, lowered: Lowered) -> None:
        """Delete the files of one that was refused; asked for again, it is made again."""
        for file in lowered.files:
            file.unlink()
        self._made = {name: kept for name, kept in self._made.items() if kept != lowered}

    def _tune(self, out: Path, profile: HardwareProfile, judge: Judge, tell: Tell | None) -> Tuned:
        from edgexfer.quantize.search import OF_ALL, OF_MOST, Wanted, find_int8

        before = self.make(profile, "int8")
        refused = OF_MOST if OF_MOST in str(before.scheme) else OF_ALL
        wanted = Wanted(self.base(profile).files[0], profile, self.images(), refused)
        found = find_int8(wanted, out, judge, tell)
        scheme = found.scheme + self._between(out, profile)
        files = tuple(out.with_suffix(file.suffix) for file in before.files)
        return Tuned(replace(before, files=files, scheme=scheme), found)

    def _between(self, out: Path, profile: HardwareProfile) -> str:
        """Convert the layers between Q/DQ nodes to the target's type; return a description."""
        if not (is_restricted(profile) and typed_strongly(profile)):
            return ""
        from edgexfer.quantize.qdq import check_qdq

        # A strongly typed engine runs the layers between Q/DQ in the type that they have here.
        to_half(out, out)
        check_qdq(out, strict=True)
        return ", fp16 between"

    def images(self) -> Calibration:
        """Return the images that calibrate INT8."""
        assert self._calibration is not None, "int8 is made from calibration images"
        return self._calibration


def cannot_check(profile: HardwareProfile, precision: str) -> str | None:
    """Say why an artefact cannot be checked on this machine, ``None`` where it can.

    Raises:
        BackendError: the runtime is missing.
    """
    if profile.backend != "openvino":
        return None
    get_backend("openvino")
    # Where the whole device is missing, another stands in for it.
    return None if absent(profile.device) else lacks(precision, profile.device)
