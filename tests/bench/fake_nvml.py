"""NVIDIA's management library as far as it is asked, which holds callers to the types of nvml.h."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_uint, c_ulonglong, c_void_p
from typing import Any

from edgexfer.bench.nvml import Nvml

NOT_SUPPORTED, TOO_SMALL, NO_DRIVER = 3, 7, 9
TEXTS = {NOT_SUPPORTED: b"Not Supported", TOO_SMALL: b"Insufficient Size", NO_DRIVER: b"No Driver"}
NUMBER = POINTER(c_uint)
HEADER: dict[str, tuple[Any, ...]] = {
    "nvmlErrorString": (c_int,),
    "nvmlInit_v2": (),
    "nvmlShutdown": (),
    "nvmlSystemGetDriverVersion": (c_char_p, c_uint),
    "nvmlDeviceGetCount_v2": (NUMBER,),
    "nvmlDeviceGetHandleByIndex_v2": (c_uint, POINTER(c_void_p)),
    "nvmlDeviceGetName": (c_void_p, c_char_p, c_uint),
    "nvmlDeviceGetClockInfo": (c_void_p, c_int, NUMBER),
    "nvmlDeviceGetTemperature": (c_void_p, c_int, NUMBER),
    "nvmlDeviceGetPowerUsage": (c_void_p, NUMBER),
    "nvmlDeviceGetCurrentClocksThrottleReasons": (c_void_p, POINTER(c_ulonglong)),
}
PROCESSES = "nvmlDeviceGetComputeRunningProcesses_v3"


class FakeNvml:
    """One GPU; what is in ``refused`` answers with that code."""

    def __init__(self) -> None:
        self.refused: dict[str, int] = {}
        self.clocks = {1: 1710, 2: 7001}
        self.temperature, self.power_mw, self.reasons = 61, 180_000, 0
        self.processes: tuple[int, ...] = ()
        self.opened = 0

    def open(self) -> Nvml:
        """Load this library instead of the machine's."""
        return Nvml(lambda _: self)

    def __getattr__(self, name: str) -> Any:
        if name not in HEADER and name != PROCESSES:
            raise AttributeError(name)
        function = _Function(self, name)
        self.__dict__[name] = function
        return function

    def do_nvmlErrorString(self, code: int) -> bytes:  # noqa: N802
        return TEXTS[code]

    def do_nvmlInit_v2(self) -> int:  # noqa: N802
        self.opened += 1
        return 0

    def do_nvmlShutdown(self) -> int:  # noqa: N802
        self.opened -= 1
        return 0

    def do_nvmlSystemGetDriverVersion(self, out: Any, size: int) -> int:  # noqa: N802
        out.value = b"595.78"
        return 0

    def do_nvmlDeviceGetCount_v2(self, out: Any) -> int:  # noqa: N802
        out._obj.value = 1
        return 0

    def do_nvmlDeviceGetHandleByIndex_v2(self, index: int, out: Any) -> int:  # noqa: N802
        out._obj.value = (1 << 40) + index  # does not fit an int, as real handles do not
        return 0

    def do_nvmlDeviceGetName(self, handle: Any, out: Any, size: int) -> int:  # noqa: N802
        assert handle.value == 1 << 40
        out.value = b"NVIDIA Thing"
        return 0

    def do_nvmlDeviceGetClockInfo(self, handle: Any, kind: int, out: Any) -> int:  # noqa: N802
        out._obj.value = self.clocks[kind]
        return 0

    def do_nvmlDeviceGetTemperature(self, handle: Any, kind: int, out: Any) -> int:  # noqa: N802
        assert kind == 0
        out._obj.value = self.temperature
        return 0

    def do_nvmlDeviceGetPowerUsage(self, handle: Any, out: Any) -> int:  # noqa: N802
        out._obj.value = self.power_mw
        return 0

    def do_nvmlDeviceGetCurrentClocksThrottleReasons(  # noqa: N802
        self, handle: Any, out: Any
    ) -> int:
        out._obj.value = self.reasons
        return 0

    def do_nvmlDeviceGetComputeRunningProcesses_v3(  # noqa: N802
        self, handle: Any, count: Any, table: Any
    ) -> int:
        assert ctypes.sizeof(table[0]) == 24
        if len(self.processes) > count._obj.value:
            return TOO_SMALL
        count._obj.value = len(self.processes)
        for place, pid in enumerate(self.processes):
            table[place].pid = pid
        return 0


class _Function:
    """One function of the library, which wants its types set as ctypes does."""

    def __init__(self, library: FakeNvml, name: str) -> None:
        self._library, self._name = library, name
        self.argtypes: Any = None
        self.restype: Any = None

    def __call__(self, *arguments: Any) -> Any:
        types = tuple(self.argtypes)
        if self._name == PROCESSES:
            assert types[:2] == (c_void_p, NUMBER)
        else:
            assert types == HEADER[self._name], f"{self._name}: argtypes are {types}"
        assert self.restype is (c_char_p if self._name == "nvmlErrorString" else c_int)
        assert len(arguments) == len(types), f"{self._name}: {len(arguments)} arguments"
        if self._name in self._library.refused:
            return self._library.refused[self._name]
        return getattr(self._library, f"do_{self._name}")(*arguments)
