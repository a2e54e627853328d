"""A profile, and what a model would ask of it, as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgexfer.core.profile import HardwareProfile, Stack
from edgexfer.models.roofline import ASSUMPTIONS, Bound, Figure
from edgexfer.models.workload import Workload
from edgexfer.report.columns import aligned


def hardware(profile: HardwareProfile) -> str:
    """Say whether the target has been seen on hardware."""
    return "measured" if profile.seen_on_hardware else "provided, not measured"


def list_lines(profiles: Sequence[HardwareProfile]) -> list[str]:
    """Return a table of profiles."""
    rows = [
        {
            "name": profile.name,
            "also": ", ".join(profile.aliases),
            "runtime": _runtime(profile),
            "precisions": ", ".join(profile.precisions),
            "hardware": hardware(profile),
            "title": profile.title,
        }
        for profile in profiles
    ]
    return aligned(list(rows[0]), rows, set(rows[0]))


def profile_lines(profile: HardwareProfile) -> list[str]:
    """Return all that a profile says, each fact with its kind and source."""
    also = f" (also: {', '.join(profile.aliases)})" if profile.aliases else ""
    where = "on the device" if profile.compile_on == "device" else "on the host"
    has = f"; the chip has {', '.join(profile.arithmetic)}" if profile.arithmetic else ""
    lines = [
        profile.title,
        f"  name        {profile.name}{also}",
        f"  runtime     {_runtime(profile)}, {profile.machine}, compiled {where}",
        f"  precisions  {', '.join(profile.precisions)}{has}",
    ]
    if "int8" in profile.precisions:
        asked = profile.quantization
        reduced = ", weights of 7 bits" if asked.reduce_range else ""
        lines.append(
            f"  int8        {asked.scheme}: activations {asked.activations}, "
            f"weights {asked.weights}{reduced}"
        )
    lines += [f"  {key:11} {value}" for key, value in profile.options.items()]
    lines.append(f"  hardware    {hardware(profile)}")
    limits = {
        "p90 latency": (profile.limits.latency_p90_ms, "ms"),
        "size": (profile.limits.size_bytes, "bytes"),
        "accuracy drop": (profile.limits.accuracy_drop_pt, "points"),
    }
    asked_of = [
        f"{key} {value} {unit}" for key, (value, unit) in limits.items() if value is not None
    ]
    lines.append(f"  limits      {', '.join(asked_of) or 'none'}")
    if profile.facts:
        facts = [
            {"fact": key, "value": _plain(f.value), "kind": f.kind, "source": f.source}
            for key, f in profile.facts.items()
        ]
        lines += ["", *aligned(list(facts[0]), facts, {"fact", "kind", "source"})]
    if profile.stack:
        releases = [_release(profile, row) for row in profile.stack]
        lines += ["", *aligned(list(releases[0]), releases, set(releases[0]) - {"opset"})]
    if profile.power_modes:
        modes = [{"power mode": k, "caps": v} for k, v in profile.power_modes.items()]
        lines += ["", *aligned(["power mode", "caps"], modes, {"power mode", "caps"})]
    return lines


def bound_lines(
    model: Path, work: Workload, profile: HardwareProfile, bounds: Sequence[Bound]
) -> list[str]:
    """Return the bounds of a model on a target, and what each figure rests on."""
    rows = [
        {
            "precision": found.precision,
            "at least": _ms(found.latency_ms),
            "compute": _ms(found.compute_ms),
            "memory": _ms(found.memory_ms),
            "weights": _mb(found.weight_bytes),
            "activations": _mb(found.activation_bytes),
        }
        for found in bounds
    ]
    lines = [
        f"Lower bound, not a prediction: {model.name}, batch {work.batch}, "
        f"{work.macs / 1e6:.4g} million multiply-accumulates",
        "",
        *aligned(list(rows[0]), rows, {"precision"}),
        "",
    ]
    figures = [f for b in bounds for f in (b.compute_ms, b.memory_ms, b.memory_share_pct)]
    lines += [
        f"unknown: {reason}" for reason in dict.fromkeys(f.reason for f in figures if f.reason)
    ]
    if any(bound.latency_ms.value is None for bound in bounds):
        lines.append(_to_bound(profile, model))
    lines += [
        f"from {used.fact} {_plain(used.value)}, {used.kind}: {used.source}"
        for used in dict.fromkeys(used for f in figures for used in f.used)
    ]
    shares = [b.memory_share_pct.value for b in bounds if b.memory_share_pct.value is not None]
    if shares:
        lines.append(f"weights and activations take {max(shares):.3g} % of the memory at most")
    if work.uncounted:
        lines.append(f"not counted, so that more work is done: {', '.join(work.uncounted)}")
    return lines + [f"assumed: {text}" for text in ASSUMPTIONS]


def _to_bound(profile: HardwareProfile, model: Path) -> str:
    """Say how the figures are had that a profile of no one chip lacks."""
    if profile.backend in ("onnxruntime", "openvino") and profile.device == "CPU":
        return (
            f"to bound it: `edgexfer profiles probe --backend {profile.backend} -o FILE.yaml` "
            f"there, or with --on, then `edgexfer profiles show FILE.yaml --model {model}`"
        )
    return (
        f"to bound it: `edgexfer profiles show {profile.name} --yaml > FILE.yaml`, and add the "
        "peaks of your chip to its facts, each with its source"
    )


def _runtime(profile: HardwareProfile) -> str:
    return f"{profile.backend}, {profile.device}"


def _release(profile: HardwareProfile, row: Stack) -> dict[str, str]:
    cells = {
        "release": row.name + (" (default)" if row.default else ""),
        profile.backend: row.runtime_version,
        "python": row.python,
        "glibc": row.glibc,
        "opset": f"≤ {row.onnx_opset_max}",
    }
    if profile.backend == "tensorrt":
        cells |= {"typing": row.typing, "DLA": "yes" if row.dla else "no"}
    return cells


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.10g}"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _ms(figure: Figure) -> str:
    return "unknown" if figure.value is None else f"{figure.value:.3g} ms"


def _mb(size: int) -> str:
    return f"{size / 1e6:.3g} MB"
