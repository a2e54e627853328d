"""Which student to take for a target, before any is trained: what it can reach there, and its size.

Weights do not change how fast a network is, so that random ones do. Without a machine of that kind,
the roofline of ``models/roofline.py`` bounds the latency from below; a bound ranks, and promises
nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgexfer.bench.bare import Wish
from edgexfer.core.errors import InputError
from edgexfer.core.profile import HardwareProfile, Precision
from edgexfer.core.progress import Progress
from edgexfer.core.record import read_record
from edgexfer.models.create import complete_options, create_model, default_preprocess
from edgexfer.models.onnx import export_onnx
from edgexfer.models.roofline import bound
from edgexfer.models.workload import Workload, read_workload
from edgexfer.recipe import BenchSection

if TYPE_CHECKING:
    from edgexfer.remote.fleet import Fleet

#: Candidates where none is named, for images of at most ``SMALL_PX`` and for larger ones.
SMALL = ("resnet8", "resnet20", "resnet8x4", "resnet32x4")
LARGE = ("mobilenetv3_small_100", "mobilenetv4_conv_small", "efficientnet_lite0", "resnet18")
SMALL_PX = 64
# Runtimes that load the ONNX file as it is written here.
_LOAD_ONNX = ("onnxruntime", "openvino")
_SECTION = BenchSection(processes=3, seconds=1.0)


@dataclass(frozen=True)
class Candidate:
    """An architecture that could become the student.

    Attributes:
        name: as ``create_model`` takes it.
        parameters: how many weights.
        file: it as ONNX, with random weights.
        work: what that asks of a machine.
    """

    name: str
    parameters: int
    file: Path
    work: Workload


@dataclass(frozen=True)
class Student:
    """A candidate on a target.

    Attributes:
        name: architecture.
        parameters: how many weights.
        macs: multiply-accumulates of one image.
        precision: of the bound: the one of the profile's with the least.
        weight_bytes: of all weights in it.
        bound_ms: least latency that the target can reach; ``None`` where the profile lacks a fact.
        memory_pct: weights and activations as a share of the target's memory, or ``None``.
        measured_ms: median latency in FP32; ``None`` where it was not measured.
        reason: why there is no bound or measurement, or which limit of the profile it breaks.
        within: whether it may keep the limits of the profile.
    """

    name: str
    parameters: int
    macs: int
    precision: Precision
    weight_bytes: int
    bound_ms: float | None
    memory_pct: float | None
    measured_ms: float | None = None
    reason: str = ""
    within: bool = True


def make_candidates(
    names: Sequence[str], classes: int, size: int, folder: Path
) -> tuple[Candidate, ...]:
    """Write candidates with random weights as ONNX files and count their work.

    Args:
        names: architectures, as ``create_model`` takes them.
        classes: outputs of the head.
        size: height and width of the input in pixels.
        folder: where the files go.

    Raises:
        ModelError: an architecture is unknown or cannot be exported.
    """
    found = []
    for i, name in enumerate(names):
        options = complete_options(name, None, size)
        model, _ = create_model(name, classes, options=options)
        pixels = default_preprocess(name, size, options).size
        file = export_onnx(model, pixels, folder / f"student-{i}.onnx")
        parameters = sum(p.numel() for p in model.parameters())
        found.append(Candidate(name, parameters, file, read_workload(file)))
    return tuple(found)


def rank_students(
    candidates: Sequence[Candidate], profile: HardwareProfile, fleet: Fleet | None = None
) -> tuple[Student, ...]:
    """Rank candidates for a target, the fastest first, those that break a limit of its last.

    Args:
        candidates: what is ranked.
        profile: the target.
        fleet: one machine of that kind, to measure on in FP32; ``None`` for bounds alone.

    Returns:
        By measured latency, else by bound, and by size where they are equal or unknown.

    Raises:
        InputError: the target's runtime does not load what could be measured.
        EdgexferError: as ``bench_on``.
    """
    check_fleet(profile, fleet)
    found = {c.name: _bounded(c, profile) for c in candidates}
    if fleet is not None:
        with tempfile.TemporaryDirectory(prefix="edgexfer-") as scratch:
            _measure(found, {c.name: c.file for c in candidates}, profile, fleet, Path(scratch))
    return tuple(sorted(found.values(), key=_order))


def check_fleet(profile: HardwareProfile, fleet: Fleet | None) -> None:
    """Refuse to measure for a target whose runtime does not load ONNX files.

    Raises:
        InputError: it is such a target.
    """
    if fleet is not None and profile.backend not in _LOAD_ONNX:
        raise InputError(
            f"{profile.name}: students can be measured before they are exported with "
            f"{' and '.join(_LOAD_ONNX)}, not with {profile.backend}",
            "leave out --on, and rank by the bound",
        )


def _bounded(candidate: Candidate, profile: HardwareProfile) -> Student:
    bounds = [bound(candidate.work, profile, precision) for precision in profile.precisions]
    best = min(bounds, key=lambda b: (b.latency_ms.value is None, b.latency_ms.value or 0.0))
    broken = ""
    limits = profile.limits
    if limits.size_bytes is not None and best.weight_bytes > limits.size_bytes:
        broken = f"larger than the target's limit of {limits.size_bytes} bytes"
    if limits.latency_p90_ms is not None and (best.latency_ms.value or 0.0) > limits.latency_p90_ms:
        broken = f"cannot keep the target's limit of {limits.latency_p90_ms} ms"
    return Student(
        name=candidate.name,
        parameters=candidate.parameters,
        macs=best.macs,
        precision=best.precision,
        weight_bytes=best.weight_bytes,
        bound_ms=best.latency_ms.value,
        memory_pct=best.memory_share_pct.value,
        reason=broken or best.latency_ms.reason,
        within=not broken,
    )


def _measure(
    found: dict[str, Student],
    files: dict[str, Path],
    profile: HardwareProfile,
    fleet: Fleet,
    out: Path,
) -> None:
    """Put measured latencies into the candidates; one that failed says why."""
    from edgexfer.remote.bench import How
    from edgexfer.remote.fleet import bench_on

    wish = Wish((profile.backend,), ("fp32",))
    how = How(None, _SECTION, Progress, accuracy=False, wish=wish)
    records = [read_record(place) for place in bench_on(list(files.values()), out, how, fleet)]
    by_name = {str(record.artefact["name"]).rsplit("-", 2)[0]: record for record in records}
    for name, file in files.items():
        record = by_name[file.stem]
        median = record.latency.get("p50")
        if median is None or median.value is None:
            why = record.reasons[0] if record.reasons else "too few samples"
            found[name] = replace(found[name], reason=f"not measured: {why}")
        else:
            found[name] = replace(found[name], measured_ms=median.value / 1e6)


def _order(student: Student) -> tuple[bool, bool, float, int]:
    latency = student.bound_ms if student.measured_ms is None else student.measured_ms
    return not student.within, latency is None, latency or 0.0, student.weight_bytes
