"""ONNX Runtime: loads ONNX files and runs them in the precision that is written in them.

Quantizing and exporting live in ``quantize`` and ``export``.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from edgexfer.core.backend import Plan, TensorSpec, check_plan
from edgexfer.core.errors import BackendError, first_line, nearest

NAME = "onnxruntime"
OPTIONS = {
    "graph_optimization": "all (default), extended, basic or none: how far the graph is rewritten",
    "allow_spinning": "true (default): idle threads spin, which is fastest for a program alone on "
    "its cores; false where other work shares them",
}
PRECISIONS = ("fp32", "int8")
PROVIDERS = {"CPU": "CPUExecutionProvider", "CUDA": "CUDAExecutionProvider"}
_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}
_NO_SUCH_OPERATOR = ("No Op registered", "not a registered", "Could not find an implementation")
_QUANTIZED_OPS = (b"DequantizeLinear", b"QLinear")


def unavailable() -> Optional[str]:
    """Say why ONNX Runtime cannot be used here, ``None`` when it can."""
    try:
        import onnxruntime  # noqa: F401
    except (ImportError, OSError) as error:
        return f"onnxruntime cannot be imported ({error})"
    return None


def versions() -> Dict[str, str]:
    """Return ONNX Runtime's version."""
    import onnxruntime as ort

    return {"onnxruntime": ort.__version__}


def compile(model: Path, out: Path, plan: Plan) -> Path:  # noqa: ARG001
    """Return ``model``: ONNX Runtime loads ONNX itself."""
    return model


def load(artefact: Path, plan: Plan) -> OrtSession:
    """Load an ONNX file on exactly the provider that the plan's device stands for.

    ONNX Runtime runs what the file says and has no switch for precision, so the plan's precision
    is checked against the file: quantized operators must be there for ``int8`` and only for it.

    Raises:
        BackendError: the file cannot be loaded, its precision is another one, or the provider is
            missing or not the one that became active.
    """
    check_plan(NAME, plan, PRECISIONS, OPTIONS)
    import onnxruntime as ort

    provider = _provider(plan.device, ort.get_available_providers())
    precision = _written_precision(artefact)
    if precision != plan.precision:
        raise BackendError(
            f"{artefact}: is {precision}, the plan asks for {plan.precision}",
            f"load it with precision {precision}, or export it again",
        )
    options = _session_options(ort, plan, provider)
    try:
        session = ort.InferenceSession(
            str(artefact),
            options,
            providers=[provider],
            enable_fallback=0,
        )
    except Exception as error:  # ONNX Runtime's classes share no base but this one
        raise _refused(artefact, error) from error
    really = session.get_providers()[0]
    if really != provider:
        raise BackendError(
            f"{artefact}: runs on {really}, not on {provider}",
            f"mend the installation of {provider}, or choose device CPU",
        )
    return OrtSession(session, provider, precision)


class OrtSession:
    """A loaded ONNX model; see ``core.backend.Session``."""

    def __init__(self, session: Any, provider: str, precision: str) -> None:
        """Use ``load``; this only keeps the session and its names."""
        self._session = session
        self.inputs = tuple(_spec(node) for node in session.get_inputs())
        self.outputs = tuple(_spec(node) for node in session.get_outputs())
        self._names = [spec.name for spec in self.outputs]
        options = session.get_session_options()
        self.active: Dict[str, Any] = {
            "provider": provider,
            "precision": precision,
            "threads": options.intra_op_num_threads,
            "graph_optimization": options.graph_optimization_level.name,
        }

    def run(self, feed: Mapping[str, Any]) -> Dict[str, Any]:
        """Run once; the arrays that come back belong to the caller."""
        try:
            return dict(zip(self._names, self._session.run(self._names, feed)))
        except Exception as error:  # ONNX Runtime's classes share no base but this one
            raise BackendError(
                f"ONNX Runtime stopped in a run ({first_line(error, 160)})",
                "check names, shapes and types of what is fed",
            ) from error

    def stream(self) -> OrtSession:
        """Return itself: a session may be run from several threads at once."""
        return self

    def close(self) -> None:
        """Drop the session, and with it ONNX Runtime's memory."""
        self._session = None


def _refused(artefact: Path, error: Exception) -> BackendError:
    """Say why a file was not loaded, and the mend where the reason is one of the usual two."""
    said = first_line(error, 1000)
    reason = said.partition(" failed:")[2] or said
    mend = "export it again"
    if "opset" in reason.lower():
        mend = "export it again, with an opset that this ONNX Runtime knows"
    elif any(words in reason for words in _NO_SUCH_OPERATOR):
        mend = "write it without that operator, or name a runtime that has it"
    return BackendError(f"{artefact}: ONNX Runtime cannot load it ({reason[:160]})", mend)


def _provider(device: str, available: Any) -> str:
    if device not in PROVIDERS:
        raise BackendError(f"backend {NAME}: no device {device!r}", nearest(device, PROVIDERS))
    provider = PROVIDERS[device]
    if provider not in available:
        raise BackendError(
            f"backend {NAME}: {provider} is not in this build (it has {', '.join(available)})",
            "install a build that has it, or choose device CPU",
        )
    return provider


def _session_options(ort: Any, plan: Plan, provider: str) -> Any:
    level = plan.options.get("graph_optimization", "all")
    if level not in _LEVELS:
        raise BackendError(
            f"backend {NAME}: graph_optimization is {level!r}", nearest(str(level), _LEVELS)
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = plan.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[level])
    options.log_severity_level = 3
    spin = "1" if plan.options.get("allow_spinning", True) else "0"
    options.add_session_config_entry("session.intra_op.allow_spinning", spin)
    if provider != "CPUExecutionProvider":
        # Otherwise nodes that the provider lacks would move to the CPU in silence.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def _written_precision(artefact: Path) -> str:
    """Tell int8 from fp32 by the names of quantized operators, which ONNX stores as plain text."""
    try:
        with artefact.open("rb") as stream, mmap.mmap(
            stream.fileno(), 0, access=mmap.ACCESS_READ
        ) as content:
            quantized = any(content.find(name) >= 0 for name in _QUANTIZED_OPS)
    except (OSError, ValueError) as error:
        raise BackendError(f"{artefact}: cannot be read ({error})", "check the path") from error
    return "int8" if quantized else "fp32"


def _spec(node: Any) -> TensorSpec:
    shape: Tuple[int, ...] = tuple(side if isinstance(side, int) else -1 for side in node.shape)
    names = {"tensor(float)": "float32", "tensor(double)": "float64"}
    kind = node.type
    return TensorSpec(node.name, shape, names.get(kind, kind[len("tensor(") : -1]))
