"""What a machine lacks to measure well, in plain words with the command that mends it.

It runs where the benchmark runs: on the host, or on a board out of the packed device side. It reads
and changes nothing, but for clocks that an earlier run did not live to put back.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

from edgexfer.bench.boards import power_modes
from edgexfer.bench.clocks import restore_left_over
from edgexfer.bench.device import facts
from edgexfer.bench.nvml import Nvml
from edgexfer.bench.power import choose_rails
from edgexfer.bench.reading import find_tool
from edgexfer.bench.sensors import Sampler
from edgexfer.core.backend import get_backend
from edgexfer.core.errors import EdgexferError
from edgexfer.core.files import free_bytes
from edgexfer.core.samples import Sensors

STATUSES = ("ok", "note", "missing")
WANTED_FREE_BYTES = 2_000_000_000
# Building an engine takes more memory than running it, and the kernel kills what asks too much.
_SMALL_BYTES = 8_500_000_000
_BUSY_PER_CORE = 0.2
_GPU_NODES = ("dev/nvmap", "dev/nvhost-gpu", "dev/nvidia0")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        status: ``ok``, ``note`` (works, but not as well as it could) or ``missing``.
        detail: version, state or reason.
        fix: command that mends it; empty where nothing need be done.
    """

    name: str
    status: str
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Machine:
    """What was read of a machine.

    Attributes:
        root: prefix of its files.
        backend: the runtime that it is to run.
        facts: see ``device.facts``.
        sensors: a reading or two of each sensor.
    """

    root: Path
    backend: str
    facts: Dict[str, Any]
    sensors: Sensors

    @property
    def is_jetson(self) -> bool:
        """Whether Jetson Linux runs on it."""
        return self.facts["l4t"] is not None

    def why(self, name: str) -> str:
        """Return why a fact is absent."""
        return str(self.facts["absent"].get(name, "it cannot be read"))


def check_up(
    backend: str = "", root: Path = Path("/"), nvml: Callable[[], Nvml] = Nvml
) -> List[Finding]:
    """Look at a machine.

    Args:
        backend: the runtime that it is to have; empty leaves Python and all that it loads out.
        root: prefix of the machine's files.
        nvml: opens NVIDIA's management library.
    """
    sampler = Sampler(root, 0.5, nvml)
    sampler.start()
    machine = Machine(root, backend, facts(root, nvml), sampler.stop())
    topics = (*([_software] if backend else []), _room, _clocks, _sensors, _others)
    return [finding for topic in topics for finding in topic(machine)]


def _software(machine: Machine) -> Iterator[Finding]:
    yield Finding("python", "ok", f"{machine.facts['python']} ({sys.executable})")
    yield _module("numpy", "sudo apt install python3-numpy, or python3 -m pip install numpy")
    try:
        versions = get_backend(machine.backend).versions()
        text = ", ".join(f"{name} {version}" for name, version in versions.items()) or "works"
        yield Finding(f"backend {machine.backend}", "ok", text)
    except EdgexferError as error:
        fix = _bindings_fix(machine) or error.fix
        yield Finding(f"backend {machine.backend}", "missing", error.what.partition(": ")[2], fix)
    if machine.facts["emulator"]:
        yield Finding(
            "emulator",
            "note",
            f"{machine.facts['emulator']}: outputs can be checked here, no time can be measured",
        )


def _module(name: str, fix: str) -> Finding:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return Finding(name, "missing", f"cannot be imported ({error})", fix)
    return Finding(name, "ok", str(getattr(module, "__version__", "works")))


def _bindings_fix(machine: Machine) -> str:
    """Say how a Jetson gets TensorRT's Python: with apt, for the Python of the system alone."""
    if not machine.is_jetson or machine.backend != "tensorrt":
        return ""
    if "tensorrt_python" not in machine.facts["packages"]:
        return "sudo apt install python3-libnvinfer tensorrt"
    if sys.prefix != sys.base_prefix:
        return f"python3 -m venv --system-site-packages {sys.prefix}"
    return "use the system's own Python (/usr/bin/python3), for which apt installed TensorRT"


def _room(machine: Machine) -> Iterator[Finding]:
    """Look at disk, memory and swap."""
    here = Path.cwd()
    free = free_bytes(here)
    if free < WANTED_FREE_BYTES:
        fix = "free some space, such as by sudo apt clean"
        yield Finding("disk", "note", f"{free / 1e9:.1f} GB free in {here}", fix)
    else:
        yield Finding("disk", "ok", f"{free / 1e9:.0f} GB free in {here}")
    memory, swap = machine.facts["memory_bytes"], machine.facts["swap_bytes"]
    limit = machine.facts["memory_limit_bytes"]
    if memory is None:
        yield Finding("memory", "note", machine.why("memory_bytes"))
        return
    granted = f", of which its container grants {limit / 1e9:.1f} GB" if limit else ""
    yield Finding("memory", "ok", f"{memory / 1e9:.1f} GB{granted}")
    if machine.backend == "tensorrt" and memory < _SMALL_BYTES and not swap:
        yield Finding(
            "swap",
            "note",
            "none: the kernel may kill the build of an engine",
            "sudo fallocate -l 4G /swapfile && sudo chmod 600 /swapfile && "
            "sudo mkswap /swapfile && sudo swapon /swapfile",
        )
    else:
        yield Finding("swap", "ok", f"{(swap or 0) / 1e9:.1f} GB")


def _clocks(machine: Machine) -> Iterator[Finding]:
    """Look at what decides how fast the machine runs, after putting back what was left changed."""
    try:
        if restore_left_over(machine.root):
            yield Finding("clocks", "ok", "put back what an earlier run had changed")
    except EdgexferError as error:
        yield Finding("clocks", "note", error.what, error.fix)
    yield from _power_mode(machine)
    governor = machine.facts["governor"]
    if governor is None:
        yield Finding("governor", "note", machine.why("governor"))
    elif governor != "performance":
        yield Finding(
            "governor",
            "note",
            f"{governor}: the clock follows the load, so that latencies scatter",
            "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        )
    else:
        yield Finding("governor", "ok", governor)
    throttled = machine.facts["throttled"]
    if throttled is None:
        yield Finding("throttling", "note", machine.why("throttled"))
    elif throttled:
        yield Finding("throttling", "note", "; ".join(throttled), _cooler(throttled))
    else:
        yield Finding("throttling", "ok", "none at this moment")


def _power_mode(machine: Machine) -> Iterator[Finding]:
    """Name the power mode, and the way to the fastest one, whose number each module has its own."""
    if not machine.is_jetson:
        return
    mode = machine.facts["power_mode"]
    if mode is None:
        yield Finding("power mode", "note", machine.why("power_mode"), "sudo nvpmodel -q")
        return
    names = power_modes(machine.root)
    fastest = [number for number, name in sorted(names.items()) if name.startswith("MAXN")]
    if fastest and not mode.startswith("MAXN"):
        yield Finding(
            "power mode",
            "note",
            f"{mode}: this board can be faster, its records are comparable in one mode only",
            f"sudo nvpmodel -m {fastest[-1]}",
        )
    else:
        yield Finding("power mode", "ok", mode)


def _cooler(throttled: List[str]) -> str:
    if any("under-voltage" in reason for reason in throttled):
        return "use the power supply that the board's maker names"
    return "let it cool down: a fan, a larger heat sink, a lower power mode"


def _sensors(machine: Machine) -> Iterator[Finding]:
    """Look at whether energy and temperature can be read, and who must be let in."""
    rails = choose_rails(machine.sensors)
    if rails:
        yield Finding("power sensor", "ok", " + ".join(rails))
    else:
        reason = machine.sensors.absent.get("power", "this machine shows no power sensor")
        yield Finding("power sensor", "note", f"{reason}; energy is left out", _permit(reason))
    warm = machine.facts["temperatures_c"]
    if warm:
        hottest = max(warm, key=lambda name: warm[name])
        yield Finding("temperature", "ok", f"{warm[hottest]:.0f} degrees Celsius ({hottest})")
    else:
        yield Finding("temperature", "note", machine.why("temperatures_c"))
    register = machine.sensors.absent.get("get_throttled")
    if register is not None:
        missing = find_tool(machine.root, "vcgencmd") is None
        fix = "sudo apt install raspi-utils-core" if missing else _join("video")
        yield Finding("throttling register", "note", register, fix)


def _permit(reason: str) -> str:
    """Say how a counter of energy is opened to this user until the next boot."""
    if "intel-rapl" in reason and "root alone" in reason:
        return "sudo chmod o+r /sys/class/powercap/intel-rapl:*/energy_uj"
    return ""


def _join(groups: str) -> str:
    return f"sudo usermod -aG {groups} $USER, then log in again"


def _others(machine: Machine) -> Iterator[Finding]:
    """Look at who else uses the machine, and what it lets this user use."""
    quota, cores = machine.facts["cpu_quota"], machine.facts["usable_cores"]
    if quota is not None:
        detail = f"{cores} usable: its container grants the time of {quota:g}"
    else:
        detail = f"{cores} of {machine.facts['cores']} usable"
    yield Finding("cores", "ok", detail)
    load: Optional[float] = machine.facts["load1"]
    if load is not None and load > _BUSY_PER_CORE * cores:
        yield Finding("load", "note", f"{load:g}: other programs run here", "top")
    for node in _GPU_NODES:
        if _forbidden(machine.root / node):
            yield Finding("GPU", "note", f"/{node} may not be opened", _join("video,render"))
            break
    others = machine.facts["other_gpu_processes"]
    if others:
        yield Finding("GPU", "note", f"{others} other processes compute on it", "nvidia-smi")
    elif machine.facts["gpus"]:
        yield Finding("GPU", "ok", ", ".join(machine.facts["gpus"]))


def _forbidden(place: Path) -> bool:
    try:
        with place.open("rb"):
            return False
    except PermissionError:
        return True
    except OSError:
        return False


def lines(findings: List[Finding]) -> List[str]:
    """Return findings as lines of text, each fix below what it mends."""
    width = max(len(finding.name) for finding in findings)
    text = []
    for finding in findings:
        text.append(f"{finding.status:8} {finding.name:{width}}  {finding.detail}")
        if finding.fix:
            text.append(f"{'':8} {'':{width}}  fix: {finding.fix}")
    return text


def exit_code(findings: List[Finding]) -> int:
    """Return 3 where something that is needed is missing, else 0."""
    return 3 if any(finding.status == "missing" for finding in findings) else 0
