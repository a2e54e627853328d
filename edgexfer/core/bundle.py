"""The bundle: the sealed folder that goes to a device, and its manifest.

A bundle is sealed when ``manifest.json`` stands in it; that file is written last, and it lists
every other file with its size and hash. What the files mean to numpy or to a runtime lives in
``bench`` and ``export``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

from edgexfer.core.backend import TensorSpec
from edgexfer.core.codec import decode, encode
from edgexfer.core.errors import BundleError, EdgexferError, nearest
from edgexfer.core.files import PathLike, read_json, sha256_file, write_json
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.tasks import Task

SCHEMA = "edgexfer.bundle/1"
MANIFEST = "manifest.json"
REMAKE = "export the bundle again, or copy it again from where it was made"


@dataclass(frozen=True)
class FileEntry:
    """One file of the bundle.

    Attributes:
        path: relative to the bundle, with forward slashes.
        bytes: its size.
        sha256: of its content.
    """

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Rung:
    """One hop of the parity ladder, as it was measured when the bundle was made.

    Attributes:
        name: such as ``onnx fp32`` or ``x86-openvino int8``.
        against: the hop that it was compared with.
        n: images compared.
        sqnr_db: 20·log10(‖y‖₂ / ‖y - ŷ‖₂) over all outputs; ``None`` where they are equal to the
            bit.
        max_abs: largest absolute difference of an output.
        agreement_pct: images with the same top-1 class, in percent.
        top1_pct: accuracy on the evaluation images, in percent; ``None`` where it was not measured.
        drop_pt: accuracy lost against FP32, in points, with its 95 % interval; likewise.
        passed: whether it met its limits.
        limits: what it had to meet.
        notes: what else was seen, such as a drop that the images cannot decide.
    """

    name: str
    against: str
    n: int
    sqnr_db: Optional[float]
    max_abs: float
    agreement_pct: float
    top1_pct: Optional[float] = None
    drop_pt: Optional[float] = None
    drop_low_pt: Optional[float] = None
    drop_high_pt: Optional[float] = None
    passed: bool = True
    limits: Dict[str, float] = field(default_factory=dict)
    notes: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Artefact:
    """One model file of the bundle, with the files that belong to it.

    Attributes:
        name: unique in the bundle, ``TARGET-PRECISION``.
        target: name of the profile that it is made for.
        backend: the runtime that loads it.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        files: the first is what the runtime loads; the others lie beside it.
        inputs: what it takes, normalised float32 images in NCHW order.
        outputs: what it gives, logits; one for each task.
        opset: ONNX opset that was really written; ``None`` where it is not an ONNX file.
        scheme: how it was quantized; ``None`` where it was not.
        made_by: versions of the tools that made it.
        parent_sha256: the model file it was made from; ``None`` for the first of the chain.
        golden: file with the outputs for the golden images; ``None`` where it could not run here.
        golden_sqnr_db: how near to those outputs another machine must come.
    """

    name: str
    target: str
    backend: str
    precision: str
    files: Tuple[FileEntry, ...]
    inputs: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...]
    opset: Optional[int] = None
    scheme: Optional[str] = None
    made_by: Dict[str, str] = field(default_factory=dict)
    parent_sha256: Optional[str] = None
    golden: Optional[str] = None
    golden_sqnr_db: Optional[float] = None

    @property
    def options(self) -> Dict[str, Any]:
        """Options of the backend that follow from the files: where the scales stand by themselves.

        That is so for INT8 on a DLA that takes no Q/DQ nodes.
        """
        caches = [PurePosixPath(f.path).name for f in self.files if f.path.endswith(".cache")]
        return {"calibration_cache": caches[0]} if caches else {}


@dataclass(frozen=True)
class EvalSet:
    """Images that travel with the bundle, as the model's geometry made them.

    Attributes:
        images: ``.npy`` file, uint8, (N, H, W, 3), RGB.
        labels: ``.npy`` file, int64, (N,), indices into the manifest's labels; of several tasks
            (N, tasks), -1 for none.
        split: which split of the data they are from, such as ``test``.
        n: how many there are.
        n_split: how many the whole split has; more than ``n`` where a sample was taken.
        data_fingerprint: of the data set that they are from.
        encoded: the original, encoded file of some of them, by the image's place in ``images``;
            only of plain images, which nothing but decoding and scaling makes. Empty where the data
            has no files.
    """

    images: str
    labels: str
    split: str
    n: int
    n_split: int
    data_fingerprint: str
    encoded: Dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """What the model that was exported scores in its trainer, on the bundle's evaluation images.

    Attributes:
        correct: images with the right top-1 class.
        n: images in all.
    """

    correct: int
    n: int


@dataclass(frozen=True)
class Candidate:
    """One precision that was tried for a target.

    Attributes:
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        outcome: ``chosen``; ``kept``, where nothing was chosen or it is the reference; ``dropped``,
            as it does not pay; ``refused``, as it missed a limit; ``skipped``, as it cannot be
            tried here.
        reason: why, in words.
        medians_ns: the median latency of each process; empty where it was not measured.
        size_bytes: of its files; ``None`` where none were made.
        drop_pt: top-1 accuracy lost against the model, in points; ``None`` where it was not run.
        drop_high_pt: upper end of the 95 % interval of that.
    """

    precision: str
    outcome: str
    reason: str
    medians_ns: Tuple[float, ...] = ()
    size_bytes: Optional[int] = None
    drop_pt: Optional[float] = None
    drop_high_pt: Optional[float] = None

    @property
    def lost(self) -> bool:
        """Whether it was made and is not in the bundle."""
        return self.outcome == "dropped"


@dataclass(frozen=True)
class Choice:
    """Which precision was chosen for a target, and what that rests on.

    Attributes:
        target: name of the profile.
        chosen: the precision; ``None`` where nothing could be measured, or all were asked for.
        verdict: the choice and its reason in words.
        measured_on: the processor, or a board and its address; ``None`` where nothing was
            measured.
        doubts: what disturbed the measurement.
        candidates: all that were tried, in the order of the target's preference.
    """

    target: str
    chosen: Optional[str]
    verdict: str
    measured_on: Optional[str]
    doubts: Tuple[str, ...]
    candidates: Tuple[Candidate, ...]


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds.

    Attributes:
        schema: ``edgexfer.bundle/1``.
        name: for people, such as the model's name.
        model: name of the architecture.
        parameters: how many weights it has.
        labels: names of the classes, in the order of the outputs.
        preprocess: how an image becomes an input.
        profiles: for each target the file with its profile, as JSON.
        artefacts: the models.
        evaluation: the images to measure accuracy with; ``None`` where there are none.
        golden_images: ``.npy`` file, uint8, (K, H, W, 3).
        reference: accuracy of the FP32 model in the trainer.
        parity: every hop that was checked.
        calibration: how many images of which split calibrated INT8, and their hash.
        lineage: run, recipe hash, data fingerprint, git, seed, versions, licences.
        files: every file but the artefacts' own and the manifest.
        created_utc: ISO 8601, of the export.
        choices: for each target whose precision was to be chosen what came of it.
        tasks: what the outputs are about, where that is more than one question.
    """

    schema: str
    name: str
    model: str
    parameters: int
    labels: Tuple[str, ...]
    preprocess: Preprocess
    profiles: Dict[str, str]
    artefacts: Tuple[Artefact, ...]
    evaluation: Optional[EvalSet]
    golden_images: str
    reference: Optional[Reference]
    parity: Tuple[Rung, ...]
    calibration: Dict[str, Any]
    lineage: Dict[str, Any]
    files: Tuple[FileEntry, ...]
    created_utc: str
    choices: Tuple[Choice, ...] = ()
    tasks: Tuple[Task, ...] = ()

    def labels_shape(self, images: int) -> Tuple[int, ...]:
        """Return the shape of the labels of so many images."""
        return (images, len(self.tasks)) if self.tasks else (images,)


def file_entry(folder: PathLike, path: PathLike) -> FileEntry:
    """Describe a file that lies in ``folder``."""
    place = Path(path)
    relative = PurePosixPath(place.relative_to(folder).as_posix())
    return FileEntry(str(relative), place.stat().st_size, sha256_file(place))


def seal(folder: PathLike, manifest: Manifest) -> None:
    """Write the manifest; from then on the folder is a bundle."""
    write_json(Path(folder) / MANIFEST, encode(manifest))


def read_manifest(bundle: PathLike) -> Manifest:
    """Read a bundle's manifest without looking at the other files.

    Raises:
        BundleError: there is none, it is damaged, or it is of another schema; an artefact has an
            unsafe name, or that of another.
    """
    folder = Path(bundle)
    place = folder / MANIFEST
    if not place.is_file():
        raise BundleError(
            f"{folder}: is not a sealed bundle (no {MANIFEST})",
            "name a folder that `edgexfer export` has made",
        )
    try:
        value = read_json(place)
        schema = value.get("schema") if isinstance(value, dict) else None
        if schema != SCHEMA:
            raise BundleError(f"{place}: schema is {schema!r}, expected {SCHEMA!r}", REMAKE)
        manifest = decode(Manifest, value, str(place))
    except EdgexferError as error:
        raise BundleError(error.what, REMAKE) from error
    _check_names(place, manifest)
    told = manifest.reference
    if told is not None and not 0 <= told.correct <= told.n > 0:
        raise BundleError(f"{place}: reference is {told.correct} right of {told.n}", REMAKE)
    return manifest


def _check_names(place: Path, manifest: Manifest) -> None:
    """Refuse names that are none of files: engines and records are named after artefacts."""
    seen = set()
    for name in (artefact.name for artefact in manifest.artefacts):
        if "/" in name or not is_safe(name):
            raise BundleError(f"{place}: unsafe name {name!r} of an artefact", REMAKE)
        if name in seen:
            raise BundleError(f"{place}: two artefacts are named {name!r}", REMAKE)
        seen.add(name)


def all_entries(manifest: Manifest) -> Iterator[FileEntry]:
    """Yield each listed file once; artefacts of several targets may share one.

    Raises:
        BundleError: one path is listed with two contents.
    """
    seen: Dict[str, FileEntry] = {}
    groups: Iterable[Iterable[FileEntry]] = [a.files for a in manifest.artefacts]
    for group in (*groups, manifest.files):
        for entry in group:
            if seen.setdefault(entry.path, entry) != entry:
                raise BundleError(f"{entry.path}: is listed with two contents", REMAKE)
    return iter(seen.values())


def named_paths(manifest: Manifest) -> List[str]:
    """Return the paths that a manifest's fields name; each must be a listed file."""
    paths = [*manifest.profiles.values(), manifest.golden_images]
    paths += [a.golden for a in manifest.artefacts if a.golden is not None]
    if manifest.evaluation is not None:
        chosen = manifest.evaluation
        paths += [chosen.images, chosen.labels, *chosen.encoded.values()]
    return paths


def verify_files(bundle: PathLike) -> Manifest:
    """Check that a bundle holds just the files of its manifest, each with its size and hash.

    Raises:
        BundleError: naming the first file that is missing, foreign, linked, of an unsafe path or of
            another content.
    """
    folder = Path(bundle)
    manifest = read_manifest(folder)
    listed = _listed(folder, manifest)
    # A link to a folder is a folder to is_dir, and must be seen all the same.
    found = [p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()]
    present = {p.relative_to(folder).as_posix(): p for p in found}
    for name, place in sorted(present.items()):
        if place.is_symlink():
            raise BundleError(f"{place}: is a symbolic link", REMAKE)
        if not place.is_file():
            raise BundleError(f"{place}: is not a plain file", REMAKE)
        if name not in listed and name != MANIFEST:
            raise BundleError(f"{place}: is not listed in the manifest", f"delete it, or {REMAKE}")
    for name, entry in listed.items():
        place = folder / name
        if name not in present:
            raise BundleError(f"{place}: is missing", REMAKE)
        if place.stat().st_size != entry.bytes or sha256_file(place) != entry.sha256:
            raise BundleError(f"{place}: differs from the manifest (size or sha256)", REMAKE)
    return manifest


def _listed(folder: Path, manifest: Manifest) -> Dict[str, FileEntry]:
    """Return the manifest's files by path, after checking each path that it says anywhere."""
    listed = {entry.path: entry for entry in all_entries(manifest)}
    named = named_paths(manifest)
    for path in (*listed, *named):
        if not is_safe(path):
            raise BundleError(f"{folder}: unsafe path {path!r} in the manifest", REMAKE)
    for path in named:
        if path not in listed:
            raise BundleError(f"{folder}: {path!r} is named in the manifest, not listed", REMAKE)
    return listed


def is_safe(path: str) -> bool:
    """Say whether a manifest's path stays in the bundle: relative, plain, without ``..``."""
    parts = path.split("/")
    plain = not re.search(r"[\x00-\x1f\\:]", path)
    return bool(path) and plain and all(p not in ("", ".", "..") for p in parts)


def get_artefact(manifest: Manifest, name: str) -> Artefact:
    """Return an artefact by name.

    Raises:
        BundleError: there is none of that name; the nearest are offered.
    """
    for artefact in manifest.artefacts:
        if artefact.name == name:
            return artefact
    names = [a.name for a in manifest.artefacts]
    raise BundleError(f"artefact {name!r} is not in the bundle", nearest(name, names))
