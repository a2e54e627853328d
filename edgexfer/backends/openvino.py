"""OpenVINO: loads IR or ONNX, and runs it in a precision that is set and read back.

Left alone, OpenVINO chooses the precision by the CPU (bfloat16 on one, float16 on another), so that
"FP32" would mean something else on each machine. Quantizing with NNCF lives in ``quantize``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from edgexfer.core.backend import Plan, TensorSpec, check_plan
from edgexfer.core.errors import BackendError, first_line, nearest

NAME = "openvino"
OPTIONS = {
    "float_precision": "fp32 (default; fp16 on an NPU), fp16 or bf16: what the float layers of an "
    "int8 model run in"
}
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


def unavailable() -> Optional[str]:
    """Say why OpenVINO cannot be used here, ``None`` when it can."""
    try:
        import openvino  # noqa: F401
    except (ImportError, OSError) as error:
        return f"openvino cannot be imported ({error})"
    return None


def versions() -> Dict[str, str]:
    """Return OpenVINO's version."""
    import openvino as ov

    return {"openvino": ov.__version__}


def compile(model: Path, out: Path, plan: Plan) -> Path:  # noqa: ARG001
    """Convert an ONNX file to IR: ``out`` (``.xml``) with its weights, uncompressed, in ``.bin``.

    Raises:
        BackendError: OpenVINO cannot read the model.
    """
    import openvino as ov

    try:
        ov.save_model(ov.Core().read_model(str(model)), str(out), compress_to_fp16=False)
    except RuntimeError as error:
        raise BackendError(
            f"{model}: OpenVINO cannot convert it ({first_line(error, 160, last=True)})",
            "check the ONNX file, or its opset, with a newer OpenVINO",
        ) from error
    return out


def absent(device: str) -> Optional[str]:
    """Say that this machine lacks a device, such as ``NPU``, ``None`` where it has it."""
    import openvino as ov

    here = ov.Core().available_devices
    if device.split(".")[0] in {name.split(".")[0] for name in here}:
        return None
    return f"this machine has no {device} that OpenVINO can use, it has {', '.join(here)}"


def lacks(precision: str, device: str) -> Optional[str]:
    """Say why this machine cannot compute in a precision on a device, ``None`` where it can.

    Asked for a float type that it lacks, OpenVINO computes in fp32, or rounds between layers for
    show.
    """
    missing = absent(device)
    if missing is not None or precision not in ("fp16", "bf16"):
        return missing
    import openvino as ov

    can = ov.Core().get_property(device, "OPTIMIZATION_CAPABILITIES")
    return None if precision.upper() in can else f"this {device} has no {precision}"


def load(artefact: Path, plan: Plan) -> OpenVinoSession:
    """Load an ``.xml`` (with its ``.bin`` beside it) or ``.onnx`` file.

    Raises:
        BackendError: the file cannot be loaded, is quantized although the plan says float or the
            reverse, the device lacks the plan's precision, or OpenVINO did not take the precision
            or device that was set.
    """
    return prepare(deserialise(artefact, plan), artefact, plan)


def deserialise(artefact: Path, plan: Plan) -> Any:
    """Read a file and check that it is what the plan says; see ``load``."""
    check_plan(NAME, plan, PRECISIONS, OPTIONS)
    if artefact.suffix not in (".xml", ".onnx"):
        # OpenVINO would offer it to every frontend that it has, TensorFlow's included.
        raise BackendError(f"{artefact}: is neither .xml nor .onnx", "load one of those")
    import openvino as ov

    core = ov.Core()
    reason = lacks(plan.precision, plan.device)
    if reason is not None:
        raise BackendError(
            f"{artefact}: {reason}", "choose a precision and a device that this machine has"
        )
    try:
        model = core.read_model(str(artefact))
    except RuntimeError as error:
        raise _refused(artefact, plan, core, error) from error
    _check_quantization(artefact, model, plan)
    return model


def prepare(model: Any, artefact: Path, plan: Plan) -> OpenVinoSession:
    """Compile what ``deserialise`` has read; see ``load``."""
    import openvino as ov

    core = ov.Core()
    hint = _hint(plan)
    config = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    if plan.streams > 1:
        # Requests of several threads would queue for the one stream of the latency hint.
        config["NUM_STREAMS"] = str(plan.streams)
    if plan.threads:
        config["INFERENCE_NUM_THREADS"] = str(plan.threads)
    try:
        compiled = core.compile_model(model, plan.device, config)
        active = _read_back(compiled, plan)
    except RuntimeError as error:
        raise _refused(artefact, plan, core, error) from error
    runs_on = active["provider"].split(",")
    if any(device.split(".")[0] != plan.device.split(".")[0] for device in runs_on):
        raise BackendError(
            f"{artefact}: OpenVINO runs it on {active['provider']}, not on {plan.device}",
            f"name one of the devices here: {', '.join(core.available_devices)}",
        )
    if active["float_precision"] != hint:
        raise BackendError(
            f"{artefact}: OpenVINO runs {active['float_precision']} on {plan.device}, not {hint}",
            "choose a precision that this device has",
        )
    return OpenVinoSession(compiled, active)


class OpenVinoSession:
    """A compiled model with one request; see ``core.backend.Session``."""

    def __init__(self, compiled: Any, active: Dict[str, Any]) -> None:
        """Use ``load``; this only keeps the request and its ports."""
        import openvino as ov

        self._tensor = ov.Tensor
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self.active = active
        self.inputs = tuple(_spec(port) for port in compiled.inputs)
        self.outputs = tuple(_spec(port) for port in compiled.outputs)
        self._ports = {spec.name: i for i, spec in enumerate(self.inputs)}
        self._names = [spec.name for spec in self.outputs]

    def run(self, feed: Mapping[str, Any]) -> Dict[str, Any]:
        """Run once on arrays that OpenVINO reads in place; the outputs are copies."""
        request = self._request
        try:
            for name, array in feed.items():
                request.set_input_tensor(self._ports[name], self._tensor(array, shared_memory=True))
            outputs = request.infer(share_outputs=False).to_tuple()
        except (RuntimeError, KeyError, ValueError) as error:
            raise BackendError(
                f"OpenVINO stopped in a run ({first_line(error, 160, last=True)})",
                "check names, shapes and types of what is fed",
            ) from error
        return dict(zip(self._names, outputs))

    def stream(self) -> OpenVinoSession:
        """Return a session with a request of its own."""
        return OpenVinoSession(self._compiled, self.active)

    def close(self) -> None:
        """Drop the request, and with the last one the compiled model."""
        self._request = self._compiled = None


def _refused(artefact: Path, plan: Plan, core: Any, error: Exception) -> BackendError:
    reason = first_line(error, 160, last=True)
    mend = f"check file and device; devices here: {', '.join(core.available_devices)}"
    if "No conversion rule" in reason:
        mend = "write it without that operator, or name a runtime that has it"
    return BackendError(f"{artefact}: OpenVINO cannot load it on {plan.device} ({reason})", mend)


def _hint(plan: Plan) -> str:
    wanted = plan.precision
    if wanted == "int8":
        # An NPU computes in no wider type, and refuses to be asked for one.
        usual = "fp16" if plan.device.startswith("NPU") else "fp32"
        wanted = str(plan.options.get("float_precision", usual))
    if wanted not in _HINTS:
        raise BackendError(
            f"backend {NAME}: float_precision is {wanted!r}", nearest(wanted, _HINTS)
        )
    return _HINTS[wanted]


def _check_quantization(artefact: Path, model: Any, plan: Plan) -> None:
    quantized = any(op.get_type_name() == "FakeQuantize" for op in model.get_ops())
    if quantized != (plan.precision == "int8"):
        found = "int8" if quantized else "a float model"
        raise BackendError(
            f"{artefact}: is {found}, the plan asks for {plan.precision}",
            "load it with its own precision, or export it again",
        )


def _read_back(compiled: Any, plan: Plan) -> Dict[str, Any]:
    """Ask a compiled model what really runs; what its device does not tell is left out.

    Threads are the CPU's alone. A GPU gives no precision for its results, an NPU for no layer, and
    its device as one word where the others give a list.
    """
    layers: Dict[str, int] = {}
    for op in compiled.get_runtime_model().get_ops():
        told = op.get_rt_info()
        if "runtimePrecision" in told:
            kind = told["runtimePrecision"].value
            layers[kind] = layers.get(kind, 0) + 1
    names = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
    hint = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    devices = compiled.get_property("EXECUTION_DEVICES")
    found: Dict[str, Any] = {
        "provider": devices if isinstance(devices, str) else ",".join(devices),
        "precision": plan.precision,
        "float_precision": names.get(hint, hint),
        "layers": layers or None,
    }
    known = compiled.get_property("SUPPORTED_PROPERTIES")
    for fact, name in (("threads", "INFERENCE_NUM_THREADS"), ("streams", "NUM_STREAMS")):
        if name in known:
            found[fact] = compiled.get_property(name)
    return found


def _spec(port: Any) -> TensorSpec:
    sides = port.partial_shape
    shape = tuple(-1 if side.is_dynamic else side.get_length() for side in sides)
    return TensorSpec(port.any_name, shape, str(port.element_type.to_dtype()))
