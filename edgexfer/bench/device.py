"""Facts of the machine, read and never changed; what cannot be read is ``None`` with its reason.

This is the list of them; what needs more than a line is read in ``cores`` and ``boards``. Every
path is taken below a root, so that the readers can be tested on any board's files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

from edgexfer.bench import boards, cores
from edgexfer.bench.channels import system_channels
from edgexfer.bench.nvml import Nvml, NvmlError
from edgexfer.bench.reading import Reading, read_text
from edgexfer.bench.sensors import throttling
from edgexfer.core.samples import Sensors

# CPU features that decide how fast INT8, FP16 and BF16 run, by the kernel's names.
FLAGS = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "asimd", "asimddp", "asimdhp", "fphp", "i8mm", "bf16", "sve"),
)
THREAD_VARIABLES = ("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "MALLOC_", "LD_PRELOAD")
_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd42": "Cortex-A78AE",
}
# e_machine of the ELF header, and how uname names what is of one kind with it.
_ELF_KINDS = {3: "x86", 40: "arm", 62: "x86", 183: "arm"}
_UNAME_KINDS = {"x86": r"x86_64|amd64|i\d86", "arm": r"aarch64|arm64|armv\d.*"}


def facts(root: Path = Path("/"), nvml: Callable[[], Nvml] = Nvml) -> Dict[str, Any]:
    """Return what is known of this machine.

    Args:
        root: prefix of ``/proc``, ``/sys``, ``/etc`` and the folders of tools.
        nvml: opens NVIDIA's management library.

    Returns:
        JSON values by name, and under ``absent`` why a value is ``None``.
    """
    cpu = read_text(root, "proc/cpuinfo")[0] or ""
    packages = boards.packages(root)
    readers: Dict[str, Callable[[], Reading]] = {
        "host": lambda: _host(root),
        "board": lambda: boards.board(root),
        "soc": lambda: boards.soc(root),
        "firmware": lambda: boards.firmware(root),
        "l4t": lambda: boards.l4t(root),
        "jetpack": lambda: boards.jetpack(root, packages),
        "power_mode": lambda: boards.power_mode(root),
        "cpu": lambda: _cpu_model(cpu),
        "cpu_flags": lambda: _cpu_flags(cpu),
        "cpu_quota": lambda: cores.cpu_quota(root),
        "governor": lambda: cores.governor(root),
        "max_mhz": lambda: cores.max_mhz(root),
        "now_mhz": lambda: cores.now_mhz(root),
        "turbo": lambda: cores.turbo(root),
        "smt": lambda: cores.smt(root),
        "memory_bytes": lambda: _memory(root, "MemTotal"),
        "swap_bytes": lambda: _memory(root, "SwapTotal"),
        "memory_limit_bytes": lambda: cores.memory_limit(root),
        "cache_mib": lambda: _caches(root),
        "load1": lambda: _load(root),
        "container": lambda: _container(root),
        "emulator": lambda: emulator(root),
    }
    found: Dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.system(),
        "kernel": platform.release(),
        "os": _os_name(root),
        "python": platform.python_version(),
        "glibc": platform.libc_ver()[1] or None,
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "cores": os.cpu_count(),
        "affinity": sorted(cores.usable_cpus()),
        "usable_cores": cores.usable_cores(root),
        "packages": packages,
        "environment": {
            key: value for key, value in os.environ.items() if key.startswith(THREAD_VARIABLES)
        },
    }
    absent: Dict[str, str] = {}
    for name, reader in readers.items():
        found[name], reason = reader()
        if found[name] is None:
            absent[name] = reason
    found.update(_gpus(root, nvml, absent))
    found.update(_sensors_now(root, absent))
    found["absent"] = absent
    return found


def _gpus(root: Path, nvml: Callable[[], Nvml], absent: Dict[str, str]) -> Dict[str, Any]:
    """Return NVIDIA's driver, its GPUs, and how many other processes compute on them."""
    found: Dict[str, Any] = {"driver": None, "gpus": None, "other_gpu_processes": None}
    found["driver"], absent["driver"] = boards.driver(root)
    try:
        library = nvml()
    except NvmlError as error:
        absent["gpus"] = absent["other_gpu_processes"] = str(error)
    else:
        asked: Dict[str, Callable[[], Any]] = {
            "driver": library.driver,
            "gpus": lambda: [gpu.name() for gpu in library.gpus()],
            "other_gpu_processes": lambda: sum(len(g.other_processes()) for g in library.gpus()),
        }
        for name, ask in asked.items():
            try:
                found[name] = ask()
            except NvmlError as error:
                absent[name] = str(error)
        library.close()
    for name, value in found.items():
        if value is not None:
            absent.pop(name, None)
    return found


def _sensors_now(root: Path, absent: Dict[str, str]) -> Dict[str, Any]:
    """Return all temperatures in degrees Celsius, and what throttles the machine at this moment."""
    temperatures: Dict[str, float] = {}
    flags: Dict[str, Tuple[Optional[int], ...]] = {}
    channels = system_channels(root, cores.usable_cpus())
    try:
        for name, read in channels.series.items():
            if name.endswith("_c"):
                with contextlib.suppress(ValueError, OSError):
                    temperatures[name[:-2]] = read()
        for name, read in channels.flags.items():
            with contextlib.suppress(ValueError, OSError):
                flags[name] = (int(read()),)
    finally:
        channels.close()
    found: Dict[str, Any] = {"temperatures_c": temperatures or None, "throttled": None}
    if not temperatures:
        absent["temperatures_c"] = "the kernel shows no temperature"
    if flags:
        found["throttled"] = list(throttling(Sensors(0, (0,), {}, flags)).throttled)
    else:
        absent["throttled"] = "this machine shows no counter or register of throttling"
    return found


def _host(root: Path) -> Reading:
    """Return a name of this machine that tells it from others and nobody its name.

    The identity that systemd gives a machine goes into the hash, as host names can be guessed.
    """
    name = read_text(root, "etc/hostname")[0] or platform.node()
    identity = read_text(root, "etc/machine-id")[0]
    if not identity:
        return None, "no /etc/machine-id tells this machine from others"
    return hashlib.sha256(f"{identity}\0{name}".encode()).hexdigest()[:16], ""


def _os_name(root: Path) -> Optional[str]:
    text = read_text(root, "etc/os-release")[0] or ""
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', text, re.MULTILINE)
    return match.group(1) if match else None


def _cpu_model(cpu: str) -> Reading:
    match = re.search(r"^model name\s*:\s*(.+)$", cpu, re.MULTILINE)
    if match:
        return match.group(1).strip(), ""
    part = re.search(r"^CPU part\s*:\s*(0x\w+)", cpu, re.MULTILINE)
    if part:
        return _PARTS.get(part.group(1), f"ARM part {part.group(1)}"), ""
    return None, "/proc/cpuinfo names no model"


def _cpu_flags(cpu: str) -> Reading:
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpu, re.MULTILINE)
    if not match:
        return None, "/proc/cpuinfo lists no flags"
    have = set(match.group(1).split())
    return [flag for flag in FLAGS if flag in have], ""


def _memory(root: Path, key: str) -> Reading:
    text, reason = read_text(root, "proc/meminfo")
    match = re.search(rf"^{key}:\s*(\d+) kB", text or "", re.MULTILINE)
    return (int(match.group(1)) * 1024, "") if match else (None, reason or f"no {key} is told")


def _caches(root: Path) -> Reading:
    """Add up the caches that hold data, each once however many cores share it."""
    sizes: Dict[Tuple[Optional[str], ...], int] = {}
    for index in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cache/index[0-9]*"):
        place = index.relative_to(root)
        level, kind, shared, size = (
            read_text(root, f"{place}/{name}")[0]
            for name in ("level", "type", "shared_cpu_list", "size")
        )
        match = re.fullmatch(r"(\d+)K", size or "")
        if match and kind != "Instruction":
            sizes[level, kind, shared] = int(match.group(1))
    if not sizes:
        return None, "the kernel describes no caches"
    return sum(sizes.values()) / 1024, ""


def _load(root: Path) -> Reading:
    match = re.match(r"\d+\.\d+", read_text(root, "proc/loadavg")[0] or "")
    return (float(match.group()), "") if match else (None, "/proc/loadavg is not readable")


def _container(root: Path) -> Reading:
    marks = {"docker": ".dockerenv", "podman": "run/.containerenv"}
    for kind, name in marks.items():
        if (root / name).exists():
            return kind, ""
    return None, "no mark of a container"


def emulator(root: Path = Path("/"), machine: Optional[str] = None) -> Reading:
    """Return what emulates this process's kind of machine, ``None`` where nothing is seen to.

    An emulator of programs, such as qemu's user mode, answers for ``uname`` and for
    ``/proc/self``. It does not for ``/proc/thread-self``, whose ``exe`` is what the kernel really
    runs, the emulator itself; nor for the kernel's word on its machine, which Linux 6.1 brought. An
    emulated machine with a kernel of its own is not told from a real one.

    Args:
        root: prefix of ``/proc``.
        machine: what this process takes its machine for; ``None`` asks ``platform.machine()``.
    """
    own = _kind(machine or platform.machine())
    if own is None:
        return None, "this kind of machine is not known"
    program, kernel = _running_program(root), read_text(root, "proc/sys/kernel/arch")[0]
    if program is not None and program[1] not in (None, own):
        return f"{program[0]}, a program for {program[1]}", ""
    if kernel is not None and _kind(kernel) not in (None, own):
        return f"a kernel for {kernel}", ""
    if program is None and kernel is None:
        return None, "/proc does not tell what runs this process"
    return None, "no sign of one"


def _kind(machine: str) -> Optional[str]:
    """Return ``x86`` or ``arm``, be it of 32 or 64 bits: each runs programs of both natively."""
    for kind, names in _UNAME_KINDS.items():
        if re.fullmatch(names, machine):
            return kind
    return None


def _running_program(root: Path) -> Optional[Tuple[str, Optional[str]]]:
    """Return name and kind of the program that the kernel runs as this thread."""
    place = root / "proc/thread-self/exe"
    try:
        with place.open("rb") as file:
            header = file.read(20)
        name = place.resolve().name
    except OSError:
        return None
    if len(header) < 20 or header[:4] != b"\x7fELF":
        return None
    return name, _ELF_KINDS.get(int.from_bytes(header[18:20], "little"))


def interpreter() -> Dict[str, Any]:
    """Return which Python runs and which of the heavy libraries it has loaded."""
    heavy = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "openvino", "tensorrt")
    return {"executable": sys.executable, "loaded": [n for n in heavy if n in sys.modules]}
