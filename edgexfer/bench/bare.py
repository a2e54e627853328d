"""Models that are in no bundle: any ONNX file, OpenVINO IR or TensorRT engine as a subject.

What such a file takes is asked of the runtime on the device; here it is only looked at, and put
into a folder of its own with what belongs to it.
"""

from __future__ import annotations

import mmap
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from edgexfer.bench.job import Bare
from edgexfer.bench.suite import Subject
from edgexfer.core.backend import BACKENDS
from edgexfer.core.bundle import Artefact, file_entry
from edgexfer.core.errors import InputError, nearest
from edgexfer.core.files import make_dir

RUNTIMES: Dict[str, Tuple[str, ...]] = {
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".engine": ("tensorrt",),
    ".plan": ("tensorrt",),
    ".trt": ("tensorrt",),
    ".pt2": ("torch",),
}
"""What loads a file of each kind; the first is taken where none is named."""
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
_QUANTIZED = {".onnx": (b"DequantizeLinear", b"QLinear"), ".xml": (b'type="FakeQuantize"',)}


@dataclass(frozen=True)
class Wish:
    """What a model is to be measured with.

    Attributes:
        runtimes: names of backends; empty for the first that loads such a file.
        precisions: empty for the one that is written in the file.
        shapes: sizes of inputs by name, where the model leaves them free.
    """

    runtimes: Tuple[str, ...] = ()
    precisions: Tuple[str, ...] = ()
    shapes: Dict[str, Tuple[int, ...]] = field(default_factory=dict)


def is_model(path: Path) -> bool:
    """Say whether a path is a model file by its suffix, not a bundle."""
    return path.suffix.lower() in RUNTIMES and not path.is_dir()


def check_wish(wish: Wish) -> None:
    """Refuse runtimes and precisions that do not exist.

    Raises:
        InputError: naming the first.
    """
    for flag, given, known in (
        ("--runtime", wish.runtimes, BACKENDS),
        ("--precision", wish.precisions, PRECISIONS),
    ):
        for name in given:
            if name not in known:
                raise InputError(f"{flag}: {name!r} is unknown", nearest(name, known))


def bare_subjects(
    model: Path, folder: Path, wish: Wish, weights: Sequence[Path] = ()
) -> List[Subject]:
    """Put a model into a folder, and return a subject for each runtime and precision.

    A precision that a runtime lacks gives a subject too: its record says so.

    Args:
        model: the file.
        folder: where it and what belongs to it go; created.
        wish: what with.
        weights: files in its folder that an ONNX model keeps weights in. Nothing else of what it
            names goes with it.

    Raises:
        InputError: it is missing or empty, an IR lacks its weights, or no named runtime loads such
            files.
    """
    suffix = model.suffix.lower()
    if not model.is_file() or not model.stat().st_size:
        what = "is empty" if model.is_file() else "no such file"
        raise InputError(f"{model}: {what}", "name a model file or a bundle")
    able = RUNTIMES[suffix]
    for runtime in wish.runtimes:
        if runtime not in able:
            raise InputError(
                f"{model}: {runtime} does not load {suffix} files", f"use {' or '.join(able)}"
            )
    links = [model, *_companions(model)]
    precisions = wish.precisions or (_written_precision(model),)
    make_dir(folder)
    for file in links:
        _bring(file, folder / file.name)
    for file in weights:
        # A second link would make the next benchmark doubt where the first leads.
        out = folder / file.relative_to(model.parent)
        make_dir(out.parent)
        shutil.copyfile(file, out)
    entries = tuple(
        file_entry(folder, folder / file.relative_to(model.parent)) for file in (*links, *weights)
    )
    subjects = []
    for runtime in wish.runtimes or able[:1]:
        for precision in precisions:
            name = f"{model.stem}-{runtime}-{precision}"
            artefact = Artefact(name, "", runtime, precision, entries, (), ())
            device = "GPU" if runtime == "tensorrt" else "CPU"
            bare = Bare(model.name, runtime, precision, device, dict(wish.shapes))
            subjects.append(Subject(folder, None, artefact, bare))
    return subjects


def select(artefacts: Sequence[Artefact], wish: Wish) -> List[Artefact]:
    """Return the artefacts of a bundle that are of the wished runtimes and precisions.

    Raises:
        InputError: there is none.
    """
    found = [
        artefact
        for artefact in artefacts
        if artefact.backend in (wish.runtimes or (artefact.backend,))
        and artefact.precision in (wish.precisions or (artefact.precision,))
    ]
    if not found:
        names = ", ".join(artefact.name for artefact in artefacts)
        raise InputError(
            "--runtime, --precision: no artefact is of both", f"the bundle has, for here: {names}"
        )
    return found


def _companions(model: Path) -> List[Path]:
    """Return the files beside a model that it cannot do without."""
    if model.suffix.lower() == ".xml":
        weights = model.with_suffix(".bin")
        if not weights.is_file():
            raise InputError(f"{model}: its weights {weights.name} are not beside it", "copy both")
        return [weights]
    return []


def _written_precision(model: Path) -> str:
    suffix = model.suffix.lower()
    if suffix in (".engine", ".plan", ".trt"):
        raise InputError(
            f"{model}: an engine does not say its precision",
            "name the one that it was built for, such as --precision fp16",
        )
    with _mapped(model) as content:
        quantized = any(content.find(word) >= 0 for word in _QUANTIZED.get(suffix, ()))
    return "int8" if quantized else "fp32"


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def _bring(source: Path, out: Path) -> None:
    out.unlink(missing_ok=True)
    try:
        os.link(source, out)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, out)
