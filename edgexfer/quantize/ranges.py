"""What a quantization-aware training leaves beside the weights: the ranges of the activations.

``aware.py`` finds them, and ``qdq.py`` writes them into an ONNX file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgexfer.core.codec import decode, encode
from edgexfer.core.errors import EdgexferError, RunError
from edgexfer.core.files import PathLike, make_dir, read_json, sha256_file, write_json
from edgexfer.core.model import FOLDER
from edgexfer.core.profile import HardwareProfile, Quantization
from edgexfer.core.rundir import RunDir, read_run

SCHEMA = "edgexfer.quantization/1"
FILE = "quantization.json"
# Where run.json keeps its hash, in the lineage.
_NOTED = "quantization_sha256"
_FIX = "distil again with --qat-for, into another --out"


@dataclass(frozen=True)
class Range:
    """The grid of one tensor: real = (integer - zero_point) · scale.

    Attributes:
        scale: step between two integers, above 0; exactly a float32.
        zero_point: the integer that stands for 0.0.
    """

    scale: float
    zero_point: int


@dataclass(frozen=True)
class TrainedRanges:
    """The quantization that a student was trained with.

    Attributes:
        schema: ``edgexfer.quantization/1``.
        profile: name of the target that it was trained for.
        scheme: of that target, then.
        restricted: whether only inputs of weighted layers were quantized.
        activations: by the tensor's name in the ONNX file.
    """

    schema: str
    profile: str
    scheme: Quantization
    restricted: bool
    activations: dict[str, Range]

    def suit(self, profile: HardwareProfile) -> bool:
        """Say whether a target is quantized in the way that was trained."""
        return (self.scheme, self.restricted) == (profile.quantization, is_restricted(profile))


def is_restricted(profile: HardwareProfile) -> bool:
    """Say whether a target wants the inputs of weighted layers quantized, and nothing else."""
    return profile.backend == "tensorrt"


def write_ranges(run: RunDir, ranges: TrainedRanges) -> None:
    """Write ``RUN/model/quantization.json`` atomically and note its hash in ``run.json``.

    Raises:
        DiskError: the disk is full or the run cannot be written.
    """
    place = make_dir(run.path / FOLDER) / FILE
    write_json(place, encode(ranges))
    run.set(lineage={**run.info.lineage, _NOTED: sha256_file(place)})


def read_ranges(run: PathLike) -> TrainedRanges | None:
    """Read the ranges that a run was trained with; ``None`` where it was trained without.

    Raises:
        RunError: the file is missing, is not the one that was written, or cannot be read.
    """
    noted = read_run(run).lineage.get(_NOTED)
    if noted is None:
        return None
    place = Path(run) / FOLDER / FILE
    if not place.is_file():
        raise RunError(f"{place}: is missing", f"copy the run again, or {_FIX}")
    if sha256_file(place) != noted:
        raise RunError(
            f"{place}: differs from what was trained (sha256 is not the run's)",
            f"copy the run again, or {_FIX}",
        )
    try:
        return decode(TrainedRanges, read_json(place), str(place))
    except EdgexferError as error:
        raise RunError(error.what, _FIX) from error
