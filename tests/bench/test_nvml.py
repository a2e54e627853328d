from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from edgexfer.bench.nvml import Gpu, Nvml, NvmlError
from tests.bench.fake_nvml import NO_DRIVER, NOT_SUPPORTED, FakeNvml


def test_what_a_gpu_says() -> None:
    fake = FakeNvml()
    fake.reasons = 0x60
    fake.processes = (4711, os.getpid())
    library = fake.open()
    gpu = library.gpus()[0]
    assert (library.driver(), gpu.name()) == ("595.78", "NVIDIA Thing")
    assert (gpu.clock_mhz(), gpu.memory_clock_mhz()) == (1710, 7001)
    assert (gpu.temperature_c(), gpu.power_mw(), gpu.reasons()) == (61, 180_000, 0x60)
    assert gpu.other_processes() == [4711]
    library.close()
    assert fake.opened == 0


@pytest.mark.parametrize("ask", [Gpu.power_mw, Gpu.temperature_c, Gpu.reasons, Gpu.other_processes])
def test_what_a_gpu_does_not_support_has_its_reason(ask: Callable[[Gpu], Any]) -> None:
    fake = FakeNvml()
    gpu = fake.open().gpus()[0]
    for name in (
        *("nvmlDeviceGetPowerUsage", "nvmlDeviceGetTemperature"),
        *(
            "nvmlDeviceGetCurrentClocksThrottleReasons",
            "nvmlDeviceGetComputeRunningProcesses_v3",
        ),
    ):
        fake.refused[name] = NOT_SUPPORTED
    with pytest.raises(NvmlError, match="Not Supported"):
        ask(gpu)


@pytest.mark.parametrize("value", [0, 2**32 - 1])
def test_a_power_that_cannot_be_is_no_power(value: int) -> None:
    fake = FakeNvml()
    fake.power_mw = value
    with pytest.raises(NvmlError, match=f"gives {value}, which cannot be"):
        fake.open().gpus()[0].power_mw()


def test_more_processes_than_are_looked_at() -> None:
    fake = FakeNvml()
    fake.processes = tuple(range(2, 200))
    with pytest.raises(NvmlError, match="more than 128 processes use it"):
        fake.open().gpus()[0].other_processes()


def test_without_the_library_or_its_driver() -> None:
    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    with pytest.raises(NvmlError, match="there is no libnvidia-ml: no NVIDIA driver"):
        Nvml(missing)
    fake = FakeNvml()
    fake.refused["nvmlInit_v2"] = NO_DRIVER
    with pytest.raises(NvmlError, match="nvmlInit_v2: No Driver"):
        fake.open()


def test_an_old_library_that_lacks_a_function() -> None:
    class Old:
        def __getattr__(self, name: str) -> Any:
            raise AttributeError(name)

    with pytest.raises(NvmlError, match="this NVML has no nvmlInit_v2"):
        Nvml(lambda _: Old())
