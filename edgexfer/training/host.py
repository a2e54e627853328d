"""The machine under a training: how its allocator is set, and the facts that a run records."""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("edgexfer", "torch", "torchvision", "timm", "numpy", "safetensors")
# Names and values of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


@functools.cache
def tune_malloc() -> bool:
    """Let glibc keep freed memory instead of handing it back after every large activation.

    torch's CPU allocator is malloc, which maps and unmaps each large tensor: in a resnet50 forward
    pass that is 120 MB of page faults per image and half of the time. Resident memory stays at its
    peak in return. Called before the first large tensor; further calls do nothing.

    Returns:
        Whether it was done: only with glibc, and not where the environment sets malloc itself.
    """
    mine = any(name.startswith("MALLOC_") for name in os.environ)
    if mine or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 256 << 20))
    return all(libc.mallopt(name, value) == 1 for name, value in settings)


def lineage() -> dict[str, Any]:
    """Return what a training ran on and with: versions, git commit, machine, threads."""
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "git": _git(),
        "machine": {
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        # The same bits come out only with the same number of threads.
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        # A loaded package knows its build as well, such as 2.10.0+cu130.
        loaded = getattr(sys.modules.get(package), "__version__", None)
        try:
            found[package] = str(loaded or importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def _git() -> str | None:
    """Return the commit of the source that runs, ``None`` where it is not a git checkout."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _cpu_name() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or None
