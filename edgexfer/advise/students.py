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
from edgexfer.models.workload import read_workload
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


def rank_students(
    names: Sequence[str],
    classes: int,
    size: int,
    profile: HardwareProfile,
    fleet: Fleet | None = None,
) -> tuple[Student, ...]:
    """Rank candidates for a target, the fastest first.

    Args:
        names: architectures, as ``create_model`` takes them.
        classes: outputs of the head.
        size: height and width of the input in pixels.
        profile: the target.
        fleet: one machine of that kind, to measure on in FP32; ``None`` for bounds alone.

    Returns:
        By measured latency, else by bound, and by size where they are equal or unknown.

    Raises:
        ModelError: an architecture is unknown or cannot be exported.
        InputError: the target's runtime does not load what could be measured.
        EdgexferError: as ``bench_on``.
    """
    if fleet is not None and profile.backend not in _LOAD_ONNX:
        raise InputError(
            f"{profile.name}: its {profile.backend} engines are made on the device, so that "
            "students cannot be measured before they are exported",
            "leave out --on, and rank by the bound",
        )
    with tempfile.TemporaryDirectory(prefix="edgexfer-") as scratch:
        files = {name: Path(scratch) / f"student-{i}.onnx" for i, name in enumerate(names)}
        found = {n: _look(n, classes, size, profile, file) for n, file in files.items()}
        if fleet is not None:
            _measure(found, files, profile, fleet, Path(scratch) / "bench")
    return tuple(sorted(found.values(), key=_order))


def _look(name: str, classes: int, size: int, profile: HardwareProfile, file: Path) -> Student:
    options = complete_options(name, None, size)
    model, _ = create_model(name, classes, options=options)
    height, width = default_preprocess(name, size, options).size
    work = read_workload(export_onnx(model, (height, width), file))
    bounds = [bound(work, profile, precision) for precision in profile.precisions]
    best = min(bounds, key=lambda b: (b.latency_ms.value is None, b.latency_ms.value or 0.0))
    limit = profile.limits.size_bytes
    reason = best.latency_ms.reason
    if limit is not None and best.weight_bytes > limit:
        reason = f"larger than the target's limit of {limit} bytes"
    latency = profile.limits.latency_p90_ms
    if latency is not None and (best.latency_ms.value or 0.0) > latency:
        reason = f"cannot keep the target's limit of {latency} ms"
    return Student(
        name=name,
        parameters=sum(p.numel() for p in model.parameters()),
        macs=best.macs,
        precision=best.precision,
        weight_bytes=best.weight_bytes,
        bound_ms=best.latency_ms.value,
        memory_pct=best.memory_share_pct.value,
        reason=reason,
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


def _order(student: Student) -> tuple[bool, float, int]:
    latency = student.bound_ms if student.measured_ms is None else student.measured_ms
    return latency is None, latency or 0.0, student.weight_bytes
