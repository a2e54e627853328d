"""TensorRT: builds an engine on the device it will run on, and runs it through the name-based API.

One path from TensorRT 8.5 to 11. It needs the system's ``tensorrt``, libcudart and numpy. An engine
is bound to the GPU and the TensorRT that built it; the stamp beside it (``_trt_stamp``) says which
those were. How an engine is built lives in ``_trt_build``.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from edgexfer.backends._cuda import Buffer, Cuda
from edgexfer.backends._layers import parse_layers
from edgexfer.backends._trt_build import build_engine, make_log, take_reason
from edgexfer.backends._trt_stamp import REBUILD, check_stamp, here, request, stamp_of, stands
from edgexfer.core.backend import Plan, TensorSpec, check_plan
from edgexfer.core.errors import BackendError, nearest
from edgexfer.core.files import make_dir, sha256_file, write_atomic, write_json

NAME = "tensorrt"
OPTIONS = {
    "max_batch": "1 (default): largest batch of an engine whose batch is free",
    "workspace_mib": "most memory for the builder's and the kernels' workspace, in MiB; without it "
    "what the device has free, less a reserve",
    "cuda_graph": "true (default on GPU): replay a run as one CUDA graph, where it can be captured",
    "dla_core": "0 (default): which DLA core, with device DLA",
    "gpu_fallback": "true (default): layers that the DLA lacks run on the GPU, with device DLA",
    "calibration_cache": "file beside the ONNX file with INT8 scales, for TensorRT whose DLA takes "
    "no Q/DQ nodes",
}
PRECISIONS = ("fp32", "fp16", "int8")
DEVICES = ("GPU", "DLA")
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


def unavailable() -> Optional[str]:
    """Say why TensorRT cannot be used here, ``None`` when it can."""
    try:
        import tensorrt  # noqa: F401
    except (ImportError, OSError) as error:
        return f"tensorrt cannot be imported ({error})"
    try:
        return None if Cuda().devices() else "there is no CUDA device"
    except BackendError as error:
        return error.what


def versions() -> Dict[str, str]:
    """Return the versions of TensorRT and of CUDA's runtime."""
    import tensorrt as trt

    return {"tensorrt": str(trt.__version__), "cuda": Cuda().version()}


def compile(model: Path, out: Path, plan: Plan) -> Path:
    """Build an engine from an ONNX file, unless ``out`` is just that engine already.

    Writes ``out``, its stamp and the timing cache beside it, each atomically.

    Raises:
        BackendError: TensorRT does not take the model, or the device lacks what the plan asks for.
        DiskError: the engine cannot be written.
    """
    _check(plan)
    import tensorrt as trt

    cuda = Cuda()
    if not model.is_file():
        raise BackendError(f"{model}: no such file", "name an ONNX file")
    stamp = {**here(trt, cuda), **request(model, plan)}
    if stands(out, stamp):
        return out
    serialized, workspace = build_engine(trt, cuda, model, out, plan)
    make_dir(out.parent)
    # The old stamp goes first: an engine without one is only ever built again.
    with contextlib.suppress(FileNotFoundError):
        stamp_of(out).unlink()
    write_atomic(out, serialized)
    made = {"engine_sha256": sha256_file(out), "workspace_bytes": workspace}
    write_json(stamp_of(out), {**stamp, **made})
    return out


def load(artefact: Path, plan: Plan) -> TrtSession:
    """Load an engine that was built on this device by this TensorRT.

    Raises:
        BackendError: it was built elsewhere, is damaged, or the device lacks memory.
    """
    _check(plan)
    if artefact.suffix == ".onnx":
        raise BackendError(
            f"{artefact}: is ONNX, TensorRT runs engines",
            "set compile_on: device in the profile, or build it with trtexec",
        )
    import tensorrt as trt

    cuda = Cuda()
    check_stamp(artefact, here(trt, cuda), plan)
    log = make_log(trt)
    free_bytes = cuda.free_bytes()  # makes CUDA's context too, which is no artefact's
    runtime = trt.Runtime(log)
    if plan.device == "DLA":
        runtime.DLA_core = int(plan.options.get("dla_core", 0))
    try:
        engine = runtime.deserialize_cuda_engine(artefact.read_bytes())
    except OSError as error:
        raise BackendError(f"{artefact}: cannot be read ({error})", "check the path") from error
    if engine is None:
        raise BackendError(
            f"{artefact}: TensorRT {trt.__version__} cannot load it ({take_reason(log)})", REBUILD
        )
    context = engine.create_execution_context()
    if context is None:
        raise BackendError(
            f"{artefact}: TensorRT cannot make room for its activations ({take_reason(log)})",
            "close other programs, or lower the option max_batch",
        )
    session = TrtSession((trt, log, runtime), cuda, engine, context, plan)
    session.note_memory(free_bytes)
    return session


class TrtSession:
    """A loaded engine with one execution context; see ``core.backend.Session``."""

    def __init__(
        self, owners: Tuple[Any, Any, Any], cuda: Cuda, engine: Any, context: Any, plan: Plan
    ) -> None:
        """Use ``load``; this allocates buffers and runs once, so that a graph can be captured."""
        self._trt, self._log, self._runtime = owners
        self._cuda, self._engine, self._context = cuda, engine, context
        self._shapes: Dict[str, Tuple[int, ...]] = {}
        self._buffers: Dict[str, Buffer] = {}
        self._views: Dict[str, Any] = {}
        self._graph: Optional[int] = None
        self._stream: Optional[int] = None
        self._events: List[int] = []
        self._taken_bytes = 0
        modes = self._trt.TensorIOMode
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        specs = [_spec(engine, name) for name in names]
        is_input = [engine.get_tensor_mode(name) == modes.INPUT for name in names]
        self.inputs = tuple(spec for spec, own in zip(specs, is_input) if own)
        self.outputs = tuple(spec for spec, own in zip(specs, is_input) if not own)
        wish = plan.options.get("cuda_graph", plan.device == "GPU")
        self.active: Dict[str, Any] = {"cuda_graph": "on" if wish else "off"}
        try:
            self._stream = cuda.stream()
            self._events = [cuda.event(), cuda.event()]
            self._allocate()
            self._prepare({spec.name: _least(spec.shape) for spec in self.inputs})
        except BackendError:
            self.close()
            raise
        self.active.update(self._facts(plan))

    def run(self, feed: Mapping[str, Any]) -> Dict[str, Any]:
        """Run once; the arrays that come back belong to the caller."""
        try:
            self._handle()  # a closed session has no buffers either
            self._fill(feed)
            self._launch()
        except (BackendError, KeyError, ValueError, AttributeError) as error:
            raise BackendError(
                f"TensorRT stopped in a run ({error})",
                "check names, shapes and types of what is fed",
            ) from error
        return {spec.name: self._views[spec.name].copy() for spec in self.outputs}

    def gpu_ns(self) -> int:
        """Return how long the device took for the last run, copies included, by its own events."""
        return self._cuda.elapsed_ns(*self._events)

    def note_memory(self, free_before: int) -> None:
        """Keep how much less of the device's memory is free, now that the engine has run once."""
        self._taken_bytes = free_before - self._cuda.free_bytes()

    def device_bytes(self) -> int:
        """Return how much of the device's free memory loading and the first run took.

        Weights, activations, buffers and the kernels' code; not CUDA's own context. CUDA tells what
        is free to all programs: where another one gave memory back meanwhile, this can be 0 or
        less. A board whose host and device share memory counts what the host took too.
        """
        return self._taken_bytes

    def close(self) -> None:
        """Free buffers, graph, events and stream, then the engine."""
        cuda = self._cuda
        if self._graph is not None:
            cuda.destroy("GraphExec", self._graph)
        for event in self._events:
            cuda.destroy("Event", event)
        for buffer in self._buffers.values():
            cuda.release(buffer)
        if self._stream is not None:
            cuda.destroy("Stream", self._stream)
        self._graph, self._stream, self._events = None, None, []
        # The views go with the memory that they show.
        self._buffers, self._views = {}, {}
        # In this order: TensorRT wants what was made last to go first.
        self._context = None
        self._engine = None
        self._runtime = None

    def _allocate(self) -> None:
        """Allocate buffers for the largest shapes, and tell the context where they are."""
        engine, context = self._engine, self._context
        for spec in self.inputs:
            largest = spec.shape
            if -1 in spec.shape:
                largest = tuple(engine.get_tensor_profile_shape(spec.name, 0)[2])
                self._set_shape(spec.name, largest)
            self._buffers[spec.name] = self._cuda.allocate(_bytes(spec, largest))
        for spec in self.outputs:
            largest = tuple(context.get_tensor_shape(spec.name))
            self._buffers[spec.name] = self._cuda.allocate(_bytes(spec, largest))
        for name, buffer in self._buffers.items():
            if not context.set_tensor_address(name, buffer.device):
                raise BackendError(
                    f"TensorRT refuses a buffer for {name} ({take_reason(self._log)})", REBUILD
                )

    def _set_shape(self, name: str, shape: Tuple[int, ...]) -> None:
        if not self._context.set_input_shape(name, shape):
            raise BackendError(
                f"{name} is {shape}, which the engine was not built for",
                "feed the engine's own shapes, or raise the option max_batch",
            )

    def _prepare(self, shapes: Dict[str, Tuple[int, ...]]) -> None:
        """Make the context ready for inputs of these shapes, and capture a run of them."""
        if self._graph is not None:
            self._cuda.destroy("GraphExec", self._graph)
            self._graph = None
        # Forgotten first: where a shape is refused, the next run has to start here again.
        self._shapes = {}
        for spec in self.inputs:
            if -1 in spec.shape:
                self._set_shape(spec.name, shapes[spec.name])
            elif shapes[spec.name] != spec.shape:
                raise BackendError(
                    f"{spec.name} is {shapes[spec.name]}, the engine takes {spec.shape}",
                    "feed the engine's own shapes",
                )
        outputs = {s.name: tuple(self._context.get_tensor_shape(s.name)) for s in self.outputs}
        self._shapes = {**shapes, **outputs}
        # Made once per shape: a run has no time to lose.
        self._views = {
            spec.name: self._buffers[spec.name].view(spec.dtype, self._shapes[spec.name])
            for spec in (*self.inputs, *self.outputs)
        }
        # TensorRT settles its state for new shapes in a first run, which a graph cannot hold.
        self._launch()
        if self.active["cuda_graph"] == "on":
            try:
                self._graph = self._cuda.capture(self._handle(), self._enqueue)
            except BackendError as error:
                self.active["cuda_graph"] = f"refused: {error.what}"

    def _fill(self, feed: Mapping[str, Any]) -> None:
        import numpy as np

        for spec in self.inputs:
            if feed[spec.name].dtype != spec.dtype:
                raise ValueError(f"{spec.name} is {feed[spec.name].dtype}, not {spec.dtype}")
        shapes = {spec.name: tuple(feed[spec.name].shape) for spec in self.inputs}
        if any(self._shapes.get(name) != shape for name, shape in shapes.items()):
            self._prepare(shapes)
        for name in shapes:
            np.copyto(self._views[name], feed[name], casting="no")

    def _launch(self) -> None:
        """Do one run of what the inputs' buffers hold, and wait for it."""
        stream, (start, end) = self._handle(), self._events
        self._cuda.record(start, stream)
        if self._graph is None:
            self._enqueue()
        else:
            self._cuda.launch(self._graph, stream)
        self._cuda.record(end, stream)
        self._cuda.synchronize(stream)

    def _enqueue(self) -> None:
        stream = self._handle()
        for spec in self.inputs:
            size = self._views[spec.name].nbytes
            self._cuda.to_device(self._buffers[spec.name], size, stream)
        if not self._context.execute_async_v3(stream):
            raise BackendError(take_reason(self._log), "build the engine again")
        for spec in self.outputs:
            size = self._views[spec.name].nbytes
            self._cuda.to_host(self._buffers[spec.name], size, stream)

    def _handle(self) -> int:
        if self._stream is None:
            raise BackendError("the session is closed", "load the engine again")
        return self._stream

    def _facts(self, plan: Plan) -> Dict[str, Any]:
        """Read back what really runs."""
        engine, trt = self._engine, self._trt
        inspector = engine.create_engine_inspector()
        text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        try:
            layers = parse_layers(text, "the engine").types
        except BackendError:  # a schema of a version to come is no reason not to run
            layers = None
        device = self._cuda.device()
        # TensorRT 11 has the second alone, 8 the first.
        memory = ("device_memory_size_v2", "device_memory_size")
        size = next((int(getattr(engine, n)) for n in memory if hasattr(engine, n)), None)
        return {
            "provider": f"TensorRT {plan.device}, {device['name']}",
            "precision": plan.precision,
            "layers": layers,
            "device_memory_bytes": size,
            "memory": "shared with the host" if self._cuda.shares_memory() else "its own",
            "compute_capability": device["compute_capability"],
            "multiprocessors": device["multiprocessors"],
        }


def _check(plan: Plan) -> None:
    check_plan(NAME, plan, PRECISIONS, OPTIONS)
    if plan.device not in DEVICES:
        raise BackendError(
            f"backend {NAME}: no device {plan.device!r}", nearest(plan.device, DEVICES)
        )
    for option, least in (("max_batch", 1), ("workspace_mib", 1), ("dla_core", 0)):
        value = plan.options.get(option, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise BackendError(
                f"backend {NAME}: {option} is {value!r}", f"give a whole number from {least} up"
            )
    most = plan.options.get("max_batch", 1)
    if plan.device == "DLA" and most > 1:
        raise BackendError(
            f"backend {NAME}: max_batch is {most}, and a DLA takes one shape alone",
            "leave max_batch out, or choose device GPU",
        )
    cache = plan.options.get("calibration_cache")
    if cache and (plan.precision != "int8" or Path(str(cache)).name != cache):
        raise BackendError(
            f"backend {NAME}: calibration_cache is {cache!r}, with precision {plan.precision}",
            "name a file beside the ONNX file, with precision int8, or leave the option out",
        )


def _spec(engine: Any, name: str) -> TensorSpec:
    kind = engine.get_tensor_dtype(name).name
    if kind not in _DTYPES:
        raise BackendError(
            f"tensor {name} is {kind}, which numpy does not have",
            "export inputs and outputs as float32",
        )
    # TensorRT's own nptype() fails beside a numpy that is newer than it.
    return TensorSpec(name, tuple(engine.get_tensor_shape(name)), _DTYPES[kind])


def _least(shape: Tuple[int, ...]) -> Tuple[int, ...]:
    return tuple(1 if side == -1 else side for side in shape)


def _bytes(spec: TensorSpec, shape: Tuple[int, ...]) -> int:
    import numpy as np

    size = int(np.dtype(spec.dtype).itemsize)
    for side in shape:
        size *= side
    return size
