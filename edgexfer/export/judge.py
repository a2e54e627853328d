"""Judging INT8 files against FP32 on images held out, so that none is chosen by the test images."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edgexfer.backends.openvino import absent
from edgexfer.bench.accuracy import predict
from edgexfer.bench.compare import compare
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.explanation import Verdict
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.profile import HardwareProfile
from edgexfer.export.parity import INT8, Float32, worst_drop
from edgexfer.quantize.calibration import HeldOut

_PIXELS_AT_ONCE = 32 * 64 * 64


@dataclass(frozen=True)
class Route:
    """How a target's file is run here.

    Attributes:
        runtime: that runs it.
        plan: how.
        where: in words, where another runtime or device than the target's stands in; else empty.
    """

    runtime: str
    plan: Plan
    where: str = ""


def route(profile: HardwareProfile, precision: str) -> Route:
    """Return how a target's file is run on this machine.

    TensorRT builds engines on the device alone: ONNX Runtime runs the file that they are built
    from. For a GPU or an NPU that is not here, OpenVINO's CPU runs the same file, where float types
    are all FP32.
    """
    computed = "int8" if precision == "int8" else "fp32"
    if profile.backend == "tensorrt":
        # As written: ONNX Runtime's optimiser is none of TensorRT's, and spoils Q/DQ that is typed
        # as FP16. A trained resnet18 came out at 12 dB with it and at 34 dB without (1.31).
        options = {"graph_optimization": "none"} if precision == "int8" else {}
        return Route("onnxruntime", Plan(computed, options=options), "run in onnxruntime")
    if profile.backend == "openvino":
        get_backend("openvino")
        if absent(profile.device):
            where = f"run in {computed.upper()} on the CPU, as there is no {profile.device} here"
            return Route("openvino", Plan(computed, options=profile.options), where)
    return Route(profile.backend, Plan(precision, device=profile.device, options=profile.options))


class HeldOutJudge:
    """Says of an INT8 file what it loses against the FP32 file on images held out."""

    def __init__(
        self,
        model: Path,
        held_out: HeldOut,
        preprocess: Preprocess,
        profile: HardwareProfile,
        max_drop: float,
    ) -> None:
        """Run the FP32 model.

        Args:
            model: FP32 ONNX file.
            held_out: the images.
            preprocess: the model's.
            profile: the target, whose runtime is asked.
            max_drop: most accuracy that may be lost, in points. Half of it is allowed here, as
                what is chosen on some images loses more on others.
        """
        self._held_out, self._preprocess, self._profile = held_out, preprocess, profile
        self._allowed = max_drop / 2
        self._reference = self._run(model, "onnxruntime", Plan())

    def __call__(self, file: Path) -> Verdict:
        """Run an INT8 file and compare it."""
        way = route(self._profile, "int8")
        found = self._run(file, way.runtime, way.plan)
        tasks = self._held_out.tasks
        difference = compare(self._reference, found, tasks)
        drop = worst_drop(self._reference, found, self._held_out.labels, tasks)[0].drop_pt
        alike = (
            difference.at_least(INT8["sqnr_db"])
            and difference.agreement_pct >= INT8["agreement_pct"]
        )
        passed = alike and drop <= self._allowed
        return Verdict(passed, difference.sqnr_db, difference.agreement_pct, drop, alike)

    def _run(self, file: Path, runtime: str, plan: Plan) -> Float32:
        height, width = self._preprocess.size
        batch = max(1, _PIXELS_AT_ONCE // (height * width))
        with closing(get_backend(runtime).load(file, plan)) as session:
            logits: Float32 = predict(session, self._held_out.images, self._preprocess, batch)
        return logits
