"""The flavour of a target: what its profile's software asks of the files that are made for it.

Decided by the release that a profile names, not by the board's name. Making the files is the work
of ``lower``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgexfer.core.errors import ProfileError, RecipeError, nearest
from edgexfer.core.profile import HardwareProfile, Stack
from edgexfer.models.onnx import OPSET
from edgexfer.recipe import ExportSection

# What can be made for each runtime, the reference first.
PRECISIONS = {
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "fp16", "bf16", "int8"),
    "tensorrt": ("fp32", "fp16", "int8"),
    "torch": ("fp32",),
}


def wanted_precisions(profile: HardwareProfile, section: ExportSection) -> tuple[str, ...]:
    """Return the precisions to make for a target, FP32 first where it has that.

    Raises:
        ProfileError: the profile lists a precision that cannot be made for its runtime.
        RecipeError: the precision that was asked for is none of the profile's.
    """
    possible = PRECISIONS.get(profile.backend, ())
    for precision in profile.precisions:
        if precision not in possible:
            raise ProfileError(
                f"profile {profile.name}: {precision} cannot be exported for {profile.backend}",
                f"list {', '.join(possible) or 'another backend'}",
            )
    several = section.precision in ("auto", "all")
    if not several and section.precision not in profile.precisions:
        raise RecipeError(
            f"target {profile.name} has no precision {section.precision}",
            f"use --precision auto or one of {', '.join(profile.precisions)}",
        )
    chosen = profile.precisions if several else ("fp32", section.precision)
    # A DLA and an NPU have no FP32, also where it would be the reference.
    return tuple(p for p in possible if p in chosen and p in profile.precisions)


def default_row(profile: HardwareProfile) -> Stack:
    """Return the software release that an export is made for.

    Raises:
        ProfileError: the profile has no stack rows.
    """
    if not profile.stack:
        raise ProfileError(f"profile {profile.name}: has no stack row", "add one under stack:")
    return next((row for row in profile.stack if row.default), profile.stack[0])


def find_row(profile: HardwareProfile, release: str) -> Stack:
    """Return a profile's software release by its name.

    Raises:
        ProfileError: the profile has no such row; the nearest are offered.
    """
    for row in profile.stack:
        if row.name == release:
            return row
    known = [row.name for row in profile.stack]
    raise ProfileError(
        f"profile {profile.name}: has no release {release!r}", nearest(release, known)
    )


def for_release(profiles: Sequence[HardwareProfile], release: str) -> tuple[HardwareProfile, ...]:
    """Make a release the default of every target that lists it; the others keep their own.

    Raises:
        ProfileError: no target lists it; the nearest names are offered.
    """
    known = {row.name for profile in profiles for row in profile.stack}
    if release not in known:
        names = ", ".join(profile.name for profile in profiles)
        raise ProfileError(f"{names}: no release {release!r}", nearest(release, known))
    return tuple(_as_default(p, release) for p in profiles)


def _as_default(profile: HardwareProfile, release: str) -> HardwareProfile:
    if all(row.name != release for row in profile.stack):
        return profile
    rows = tuple(replace(row, default=row.name == release) for row in profile.stack)
    return replace(profile, stack=rows)


def export_command(profile: HardwareProfile, row: Stack) -> str:
    """Return what to type to make files for one software release of a target."""
    return f'edgexfer export RUN --target {profile.name} --stack "{row.name}"'


def takes_cache(profile: HardwareProfile) -> bool:
    """Tell whether a target's INT8 is a float file with a calibration cache.

    Up to TensorRT 10 a DLA takes no Q/DQ nodes (TensorRT developer guide, "Working with DLA"); 11
    has no calibration caches.

    Raises:
        ProfileError: the profile has no stack rows.
    """
    return profile.backend == "tensorrt" and _dla_by_flags(profile, default_row(profile))


def typed_strongly(profile: HardwareProfile, row: Stack | None = None) -> bool:
    """Tell whether a release takes the type of each layer from the file, and not from flags.

    Args:
        profile: of a board with TensorRT.
        row: the release; ``None`` for the one that exports are made for.

    Raises:
        ProfileError: the profile has no stack rows.
    """
    row = row or default_row(profile)
    return row.typing == "strong" and not _dla_by_flags(profile, row)


def _dla_by_flags(profile: HardwareProfile, row: Stack) -> bool:
    """Tell whether a release wants a DLA's precision as flags, as all do up to TensorRT 10.

    trtexec of TensorRT 10 sets the flag FP16 whenever it builds for a DLA (samples/common,
    sampleEngines.cpp), and a strongly typed network refuses that flag.
    """
    return profile.device == "DLA" and int(row.runtime_version.split(".")[0]) < 11


def target_opset(profile: HardwareProfile) -> int:
    """Return the opset to write for a target: the newest that is known to parse there.

    TensorRT 8.6 parses opset 17; before it, HardSwish and LayerNormalization are missing, which
    opset 13 has neither.

    Raises:
        ProfileError: the profile has no stack rows.
    """
    if profile.backend != "tensorrt":
        return OPSET
    return newest_opset(default_row(profile))


def newest_opset(row: Stack) -> int:
    """Return the newest opset whose operators a release of TensorRT is known to have."""
    version = tuple(int(part) for part in row.runtime_version.split(".")[:2])
    return 13 if version < (8, 6) else min(OPSET, row.onnx_opset_max)


def int8_name(profile: HardwareProfile) -> str:
    """Return the name of the INT8 file of a target; targets that share one have one name."""
    scheme = profile.quantization
    if scheme.scheme == "nncf":
        return f"int8-nncf-{scheme.activations}.xml"
    parts = ["int8-qdq", scheme.activations]
    if scheme.weights == "int8-per-tensor":
        parts.append("per-tensor")
    if scheme.reduce_range:
        parts.append("7bit")
    if profile.backend == "tensorrt":
        parts.append("fp16" if typed_strongly(profile) else "fp32")
        opset = target_opset(profile)
        parts += [f"op{opset}"] if opset < OPSET else []
        parts += ["dla"] if profile.device == "DLA" else []
    return "-".join(parts) + ".onnx"
