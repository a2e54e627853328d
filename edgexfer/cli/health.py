"""What ``edgexfer doctor`` looks at."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass

from edgexfer.core.backend import BACKENDS, get_backend
from edgexfer.core.errors import BackendError
from edgexfer.core.files import free_bytes

BASE = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "openvino", "nncf", "scikit-learn")
OPTIONAL_BACKENDS = ("tensorrt",)
WANTED_FREE_BYTES = 5_000_000_000


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what it is.
        status: ``ok``, ``note`` (works without it) or ``missing``.
        detail: version or reason.
        fix: command that mends it; empty where nothing need be done.
    """

    name: str
    status: str
    detail: str
    fix: str = ""


def examine() -> list[Finding]:
    """Look at packages, backends, accelerator and disk of this machine."""
    return [*_packages(), *_backends(), _accelerator(), _disk()]


def _packages() -> list[Finding]:
    findings = []
    for name in BASE:
        try:
            findings.append(Finding(name, "ok", importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding(name, "missing", "not installed", f"pip install {name}"))
    return findings


def _backends() -> list[Finding]:
    findings = []
    for name in BACKENDS:
        try:
            versions = get_backend(name).versions()
            text = ", ".join(f"{k} {v}" for k, v in versions.items())
            findings.append(Finding(f"backend {name}", "ok", text or "works"))
        except BackendError as error:
            status = "note" if name in OPTIONAL_BACKENDS else "missing"
            reason = error.what.partition(": ")[2]
            findings.append(Finding(f"backend {name}", status, reason, error.fix))
    return findings


def _accelerator() -> Finding:
    try:
        import torch
    except ImportError as error:
        return Finding("GPU", "missing", f"torch cannot be imported: {error}", "pip install torch")
    if torch.cuda.is_available():
        return Finding("GPU", "ok", torch.cuda.get_device_name(0))
    return Finding("GPU", "note", "none that torch can use; training runs on the CPU")


def _disk() -> Finding:
    free = free_bytes(".")
    if free < WANTED_FREE_BYTES:
        return Finding("disk", "note", f"{free / 1e9:.1f} GB free here", "free some space")
    return Finding("disk", "ok", f"{free / 1e9:.0f} GB free here")
