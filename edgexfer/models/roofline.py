"""The roofline of a graph on a target: what no runtime on that chip can be faster than.

A bound, never a prediction: real runs take several times as long. Williams, Waterman and Patterson,
"Roofline: an insightful visual performance model", 2009. What the graph asks for is counted in
``workload.py``; the figures are the profile's, each handed on with its kind and source.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgexfer.core.profile import HardwareProfile, Precision
from edgexfer.models.workload import Workload
from edgexfer.profiles import read_peak

# Bytes of a weight or an activation.
WIDTHS: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
ASSUMPTIONS = (
    "every multiplication of a direct convolution is done (Winograd kernels do fewer)",
    "caches keep as many weights from one run to the next as they can hold",
    "clocks are at the profile's maximum; lower power modes are slower",
)
_MIB = 1 << 20
_MEMORY = {"memory_gb": 1e9, "memory_bytes": 1.0}


@dataclass(frozen=True)
class Used:
    """A fact that a figure rests on.

    Attributes:
        fact: its key in the profile.
        value: its value, in the unit of its key.
        kind: ``datasheet``, ``computed``, ``measured`` or ``recalled``.
        source: where it stands.
    """

    fact: str
    value: float
    kind: str
    source: str


@dataclass(frozen=True)
class Figure:
    """A computed figure.

    Attributes:
        value: ``None`` where the profile lacks a fact.
        reason: what it lacks; empty where there is a value.
        used: the facts that it rests on.
    """

    value: float | None
    reason: str = ""
    used: tuple[Used, ...] = ()


@dataclass(frozen=True)
class Bound:
    """Least latency and memory need of a graph in one precision on one target.

    Attributes:
        precision: of the weights and activations.
        batch: images at once.
        macs: multiply-accumulates.
        compute_ms: time that the multiplications take at the chip's peak.
        memory_ms: time that those weights take from memory that no cache can keep.
        latency_ms: lower bound, the larger of the two, or of what is known of them.
        weight_bytes: of all weights.
        activation_bytes: the most that is alive at one time, layer by layer.
        memory_share_pct: both, as a share of the target's memory; the runtime comes on top.
    """

    precision: Precision
    batch: int
    macs: int
    compute_ms: Figure
    memory_ms: Figure
    latency_ms: Figure
    weight_bytes: int
    activation_bytes: int
    memory_share_pct: Figure

    @property
    def memory_bytes(self) -> int:
        """Weights and live activations."""
        return self.weight_bytes + self.activation_bytes


def bound(work: Workload, profile: HardwareProfile, precision: Precision) -> Bound:
    """Return the lower bound of latency and the memory need of a graph on a target."""
    width = WIDTHS[precision]
    compute = _compute_ms(work, profile, precision)
    memory = _memory_ms(work, profile, width)
    weights, activations = work.weights.bytes(width), work.peak_live_bytes(width)
    return Bound(
        precision=precision,
        batch=work.batch,
        macs=work.macs,
        compute_ms=compute,
        memory_ms=memory,
        latency_ms=_larger(compute, memory),
        weight_bytes=weights,
        activation_bytes=activations,
        memory_share_pct=_share_pct(weights + activations, profile),
    )


def _compute_ms(work: Workload, profile: HardwareProfile, precision: Precision) -> Figure:
    for key in profile.facts:
        peak = read_peak(key)
        if peak is not None and peak[0] == precision:
            used = _used(profile, key)
            return Figure(2e3 * work.macs / (used.value * peak[1]), used=(used,))
    return Figure(None, f"{profile.name} has no fact {precision}_peak_*")


def _memory_ms(work: Workload, profile: HardwareProfile, width: int) -> Figure:
    """Bound the traffic from below: each run reads all kernels, and caches keep but so many.

    Activations are left out, as they may never leave a cache.
    """
    needed = ("memory_bandwidth_gb_s", "cache_mib")
    missing = [key for key in needed if key not in profile.facts]
    if missing:
        return Figure(None, f"{profile.name} has no fact {' nor '.join(missing)}")
    bandwidth, cache = (_used(profile, key) for key in needed)
    beyond = max(0.0, work.kernels.bytes(width) - cache.value * _MIB)
    return Figure(1e3 * beyond / (bandwidth.value * 1e9), used=(bandwidth, cache))


def _larger(compute: Figure, memory: Figure) -> Figure:
    known = [figure for figure in (compute, memory) if figure.value is not None]
    if not known:
        return Figure(None, f"{compute.reason}; {memory.reason}")
    return max(known, key=lambda figure: figure.value or 0.0)


def _share_pct(need: int, profile: HardwareProfile) -> Figure:
    for key, unit in _MEMORY.items():
        if key in profile.facts:
            used = _used(profile, key)
            return Figure(100.0 * need / (used.value * unit), used=(used,))
    return Figure(None, f"{profile.name} has no fact memory_gb")


def _used(profile: HardwareProfile, key: str) -> Used:
    fact = profile.facts[key]
    return Used(key, float(fact.value), fact.kind, fact.source)
