"""Climbing the parity ladder: one artefact after the other, each checked before the next is made.

What is compared, and against which limits, is in ``parity.py``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from torch import nn

from edgexfer.bench.accuracy import predict
from edgexfer.bench.tasks import right
from edgexfer.core.backend import Plan, TensorSpec, get_backend
from edgexfer.core.bundle import Artefact, Reference, Rung, file_entry
from edgexfer.core.explanation import Step
from edgexfer.core.files import sha256_file
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.profile import HardwareProfile
from edgexfer.data.pool import cores
from edgexfer.export.explain import explain, write_explanation
from edgexfer.export.judge import HeldOutJudge, Route, route
from edgexfer.export.localise import localise
from edgexfer.export.lower import Lowered, Lowering, Tuned
from edgexfer.export.parity import (
    EXACT,
    RUNTIME,
    Float32,
    Logits,
    Probe,
    bf16_rung,
    float_rung,
    half_rung,
    int8_rung,
    reference_logits,
    require,
    session_logits,
    with_accuracy,
)
from edgexfer.quantize.calibration import HeldOut
from edgexfer.quantize.constant import constant_channels, in_words
from edgexfer.quantize.search import Found, Tell
from edgexfer.recipe import ExportSection

MAX_DROP_PT = 1.0
GOLDEN_IMAGES = "golden/images.npy"
_GOLDEN = 8
_AS_WRITTEN = 100
# Each takes memory of its own.
_STREAMS = 16
# How near another machine must come to the outputs that are made here. Its INT8 kernels may round
# an activation the other way; typed as FP16 in between, they do so more often. BF16 is 34 dB off
# FP32, and two CPUs that round at other places are so far off each other.
_GOLDEN_DB = {"fp32": 60.0, "fp16": 45.0, "bf16": 25.0, "int8": 30.0}
# OpenVINO on Arm runs some convolutions in float and has Arm Compute Library requantize the others:
# under emulation it was 23 dB off x86. 20 dB is what INT8 as a whole may differ from FP32.
_GOLDEN_DB_ARM_OPENVINO_INT8 = 20.0


@dataclass(frozen=True)
class _Ran:
    """What a file gave in a runtime."""

    found: Logits
    golden: Float32
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Search:
    """How an INT8 is searched for, where it must be.

    Attributes:
        held_out: draws the images that tries are compared on.
        tell: is told of every try; ``None`` for nobody.
    """

    held_out: Callable[[], HeldOut]
    tell: Tell | None = None


class Ladder:
    """Makes artefacts and lets none pass that differs too much from the trained model.

    Attributes:
        rungs: what was compared so far, all passed.
    """

    def __init__(
        self,
        folder: Path,
        lowering: Lowering,
        probe: Probe,
        max_drops: Mapping[str, float],
        search: Search,
        explained: Path | None = None,
    ) -> None:
        """Write the golden images.

        Args:
            folder: of the bundle.
            lowering: makes the files.
            probe: what every hop is fed with.
            max_drops: for each target the most accuracy that BF16 and INT8 may lose, in points.
            search: what INT8 is searched with, where it must be.
            explained: folder for an explanation of each INT8; ``None`` makes none.
        """
        self._held_out, self._tell = cache(search.held_out), search.tell
        self._explained = explained
        self._folder, self._lowering, self._probe = folder, lowering, probe
        self._max_drops = max_drops
        self.rungs: list[Rung] = []
        self._passed: set[Path] = set()
        # By file and runtime, as targets may share both.
        self._ran: dict[tuple[Path, str], _Ran] = {}
        self._golden = probe.images[probe.spread(_GOLDEN)]
        (folder / GOLDEN_IMAGES).parent.mkdir()
        np.save(folder / GOLDEN_IMAGES, self._golden)

    def stand(self, model: nn.Module, preprocess: Preprocess) -> None:
        """Run the trained model, which all else is compared with.

        Args:
            model: in eval mode, on the CPU.
            preprocess: of the model's own card.
        """
        self._reference = reference_logits(model, preprocess, self._probe)
        self._where = partial(localise, model, preprocess, self._probe)

    def score(self) -> Reference:
        """Return how many evaluation images the trained model has right."""
        found = right(self._reference.real, self._probe.labels, self._probe.tasks)
        return Reference(int(found.sum()), len(found))

    def check_onnx(self) -> None:
        """Compare the FP32 ONNX file with the model, as written and as ONNX Runtime rewrites it.

        Raises:
            ParityError: it differs.
        """
        file = self._lowering.onnx().files[0]
        # As written it is slow, and what must be equal to rounding shows on few images.
        few = self._probe.spread(_AS_WRITTEN)
        plan = _on_all_cores("onnxruntime", Plan(options={"graph_optimization": "none"}))
        with closing(get_backend("onnxruntime").load(file, plan)) as session:
            written = session_logits(session, self._probe.at(few), plan.streams)
        optimised = self._run(file, "onnxruntime", Plan()).found
        for rung in (
            float_rung("onnx fp32", "torch fp32", self._reference.at(few), written, EXACT),
            float_rung("onnx fp32, optimised", "torch fp32", self._reference, optimised, EXACT),
        ):
            self.rungs.append(require(rung, where=partial(self._where, file)))

    def climb(self, profile: HardwareProfile, precision: str) -> Artefact:
        """Make one artefact, check it, and write its golden outputs.

        Raises:
            ParityError: it differs too much from the model.
            BackendError: a runtime is missing, or refuses the file.
        """
        if profile.backend == "tensorrt":
            self._check_lowered(profile)
        lowered = self._lowering.make(profile, precision)
        ran, rung = self._compare(lowered, profile, precision)
        quantized = precision == "int8"
        constant = constant_channels(self._lowering.base(profile).files[0]) if quantized else {}
        first, found = rung, None
        if quantized and not rung.passed:
            found = self._tune(profile)
        if found is not None:
            if lowered.files[0] not in self._passed:
                self._lowering.discard(lowered)
            lowered = found.lowered
            ran, rung = self._compare(lowered, profile, precision)
            rung = replace(
                rung, notes=(*rung.notes, *_account(first, found.found, self._held_out()))
            )
        if quantized and self._explained is not None:
            steps = found.found.steps if found is not None else ()
            self._explain(self._explained, profile, (first, rung), steps)
        if constant:
            rung = replace(rung, notes=(*rung.notes, in_words(constant)))
        trainable = quantized and profile.quantization.scheme == "qdq"
        self.rungs.append(
            require(
                rung,
                quantized=quantized,
                trainable_for=profile.name if trainable else None,
                where=partial(self._explain_failure, lowered.files[0], found),
            )
        )
        self._passed.add(lowered.files[0])
        lowered = self._lowering.ship(profile, lowered)
        name = f"{profile.name}-{precision}"
        golden = f"golden/{name}.npy"
        np.save(self._folder / golden, ran.golden)
        return Artefact(
            name=name,
            target=profile.name,
            backend=profile.backend,
            precision=precision,
            files=tuple(file_entry(self._folder, file) for file in lowered.files),
            inputs=ran.inputs,
            outputs=ran.outputs,
            opset=lowered.opset,
            scheme=lowered.scheme,
            made_by={tool: _version(tool) for tool in lowered.tools},
            parent_sha256=sha256_file(lowered.parent) if lowered.parent else None,
            golden=golden,
            golden_sqnr_db=_golden_db(profile, precision),
        )

    def _compare(
        self, lowered: Lowered, profile: HardwareProfile, precision: str
    ) -> tuple[_Ran, Rung]:
        way = route(profile, precision)
        ran = self._run(lowered.files[0], way.runtime, way.plan)
        return ran, self._rung(profile, precision, way, ran.found)

    def _tune(self, profile: HardwareProfile) -> Tuned | None:
        """Search for an INT8 that loses less than one that was refused."""
        limit = self._max_drops[profile.name]
        base, preprocess = self._lowering.base(profile).files[0], self._probe.preprocess
        judge = HeldOutJudge(base, self._held_out(), preprocess, profile, limit)
        return self._lowering.tune(profile, judge, limit, self._tell)

    def _explain_failure(self, file: Path, tuned: Tuned | None, rung: Rung) -> str:
        """Say where a refused INT8 differs, and what a search for another has come to."""
        place = self._where(file, rung)
        if tuned is None:
            return place
        found = tuned.found
        why = f"; {found.in_vain}" if found.in_vain else ""
        return f"the best of {len(found.steps)} tries, {found.chosen}{why}; {place}"

    def _explain(
        self,
        folder: Path,
        profile: HardwareProfile,
        rungs: tuple[Rung, Rung],
        steps: Sequence[Step],
    ) -> None:
        with self._lowering.whole(profile) as whole:
            files = (self._lowering.base(profile).files[0], whole)
            images = self._lowering.images()
            write_explanation(folder, explain(files, profile, images, rungs, steps))

    def _check_lowered(self, profile: HardwareProfile) -> None:
        """Compare the FP32 file in the operators of a target's parser with the model, once."""
        file = self._lowering.base(profile).files[0]
        name = f"lowered, {file.stem}"
        done = any(rung.name == name for rung in self.rungs)
        if done or file == self._lowering.onnx().files[0]:
            return
        found = self._run(file, "onnxruntime", Plan()).found
        rung = float_rung(name, "torch fp32", self._reference, found, EXACT)
        self.rungs.append(require(rung, where=partial(self._where, file)))

    def _run(self, file: Path, runtime: str, plan: Plan) -> _Ran:
        plan = _on_all_cores(runtime, plan)
        key = (file, repr((runtime, plan.precision, plan.device, sorted(plan.options.items()))))
        if key not in self._ran:
            session = get_backend(runtime).load(file, plan)
            try:
                self._ran[key] = _Ran(
                    session_logits(session, self._probe, plan.streams),
                    predict(session, self._golden, self._probe.preprocess),
                    session.inputs,
                    session.outputs,
                )
            finally:
                session.close()
        return self._ran[key]

    def _rung(self, profile: HardwareProfile, precision: str, way: Route, found: Logits) -> Rung:
        name = f"{profile.name} {precision}" + (f", {way.where}" if way.where else "")
        if precision == "int8":
            allowed = self._max_drops[profile.name]
            return int8_rung(name, self._probe, self._reference, found, allowed)
        if precision == "bf16":
            allowed = self._max_drops[profile.name]
            return bf16_rung(name, self._probe, self._reference, found, allowed)
        exact = EXACT if way.runtime in ("onnxruntime", "torch") else RUNTIME
        if precision == "fp16":
            rung = half_rung(name, self._reference, found)
        else:
            rung = float_rung(name, "torch fp32", self._reference, found, exact)
        return with_accuracy(rung, self._probe, self._reference, found)


def _on_all_cores(runtime: str, plan: Plan) -> Plan:
    """Return the plan with a stream for each core, as one image alone leaves cores without work."""
    streams = min(cores(), _STREAMS)
    if plan.device != "CPU" or runtime not in ("onnxruntime", "openvino"):
        return plan
    if runtime == "openvino":  # shares its threads out among the streams
        return replace(plan, streams=streams)
    # Spinning threads would take the cores from torch, which runs beside it.
    usual = {"graph_optimization": "all", "allow_spinning": False}
    return replace(plan, threads=1, streams=streams, options={**usual, **plan.options})


def _account(refused: Rung, found: Found, held_out: HeldOut) -> Iterator[str]:
    """Yield what a search was for, what it tried and what it took."""
    reached = "" if refused.sqnr_db is None else f"reached {refused.sqnr_db:.1f} dB, "
    yield (
        f"searched for, as plain calibration {reached}lost "
        f"{refused.drop_pt:.2f} points and agreed on {refused.agreement_pct:.1f} %: "
        f"{found.chosen}, of {len(found.steps)} tries on {len(held_out.images)} images of "
        f"{held_out.split}"
    )
    yield "tried: " + "; ".join(step.in_words() for step in found.steps)
    if found.float_nodes:
        yield f"in float: {', '.join(found.float_nodes)}"


def _golden_db(profile: HardwareProfile, precision: str) -> float:
    arm_openvino = profile.backend == "openvino" and profile.machine == "aarch64"
    if precision == "int8" and arm_openvino:
        return _GOLDEN_DB_ARM_OPENVINO_INT8
    return _GOLDEN_DB[precision]


def _version(tool: str) -> str:
    """Return a package's own version; its distribution may have another name (onnxruntime-gpu)."""
    return str(importlib.import_module(tool).__version__)


def max_drops(profiles: Sequence[HardwareProfile], section: ExportSection) -> dict[str, float]:
    """Return the most accuracy that each target's BF16 and INT8 may lose, in points.

    The recipe decides before the profile, and both before the default of one point.
    """
    asked = section.max_drop
    found = {}
    for profile in profiles:
        own = profile.limits.accuracy_drop_pt
        found[profile.name] = asked if asked is not None else MAX_DROP_PT if own is None else own
    return found
