"""A CUDA runtime library without CUDA, for ``ctypes.CDLL`` to return in tests.

It refuses what C would not forgive: a call before its argument types were set, types that the
header does not have, a copy beyond an allocation or in the wrong direction. Work of a stream is
done when the stream is waited for and not before, so that a result that is read too early is wrong.
"""

# ruff: noqa: N802, N815 - the functions have their names from CUDA
from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass, field
from typing import Any

Work = Callable[[], None]
PINNED, DEVICE = "pinned", "device"
# As in cuda_runtime_api.h, with int for enumerations and void pointers for handles.
HEADER: dict[str, tuple[Any, ...]] = {
    "cudaGetLastError": (),
    "cudaGetErrorString": (c_int,),
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
    "cudaGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_ulonglong),
    "cudaGraphLaunch": (c_void_p, c_void_p),
    "cudaGraphExecDestroy": (c_void_p,),
    "cudaGraphDestroy": (c_void_p,),
}
OK, INVALID, NO_MEMORY, NO_CAPTURE = 0, 1, 2, 900
TEXTS = {INVALID: b"invalid argument", NO_MEMORY: b"out of memory"}
TEXTS[NO_CAPTURE] = b"operation not permitted when stream is capturing"


@dataclass
class Stream:
    """Work that waits, or that is being recorded into a graph."""

    waiting: list[Work] = field(default_factory=list)
    recording: list[Work] | None = None
    broken: bool = False

    def put(self, work: Work) -> None:
        (self.waiting if self.recording is None else self.recording).append(work)


@dataclass
class FakeCudart:
    """The library; attributes are what a test may set.

    Attributes:
        devices: how many there are.
        name: of the first.
        capability: of the first, major and minor.
        multiprocessors: how many it has.
        free: bytes of memory that are free while nothing is allocated.
        integrated: whether host and device share their memory.
        captures: whether an engine's work can be captured into a graph.
        lacks: functions that this release does not have.
        log: names of the functions that were called.
    """

    devices: int = 1
    name: str = "Orin"
    capability: tuple[int, int] = (8, 7)
    multiprocessors: int = 8
    free: int = 4 << 30
    integrated: bool = True
    captures: bool = True
    lacks: tuple[str, ...] = ()
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory: dict[int, tuple[str, int, Any]] = {}
        self.objects: dict[int, Any] = {}
        self._functions: dict[str, _Function] = {}
        self._ticks = 0

    def __getattr__(self, name: str) -> _Function:
        if name not in HEADER or name in self.lacks:
            raise AttributeError(f"undefined symbol: {name}")
        if name not in self._functions:
            self._functions[name] = _Function(self, name)
        return self._functions[name]

    def stream(self, handle: int) -> Stream:
        found = self.objects[handle]
        assert isinstance(found, Stream)
        return found

    def allocation(self, address: int, size: int, kind: str) -> None:
        """Fail unless ``size`` bytes from an address on are of one allocation of a kind."""
        for start, (have, length, _) in self.memory.items():
            if start <= address and address + size <= start + length:
                assert have == kind, f"{have} memory where {kind} memory is needed"
                return
        raise AssertionError(f"{size} bytes at {address:#x} are no {kind} memory")

    def left(self) -> int:
        """Return how many allocations and handles were not given back."""
        return len(self.memory) + len(self.objects)

    def _keep(self, thing: Any) -> int:
        self._ticks += 16
        handle = (1 << 40) + self._ticks  # does not fit an int, as real handles do not
        self.objects[handle] = thing
        return handle

    def _allocate(self, out: Any, size: int, kind: str) -> int:
        if size > self.free:
            return NO_MEMORY
        block = ctypes.create_string_buffer(b"\xa5" * size, size)  # never zeros by chance
        out.value = ctypes.addressof(block)
        self.memory[out.value] = (kind, size, block)
        return OK

    def _release(self, address: int, kind: str) -> int:
        assert self.memory.pop(address)[0] == kind
        return OK

    def do_GetLastError(self) -> int:
        return OK

    def do_GetErrorString(self, code: int) -> bytes:
        return TEXTS[code]

    def do_GetDeviceCount(self, out: Any) -> int:
        out.value = self.devices
        return OK

    def do_GetDeviceProperties(self, place: Any, device: int) -> int:
        ctypes.memmove(place, self.name.encode() + b"\0", len(self.name) + 1)
        return OK

    def do_DeviceGetAttribute(self, out: Any, attribute: int, device: int) -> int:
        major, minor = self.capability
        known = {75: major, 76: minor, 16: self.multiprocessors, 18: int(self.integrated)}
        out.value = known[attribute]
        return OK

    def do_RuntimeGetVersion(self, out: Any) -> int:
        out.value = 12060
        return OK

    def do_MemGetInfo(self, free: Any, total: Any) -> int:
        taken = sum(size for kind, size, _ in self.memory.values() if kind == DEVICE)
        free.value, total.value = self.free - taken, 8 << 30
        return OK

    def do_Malloc(self, out: Any, size: int) -> int:
        return self._allocate(out, size, DEVICE)

    def do_HostAlloc(self, out: Any, size: int, flags: int) -> int:
        return self._allocate(out, size, PINNED)

    def do_Free(self, address: int) -> int:
        return self._release(address, DEVICE)

    def do_FreeHost(self, address: int) -> int:
        return self._release(address, PINNED)

    def do_MemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> int:
        ends = {1: (DEVICE, PINNED), 2: (PINNED, DEVICE)}[kind]
        self.allocation(to, size, ends[0])
        self.allocation(source, size, ends[1])

        def copy() -> None:
            ctypes.memmove(to, source, size)

        self.stream(stream).put(copy)
        return OK

    def do_StreamCreateWithFlags(self, out: Any, flags: int) -> int:
        out.value = self._keep(Stream())
        return OK

    def do_StreamSynchronize(self, handle: int) -> int:
        stream = self.stream(handle)
        if stream.recording is not None:
            return NO_CAPTURE
        waiting, stream.waiting = stream.waiting, []
        for work in waiting:
            work()
        return OK

    def _destroy(self, handle: int) -> int:
        del self.objects[handle]
        return OK

    do_StreamDestroy = do_EventDestroy = do_GraphDestroy = do_GraphExecDestroy = _destroy

    def do_EventCreate(self, out: Any) -> int:
        out.value = self._keep({"at": None})
        return OK

    def do_EventRecord(self, event: int, stream: int) -> int:
        def happen() -> None:
            self._ticks += 1
            self.objects[event]["at"] = self._ticks

        self.stream(stream).put(happen)
        return OK

    def do_EventElapsedTime(self, out: Any, start: int, end: int) -> int:
        out.value = 0.25 * (self.objects[end]["at"] - self.objects[start]["at"])
        return OK

    def do_StreamBeginCapture(self, handle: int, mode: int) -> int:
        self.stream(handle).recording = []
        return OK

    def do_StreamEndCapture(self, handle: int, out: Any) -> int:
        stream = self.stream(handle)
        work, stream.recording = stream.recording, None
        if work is None or stream.broken:
            stream.broken = False
            return NO_CAPTURE
        out.value = self._keep(work)
        return OK

    def do_GraphInstantiateWithFlags(self, out: Any, graph: int, flags: int) -> int:
        out.value = self._keep(list(self.objects[graph]))
        return OK

    def do_GraphLaunch(self, graph: int, stream: int) -> int:
        for work in self.objects[graph]:
            self.stream(stream).put(work)
        return OK


class _Function:
    """One function of the library, which wants its types set as ctypes does."""

    def __init__(self, library: FakeCudart, name: str) -> None:
        self._library, self._name = library, name
        self.argtypes: Any = None
        self.restype: Any = None

    def __call__(self, *arguments: Any) -> Any:
        expected = HEADER[self._name]
        if tuple(self.argtypes or ()) != expected or (expected and self.argtypes is None):
            raise AssertionError(f"{self._name}: argtypes are {self.argtypes}, not the header's")
        returned = c_char_p if self._name == "cudaGetErrorString" else c_int
        assert self.restype is returned, f"{self._name}: restype is {self.restype}"
        assert len(arguments) == len(expected), f"{self._name}: {len(arguments)} arguments"
        given = [_given(kind, value) for kind, value in zip(expected, arguments, strict=True)]
        self._library.log.append(self._name)
        return getattr(self._library, "do_" + self._name.removeprefix("cuda"))(*given)


def _given(kind: Any, value: Any) -> Any:
    """Convert one argument as ctypes would, or refuse it."""
    if kind not in (c_void_p, c_char_p) and hasattr(kind, "contents"):
        target = value._obj  # what byref() points to
        assert isinstance(target, kind._type_), f"{target} is no {kind._type_}"
        return target
    converted = kind.from_param(value)
    if kind is c_void_p:
        address = getattr(value, "value", value)
        return value if isinstance(value, ctypes.Array) else address
    return getattr(converted, "value", value)
