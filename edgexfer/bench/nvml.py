"""NVIDIA's management library through ctypes: clocks, temperature, power and throttling of a GPU.

Signatures and constants are those of ``nvml.h``. On a Jetson before Thor the library is there and
answers "not supported" to almost everything. Provided, not measured: it was tried against a fake
library alone.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_uint, c_ulonglong, c_void_p
from typing import Any, Callable, Dict, List, Optional, Tuple

NAMES = ("libnvidia-ml.so.1", "libnvidia-ml.so")
# Reasons for a lower clock that slow a computation down; idling or a chosen clock are not faults.
REASONS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "temperature (software)",
    0x40: "temperature (hardware)",
    0x80: "power brake",
}
_CLOCK_SM, _CLOCK_MEMORY, _TEMPERATURE_GPU = 1, 2, 0
_TOO_SMALL, _TEXT_BYTES, _MOST_PROCESSES = 7, 96, 128


class _Process(Structure):
    """``nvmlProcessInfo_t`` of the functions that end in ``_v3``."""

    _fields_ = (
        ("pid", c_uint),
        ("memory", c_ulonglong),
        ("gpu_instance", c_uint),
        ("compute_instance", c_uint),
    )


_NUMBER, _LONG = POINTER(c_uint), POINTER(c_ulonglong)
_SIGNATURES: Dict[str, Tuple[Any, ...]] = {
    "nvmlInit_v2": (),
    "nvmlShutdown": (),
    "nvmlSystemGetDriverVersion": (c_char_p, c_uint),
    "nvmlDeviceGetCount_v2": (_NUMBER,),
    "nvmlDeviceGetHandleByIndex_v2": (c_uint, POINTER(c_void_p)),
    "nvmlDeviceGetName": (c_void_p, c_char_p, c_uint),
    "nvmlDeviceGetClockInfo": (c_void_p, c_int, _NUMBER),
    "nvmlDeviceGetTemperature": (c_void_p, c_int, _NUMBER),
    "nvmlDeviceGetPowerUsage": (c_void_p, _NUMBER),
    "nvmlDeviceGetCurrentClocksThrottleReasons": (c_void_p, _LONG),
    "nvmlDeviceGetComputeRunningProcesses_v3": (c_void_p, _NUMBER, POINTER(_Process)),
}


class NvmlError(ValueError):
    """A call that the library refused, or a library that cannot be used; the text is the reason."""


class Nvml:
    """The library, found, loaded and initialised; every failed call is an ``NvmlError``."""

    def __init__(self, load: Callable[[str], Any] = ctypes.CDLL) -> None:
        """Load and initialise it.

        Args:
            load: turns a library's name into the library.

        Raises:
            NvmlError: it is not here, or no driver answers it.
        """
        self._library = _load(load)
        self._call("nvmlInit_v2")

    def _call(self, name: str, *arguments: Any, allow: int = 0) -> int:
        function = getattr(self._library, name, None)
        if function is None:
            raise NvmlError(f"this NVML has no {name}")
        function.argtypes, function.restype = _SIGNATURES[name], c_int
        code = int(function(*arguments))
        if code and code != allow:
            raise NvmlError(f"{name}: {self._text(code)}")
        return code

    def _text(self, code: int) -> str:
        function = self._library.nvmlErrorString
        function.argtypes, function.restype = (c_int,), c_char_p
        return (function(code) or b"unknown error").decode(errors="replace")

    def close(self) -> None:
        """Give the library's resources back."""
        self._call("nvmlShutdown")

    def driver(self) -> str:
        """Return the driver's version."""
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        self._call("nvmlSystemGetDriverVersion", text, _TEXT_BYTES)
        return text.value.decode(errors="replace")

    def gpus(self) -> List[Gpu]:
        """Return the GPUs that may be asked."""
        count = c_uint()
        self._call("nvmlDeviceGetCount_v2", byref(count))
        found = []
        for index in range(count.value):
            handle = c_void_p()
            self._call("nvmlDeviceGetHandleByIndex_v2", index, byref(handle))
            found.append(Gpu(self._call, handle, index))
        return found


class Gpu:
    """One GPU; each of its methods raises ``NvmlError`` where it is not supported."""

    def __init__(self, call: Callable[..., int], handle: c_void_p, index: int) -> None:
        """Speak of the GPU ``handle`` through ``call``."""
        self._call, self._handle, self.index = call, handle, index

    def _number(self, name: str, *arguments: int) -> int:
        """Ask for a number; 0 is no clock, no temperature and no power."""
        value = c_uint()
        self._call(name, self._handle, *arguments, byref(value))
        if not 0 < value.value < 2**31:
            raise NvmlError(f"{name} gives {value.value}, which cannot be")
        return value.value

    def name(self) -> str:
        """Return its name, such as ``NVIDIA GeForce RTX 4090``."""
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        self._call("nvmlDeviceGetName", self._handle, text, _TEXT_BYTES)
        return text.value.decode(errors="replace")

    def clock_mhz(self) -> int:
        """Return the clock of its multiprocessors."""
        return self._number("nvmlDeviceGetClockInfo", _CLOCK_SM)

    def memory_clock_mhz(self) -> int:
        """Return the clock of its memory."""
        return self._number("nvmlDeviceGetClockInfo", _CLOCK_MEMORY)

    def temperature_c(self) -> int:
        """Return the temperature of its die."""
        return self._number("nvmlDeviceGetTemperature", _TEMPERATURE_GPU)

    def power_mw(self) -> int:
        """Return what the whole card draws, since Ampere a mean over one second."""
        return self._number("nvmlDeviceGetPowerUsage")

    def reasons(self) -> int:
        """Return the bits that say why its clock is lower than it could be."""
        value = c_ulonglong()
        self._call("nvmlDeviceGetCurrentClocksThrottleReasons", self._handle, byref(value))
        return value.value

    def other_processes(self) -> List[int]:
        """Return the numbers of the processes, this one left out, that compute on it."""
        count, table = c_uint(_MOST_PROCESSES), (_Process * _MOST_PROCESSES)()
        name = "nvmlDeviceGetComputeRunningProcesses_v3"
        code = self._call(name, self._handle, byref(count), table, allow=_TOO_SMALL)
        if code == _TOO_SMALL:
            raise NvmlError(f"more than {_MOST_PROCESSES} processes use it")
        return [p.pid for p in table[: count.value] if p.pid != os.getpid()]


def _load(load: Callable[[str], Any]) -> Any:
    error: Optional[OSError] = None
    for name in NAMES:
        try:
            return load(name)
        except OSError as failed:
            error = failed
    raise NvmlError("there is no libnvidia-ml: no NVIDIA driver") from error
