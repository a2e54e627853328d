"""Facts of the machine, read and never changed; what cannot be read is ``None`` with its reason.

Every path is taken below a root, so that the readers can be tested on any board's files.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

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

Reading = Tuple[Any, str]
"""A value and, where it is ``None``, the reason."""


def facts(root: Path = Path("/")) -> Dict[str, Any]:
    """Return what is known of this machine.

    Args:
        root: prefix of ``/proc``, ``/sys`` and ``/etc``.

    Returns:
        JSON values by name, and under ``absent`` why a value is ``None``.
    """
    cpu = _read(root, "proc/cpuinfo") or ""
    readers: Dict[str, Callable[[], Reading]] = {
        "cpu": lambda: _cpu_model(cpu),
        "cpu_flags": lambda: _cpu_flags(cpu),
        "memory_bytes": lambda: _memory(root),
        "cache_mib": lambda: _caches(root),
        "governor": lambda: _governor(root),
        "max_mhz": lambda: _max_mhz(root),
        "load1": lambda: _load(root),
        "board": lambda: _board(root),
        "l4t": lambda: _l4t(root),
        "power_mode": lambda: _power_mode(root),
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
        "cores": os.cpu_count(),
        "usable_cores": _usable_cores(),
        "environment": {
            key: value for key, value in os.environ.items() if key.startswith(THREAD_VARIABLES)
        },
    }
    absent = {}
    for name, reader in readers.items():
        found[name], reason = reader()
        if found[name] is None:
            absent[name] = reason
    found["absent"] = absent
    return found


def _read(root: Path, name: str) -> Optional[str]:
    try:
        return (root / name).read_text(errors="replace").strip("\x00\n ")
    except OSError:
        return None


def _usable_cores() -> Optional[int]:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _os_name(root: Path) -> Optional[str]:
    text = _read(root, "etc/os-release") or ""
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


def _memory(root: Path) -> Reading:
    match = re.search(r"^MemTotal:\s*(\d+) kB", _read(root, "proc/meminfo") or "", re.MULTILINE)
    return (int(match.group(1)) * 1024, "") if match else (None, "/proc/meminfo is not readable")


def _caches(root: Path) -> Reading:
    """Add up the caches that hold data, each once however many cores share it."""
    sizes: Dict[Tuple[Optional[str], ...], int] = {}
    for index in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cache/index[0-9]*"):
        place = index.relative_to(root)
        level, kind, shared, size = (
            _read(root, f"{place}/{name}") for name in ("level", "type", "shared_cpu_list", "size")
        )
        match = re.fullmatch(r"(\d+)K", size or "")
        if match and kind != "Instruction":
            sizes[level, kind, shared] = int(match.group(1))
    if not sizes:
        return None, "the kernel describes no caches"
    return sum(sizes.values()) / 1024, ""


def _governor(root: Path) -> Reading:
    text = _read(root, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return text, "no cpufreq on this machine (a virtual machine has none)"


def _max_mhz(root: Path) -> Reading:
    text = _read(root, "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq")
    if text and text.isdigit():
        return int(text) // 1000, ""
    return None, "no cpufreq on this machine (a virtual machine has none)"


def _load(root: Path) -> Reading:
    match = re.match(r"\d+\.\d+", _read(root, "proc/loadavg") or "")
    return (float(match.group()), "") if match else (None, "/proc/loadavg is not readable")


def _board(root: Path) -> Reading:
    """Read the board's name, such as ``Raspberry Pi 5 Model B Rev 1.0``."""
    for name in ("proc/device-tree/model", "sys/class/dmi/id/product_name"):
        text = _read(root, name)
        if text:
            return text, ""
    return None, "neither a device tree nor DMI names the board"


def _l4t(root: Path) -> Reading:
    """Read the release of Jetson Linux, such as ``36.4.3``."""
    text = _read(root, "etc/nv_tegra_release") or ""
    match = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text)
    if match:
        return f"{match.group(1)}.{match.group(2)}", ""
    return None, "no /etc/nv_tegra_release: not a Jetson"


def _power_mode(root: Path) -> Reading:
    """Ask a Jetson for the name of its power mode; ids differ from board to board."""
    tool = root / "usr/sbin/nvpmodel"
    if not tool.exists():
        return None, "no nvpmodel: not a Jetson"
    try:
        done = subprocess.run(
            [str(tool), "-q"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"nvpmodel -q does not answer ({type(error).__name__})"
    match = re.search(r"NV Power Mode:\s*(\S+)", done.stdout)
    return (match.group(1), "") if match else (None, "nvpmodel -q names no mode")


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
    program, kernel = _running_program(root), _read(root, "proc/sys/kernel/arch")
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
