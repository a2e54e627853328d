"""What ``edgexfer doctor`` looks at on the host alone; ``bench/checkup`` looks at any machine."""

from __future__ import annotations

import importlib.metadata

from edgexfer.bench.checkup import Finding, check_up
from edgexfer.core.backend import BACKENDS, get_backend
from edgexfer.core.errors import BackendError

BASE = ("torch", "torchvision", "timm", "onnx", "onnxruntime", "openvino", "nncf", "scikit-learn")
OPTIONAL_BACKENDS = ("tensorrt",)


def examine() -> list[Finding]:
    """Look at packages, backends and accelerator of this machine, and at the machine itself."""
    return [*_packages(), *_backends(), _accelerator(), *check_up()]


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
