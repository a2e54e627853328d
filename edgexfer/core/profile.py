"""HardwareProfile: what is known of a hardware target, each fact with its source.

A profile never names a host or a user; which machine is meant is said with ``--on``. Reading the
YAML files, aliases and the check with all faults at once live in ``edgexfer/profiles.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Literal, Optional, Tuple

Kind = Literal["datasheet", "computed", "measured", "recalled"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]

_STRICT = {"extra": "forbid"}


@dataclass(frozen=True)
class Fact:
    """One figure of a chip.

    Attributes:
        value: the figure; its unit is the suffix of the fact's key.
        kind: ``datasheet``, ``computed``, ``measured`` or ``recalled`` (not checked).
        source: where it stands, or the formula it was computed with.
    """

    __pydantic_config__ = _STRICT

    value: Any
    kind: Kind
    source: str


@dataclass(frozen=True)
class Stack:
    """One software release that such a device may run.

    Attributes:
        name: such as ``JetPack 6.2``.
        runtime_version: version of the profile's runtime in that release.
        python: version of the system's Python.
        glibc: version of the C library.
        onnx_opset_max: the newest ONNX opset that the runtime's parser takes.
        typing: ``strong`` where precision must stand in the ONNX file, ``weak`` where builder flags
            choose it.
        dla: whether that release can build engines for the DLA, on a chip that has one.
        default: whether an export is made for this row unless another is named.
    """

    __pydantic_config__ = _STRICT

    name: str
    runtime_version: str
    python: str
    glibc: str
    onnx_opset_max: int
    typing: Literal["strong", "weak"] = "strong"
    dla: bool = False
    default: bool = False


@dataclass(frozen=True)
class Quantization:
    """How INT8 artefacts for the target are made.

    Attributes:
        scheme: ``qdq`` (ONNX with QuantizeLinear and DequantizeLinear) or ``nncf`` (OpenVINO IR).
        activations: ``uint8`` (asymmetric) or ``int8`` (symmetric, no zero point).
        weights: ``int8-per-channel`` or ``int8-per-tensor``; always symmetric.
        reduce_range: keep weights to 7 bits, for CPUs whose INT8 dot product saturates.
    """

    __pydantic_config__ = _STRICT

    scheme: Literal["qdq", "nncf"] = "qdq"
    activations: Literal["uint8", "int8"] = "int8"
    weights: Literal["int8-per-channel", "int8-per-tensor"] = "int8-per-channel"
    reduce_range: bool = False


@dataclass(frozen=True)
class Limits:
    """What the user asks of the target; ``None`` where nothing is asked.

    Attributes:
        latency_p90_ms: 90th percentile of latency.
        size_bytes: all the files that the target must hold.
        accuracy_drop_pt: loss of top-1 accuracy against the FP32 student, in percentage points.
    """

    __pydantic_config__ = _STRICT

    latency_p90_ms: Optional[float] = None
    size_bytes: Optional[int] = None
    accuracy_drop_pt: Optional[float] = None


@dataclass(frozen=True)
class HardwareProfile:
    """A hardware target.

    Attributes:
        name: its file name without ``.yaml``.
        title: its full name for people.
        backend: the runtime that runs on it, by the name of a file in ``backends/``.
        device: the runtime's own word for the device, such as ``CPU``.
        machine: ``platform.machine()`` of such a device: ``x86_64`` or ``aarch64``.
        seen_on_hardware: whether edgexfer has been measured on it; ``False`` is "provided, not
            measured".
        aliases: further names.
        precisions: in order of preference.
        arithmetic: what the chip multiplies in; empty where nobody has said. One that it lacks can
            at best be emulated.
        quantization: how its INT8 artefacts are made.
        compile_on: ``host``, or ``device`` where engines are not portable.
        options: options of the backend.
        facts: figures of the chip, by name with the unit as suffix. The roofline reads
            ``PRECISION_peak_UNIT`` (or ``PRECISION_dense_peak_UNIT``), ``memory_bandwidth_gb_s``,
            ``cache_mib`` (all caches together) and ``memory_gb``.
        stack: software releases that it may run.
        power_modes: for each mode's name what it caps, in words.
        limits: what is asked of it unless a recipe asks otherwise.
    """

    __pydantic_config__ = _STRICT

    name: str
    title: str
    backend: str
    device: str
    machine: str
    seen_on_hardware: bool
    aliases: Tuple[str, ...] = ()
    precisions: Tuple[Precision, ...] = ("int8", "fp32")
    arithmetic: Tuple[Precision, ...] = ()
    quantization: Quantization = Quantization()
    compile_on: Literal["host", "device"] = "host"
    options: Dict[str, Any] = field(default_factory=dict)
    facts: Dict[str, Fact] = field(default_factory=dict)
    stack: Tuple[Stack, ...] = ()
    power_modes: Dict[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
