"""Building an engine from ONNX with the TensorRT that is here, from 8.5 to 11.

What a version can do is asked of it by name; no version number is ever compared. TensorRT 10 took
to networks whose precision stands in the file (strongly typed), 8 chooses it by flags, 11 has no
such flags left. Loading and running engines lives in ``tensorrt``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Set, Tuple

from edgexfer.backends._cuda import Cuda
from edgexfer.core.backend import Plan
from edgexfer.core.errors import BackendError
from edgexfer.core.files import make_dir, write_atomic

TIMING_CACHE = "timing.cache"
# Weights, activations and the builder itself share a Jetson's memory with its workspace.
_RESERVE_BYTES = 512 << 20
_LEAST_WORKSPACE_BYTES = 64 << 20
_FLAGS = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8", "FP16")}


def make_log(trt: Any) -> Any:
    """Return a logger that prints nothing and keeps the errors in ``errors``, oldest first."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: List[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity.name in ("ERROR", "INTERNAL_ERROR"):
                self.errors.append(" ".join(str(msg).split()))

    return Log()


def take_reason(log: Any) -> str:
    """Return the first error since the last call, in one line; those that follow come of it."""
    # A kernel that does not fit is passed over, and is no reason.
    errors = [text for text in log.errors if "Skipping tactic" not in text]
    log.errors.clear()
    return str(errors[0])[:200] if errors else "it gave no reason"


def build_engine(trt: Any, cuda: Cuda, model: Path, out: Path, plan: Plan) -> Tuple[bytes, int]:
    """Build an engine.

    Args:
        trt: the module ``tensorrt``.
        cuda: CUDA's runtime.
        model: ONNX file; data that it keeps outside lies beside it.
        out: where the engine will go; its folder holds the timing cache.
        plan: precision, device and options.

    Returns:
        The engine's bytes, and the limit of the workspace that it was built with.

    Raises:
        BackendError: TensorRT does not take the model, has no such precision or device, or has too
            little memory.
    """
    log = make_log(trt)
    builder = trt.Builder(log)
    scales = plan.options.get("calibration_cache")
    calibrator = _calibrator(trt, model.parent / str(scales)) if scales else None
    strong = calibrator is None and _typed_strongly(trt, plan)
    network = builder.create_network(_creation_flags(trt, strong))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(model)):
        raise BackendError(
            f"{model}: TensorRT {trt.__version__} does not take it ({_parser_error(parser, log)})",
            "export for this release of TensorRT (its opset, its typing), or choose another model",
        )
    _check_precision(trt, network, model, plan, strong)
    config = builder.create_builder_config()
    # Otherwise the engine could not be asked which layers run in which precision.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    workspace = _limit_workspace(trt, config, cuda, plan)
    if not strong:
        _set_precision_flags(trt, config, plan)
    if plan.precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    if calibrator is not None:
        config.int8_calibrator = calibrator
    if plan.device == "DLA":
        _place_on_dla(trt, builder, config, plan)
    _add_profile(builder, network, config, model, plan)
    cache = out.parent / TIMING_CACHE
    _read_timing_cache(config, cache)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise BackendError(
            f"{model}: TensorRT {trt.__version__} cannot build it ({take_reason(log)})",
            "free memory on the device, or choose another precision or model",
        )
    _write_timing_cache(config, cache)
    return bytes(memoryview(serialized)), workspace


def _typed_strongly(trt: Any, plan: Plan) -> bool:
    """Say whether the file decides on precision; a DLA wants flags as long as there are any."""
    if plan.device == "DLA" and hasattr(trt.BuilderFlag, "FP16"):
        return False
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def _creation_flags(trt: Any, strong: bool) -> int:
    kinds = trt.NetworkDefinitionCreationFlag
    names = ["EXPLICIT_BATCH"] + (["STRONGLY_TYPED"] if strong else [])
    # The numbers behind the names differ from version to version.
    return sum(1 << int(getattr(kinds, name)) for name in names if hasattr(kinds, name))


def _parser_error(parser: Any, log: Any) -> str:
    """Say in one line at which node and operator the parser stopped, and why."""
    if not parser.num_errors:
        return take_reason(log)
    error = parser.get_error(0)
    where = f"node {error.node()}"
    if hasattr(error, "node_operator"):
        where = f"node {error.node_name() or error.node()!r}, {error.node_operator()}"
    return f"{where}: {' '.join(error.desc().split())}"[:240]


def _check_precision(trt: Any, network: Any, model: Path, plan: Plan, strong: bool) -> None:
    """Refuse a file whose own precision is not the plan's, where the file decides."""
    kinds: Set[Any] = set()
    dtypes: Set[Any] = set()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        kinds.add(layer.type)
        dtypes.update(layer.get_output(i).dtype for i in range(layer.num_outputs))
    quantized = trt.LayerType.DEQUANTIZE in kinds
    half = trt.DataType.HALF in dtypes
    written = "int8" if quantized else "fp16" if half else "fp32"
    # A calibration cache brings the scales that the file then must not have.
    wanted = "fp32" if plan.options.get("calibration_cache") else plan.precision
    if not strong and wanted == "fp16" and written == "fp32":
        return
    if written != wanted:
        raise BackendError(
            f"{model}: is {written}, the plan asks for {wanted}",
            f"build it with precision {written}, or export it again",
        )


def _limit_workspace(trt: Any, config: Any, cuda: Cuda, plan: Plan) -> int:
    free = cuda.free_bytes()
    limit = free - max(_RESERVE_BYTES, free // 4)
    asked = plan.options.get("workspace_mib")
    if asked is not None:
        limit = min(limit, int(asked) << 20)
    if limit < _LEAST_WORKSPACE_BYTES:
        raise BackendError(
            f"only {free >> 20} MiB of the device's memory are free, too few to build an engine",
            "close other programs (on a Jetson: the desktop too), then build again",
        )
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, limit)
    return limit


def _set_precision_flags(trt: Any, config: Any, plan: Plan) -> None:
    for name in _FLAGS[plan.precision]:
        config.set_flag(getattr(trt.BuilderFlag, name))


def _calibrator(trt: Any, cache: Path) -> Any:
    """Return a calibrator that has no images, only the scales of a cache file."""
    if not hasattr(trt, "IInt8EntropyCalibrator2"):
        raise BackendError(
            f"TensorRT {trt.__version__} takes no calibration cache",
            "export with Q/DQ nodes, and leave the option calibration_cache out",
        )
    try:
        scales = cache.read_bytes()
    except OSError as error:
        raise BackendError(
            f"{cache}: cannot be read ({error.strerror})",
            "name a file beside the ONNX file in the option calibration_cache",
        ) from error

    class Calibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: List[str]) -> None:  # noqa: ARG002
            return None

        def read_calibration_cache(self) -> bytes:
            return scales

        def write_calibration_cache(self, cache: bytes) -> None:
            # TensorRT asks for it; what it offers to keep is what it has just read.
            del cache

    return Calibrator()


def _place_on_dla(trt: Any, builder: Any, config: Any, plan: Plan) -> None:
    core, cores = int(plan.options.get("dla_core", 0)), builder.num_DLA_cores
    if core >= cores:
        raise BackendError(
            f"DLA core {core} is not here: this device and TensorRT {trt.__version__} have {cores}",
            "choose device GPU, or a release of TensorRT that has the board's DLA",
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    if plan.options.get("gpu_fallback", True):
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _add_profile(builder: Any, network: Any, config: Any, model: Path, plan: Plan) -> None:
    """Give a free batch its range: 1 to the option ``max_batch``, tuned for 1."""
    most = int(plan.options.get("max_batch", 1))
    profile, dynamic = builder.create_optimization_profile(), False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = tuple(tensor.shape)
        if -1 in shape[1:]:
            raise BackendError(
                f"{model}: input {tensor.name} is free in {shape}, not in its batch alone",
                "export it with a fixed image size",
            )
        if shape and shape[0] == -1:
            sides = shape[1:]
            profile.set_shape(tensor.name, (1, *sides), (1, *sides), (most, *sides))
            dynamic = True
    if dynamic:
        config.add_optimization_profile(profile)


def _read_timing_cache(config: Any, place: Path) -> None:
    content = place.read_bytes() if place.is_file() else b""
    cache = config.create_timing_cache(content)
    # One of another version or device is refused; then the kernels are timed anew.
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _write_timing_cache(config: Any, place: Path) -> None:
    cache = config.get_timing_cache()
    if cache is not None:
        make_dir(place.parent)
        write_atomic(place, bytes(memoryview(cache.serialize())))
