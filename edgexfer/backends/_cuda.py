"""The part of CUDA's runtime library that an engine needs, through ctypes.

Memory on the device, pinned memory on the host, one stream, events and graphs. What TensorRT does
with them lives in ``tensorrt``.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

from edgexfer.core.backend import install_hint
from edgexfer.core.errors import BackendError

# Newest first after the unversioned name, which only development packages install.
NAMES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
_TO_DEVICE, _TO_HOST = 1, 2
_NON_BLOCKING = 1
_CAPTURE_THREAD_LOCAL = 1
_MAJOR, _MINOR, _MULTIPROCESSORS, _INTEGRATED = 75, 76, 16, 18
# The name is the first field of cudaDeviceProp in every release; the rest of it has grown.
_PROPERTIES_BYTES, _NAME_BYTES = 8192, 256

_SIGNATURES: Dict[str, Tuple[Any, ...]] = {
    "cudaGetLastError": (),
    "cudaGetDeviceCount": (POINTER(c_int),),
    "cudaGetDeviceProperties": (c_void_p, c_int),
    "cudaDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cudaRuntimeGetVersion": (POINTER(c_int),),
    "cudaMemGetInfo": (POINTER(c_size_t), POINTER(c_size_t)),
    "cudaMalloc": (POINTER(c_void_p), c_size_t),
    "cudaFree": (c_void_p,),
    "cudaHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cudaFreeHost": (c_void_p,),
    "cudaMemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, c_void_p),
    "cudaStreamCreateWithFlags": (POINTER(c_void_p), c_uint),
    "cudaStreamSynchronize": (c_void_p,),
    "cudaStreamDestroy": (c_void_p,),
    "cudaEventCreate": (POINTER(c_void_p),),
    "cudaEventRecord": (c_void_p, c_void_p),
    "cudaEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
    "cudaEventDestroy": (c_void_p,),
    "cudaStreamBeginCapture": (c_void_p, c_int),
    "cudaStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    # Unlike cudaGraphInstantiate it has one signature from CUDA 11.4 on.
    "cudaGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_ulonglong),
    "cudaGraphLaunch": (c_void_p, c_void_p),
    "cudaGraphExecDestroy": (c_void_p,),
    "cudaGraphDestroy": (c_void_p,),
}


class Cuda:
    """CUDA's runtime library, found and loaded; every failed call is a ``BackendError``."""

    def __init__(self) -> None:
        """Load the library.

        Raises:
            BackendError: it is not here, or lacks a function.
        """
        self._library = _load()
        for name, arguments in _SIGNATURES.items():
            function = getattr(self._library, name, None)
            if function is None:
                raise BackendError(f"libcudart has no {name}", "use CUDA 11.4 or newer")
            function.argtypes, function.restype = arguments, c_int
        self._library.cudaGetErrorString.argtypes = (c_int,)
        self._library.cudaGetErrorString.restype = c_char_p

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            # Taken away, so that it is not reported again by the next call.
            self._library.cudaGetLastError()
            text = (self._library.cudaGetErrorString(code) or b"").decode(errors="replace")
            raise BackendError(
                f"CUDA: {name} failed ({text or f'error {code}'})",
                "check memory, driver and power of the device",
            )

    def _value(self, kind: Any, name: str, *arguments: Any) -> Any:
        """Return what a function writes to its first argument."""
        found = kind()
        self._call(name, ctypes.byref(found), *arguments)
        return found.value

    def devices(self) -> int:
        """Return how many CUDA devices there are."""
        return int(self._value(c_int, "cudaGetDeviceCount"))

    def version(self) -> str:
        """Return the runtime's version, such as ``12.6``."""
        number = int(self._value(c_int, "cudaRuntimeGetVersion"))
        return f"{number // 1000}.{number % 1000 // 10}"

    def device(self) -> Dict[str, Any]:
        """Return the first device's ``name``, ``compute_capability`` and ``multiprocessors``."""
        properties = ctypes.create_string_buffer(_PROPERTIES_BYTES)
        self._call("cudaGetDeviceProperties", ctypes.cast(properties, c_void_p), 0)
        name = properties.raw[:_NAME_BYTES].split(b"\0")[0].decode(errors="replace")
        major, minor, multiprocessors = (
            self._value(c_int, "cudaDeviceGetAttribute", number, 0)
            for number in (_MAJOR, _MINOR, _MULTIPROCESSORS)
        )
        return {
            "name": name,
            "compute_capability": f"{major}.{minor}",
            "multiprocessors": multiprocessors,
        }

    def free_bytes(self) -> int:
        """Return the device's free memory; on a Jetson that is the board's."""
        total = c_size_t()
        return int(self._value(c_size_t, "cudaMemGetInfo", ctypes.byref(total)))

    def shares_memory(self) -> bool:
        """Say whether the first device's memory is the host's too, as on a Jetson."""
        return bool(self._value(c_int, "cudaDeviceGetAttribute", _INTEGRATED, 0))

    def stream(self) -> int:
        """Create a stream that does not wait for the default one."""
        return int(self._value(c_void_p, "cudaStreamCreateWithFlags", _NON_BLOCKING))

    def synchronize(self, stream: int) -> None:
        """Wait until all work of a stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def event(self) -> int:
        """Create an event that keeps its time."""
        return int(self._value(c_void_p, "cudaEventCreate"))

    def record(self, event: int, stream: int) -> None:
        """Let an event happen when the stream's work so far is done."""
        self._call("cudaEventRecord", event, stream)

    def elapsed_ns(self, start: int, end: int) -> int:
        """Return the time between two events that have happened; its resolution is about 500 ns."""
        milliseconds: float = self._value(c_float, "cudaEventElapsedTime", start, end)
        return round(1e6 * milliseconds)

    def to_device(self, buffer: Buffer, size: int, stream: int) -> None:
        """Copy the first ``size`` bytes of a buffer to its device side, in the stream's order."""
        arguments = (buffer.device, buffer.host, size, _TO_DEVICE, stream)
        self._call("cudaMemcpyAsync", *arguments)

    def to_host(self, buffer: Buffer, size: int, stream: int) -> None:
        """Copy the first ``size`` bytes of a buffer to its host side, in the stream's order."""
        self._call("cudaMemcpyAsync", buffer.host, buffer.device, size, _TO_HOST, stream)

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """Record what ``work`` puts into a stream, without running it, as a graph to launch.

        Raises:
            BackendError: something in it cannot be captured; the stream is usable again.
        """
        graph, launchable = c_void_p(), c_void_p()
        self._call("cudaStreamBeginCapture", stream, _CAPTURE_THREAD_LOCAL)
        try:
            work()
        except BackendError:
            # Ends the capture; that it fails too is known.
            self._library.cudaStreamEndCapture(stream, ctypes.byref(graph))
            self._library.cudaGetLastError()
            raise
        self._call("cudaStreamEndCapture", stream, ctypes.byref(graph))
        try:
            made = ctypes.byref(launchable)
            self._call("cudaGraphInstantiateWithFlags", made, graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)
        return int(launchable.value or 0)

    def launch(self, graph: int, stream: int) -> None:
        """Run a captured graph."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy(self, kind: str, handle: int) -> None:
        """Destroy a handle; ``kind`` is ``Stream``, ``Event`` or ``GraphExec``."""
        self._call(f"cuda{kind}Destroy", handle)

    def allocate(self, size: int) -> Buffer:
        """Return ``size`` bytes of pinned memory on the host with as many on the device."""
        host = self._value(c_void_p, "cudaHostAlloc", size, 0)
        try:
            device = self._value(c_void_p, "cudaMalloc", size)
        except BackendError:
            self._call("cudaFreeHost", host)
            raise
        return Buffer(host, device, size)

    def release(self, buffer: Buffer) -> None:
        """Free both sides of a buffer."""
        self._call("cudaFree", buffer.device)
        self._call("cudaFreeHost", buffer.host)


class Buffer:
    """Pinned memory on the host and memory on the device, of one size.

    Attributes:
        host: address on the host.
        device: address on the device.
        size: bytes of each.
    """

    def __init__(self, host: int, device: int, size: int) -> None:
        """Use ``Cuda.allocate``; this only keeps the addresses."""
        self.host, self.device, self.size = host, device, size

    def view(self, dtype: str, shape: Tuple[int, ...]) -> Any:
        """Return the start of the host side as a numpy array, without a copy."""
        import numpy as np

        count = 1
        for side in shape:
            count *= side
        memory: Any = (ctypes.c_byte * self.size).from_address(self.host)
        return np.frombuffer(memory, dtype, count).reshape(shape)


def _load() -> Any:
    reasons: List[str] = []
    for name in (*NAMES, *_elsewhere()):
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            reasons.append(str(error))
    raise BackendError(
        f"libcudart cannot be loaded ({reasons[0]})",
        install_hint("tensorrt"),
    )


def _elsewhere() -> List[str]:
    """List libraries where the loader does not look: CUDA's own folders, and pip's."""
    found = [*Path("/usr/local").glob("cuda*/lib64/libcudart.so.*")]
    for place in sys.path:
        found += Path(place or ".").glob("nvidia/*/lib/libcudart.so.*")
    return [str(path) for path in sorted(found, reverse=True)]
