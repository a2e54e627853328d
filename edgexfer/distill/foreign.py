"""Teachers that are no run of edgexfer: a sealed bundle, or a bare ONNX file.

They run through ``backends/``, so that neither the architecture's code nor its trainer is needed.
How a teacher is asked lives in ``distill/teacher.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgexfer.core.backend import Plan, Session, get_backend
from edgexfer.core.bundle import Artefact, Manifest, verify_files
from edgexfer.core.codec import decode
from edgexfer.core.errors import BackendError, BundleError, EdgexferError, ModelError, RecipeError
from edgexfer.core.files import fingerprint, sha256_file
from edgexfer.core.preprocess import Preprocess
from edgexfer.models.onnxfile import examine, read_onnx
from edgexfer.yamlio import key_lines, read_yaml, validate

if TYPE_CHECKING:
    from onnx import ModelProto

# Beside a training, idle threads must not spin on the cores that it computes on.
OPTIONS: Mapping[str, dict[str, Any]] = {"onnxruntime": {"allow_spinning": False}}
_STRICT = {"extra": "forbid"}
_MOST_PRECISE = ("fp32", "fp16", "bf16", "int8")
_CARD = (
    "write a YAML file with `classes: [cat, dog]` and `preprocess: {size: [224, 224], resize: 256, "
    "mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}`, give it with --teacher-card"
)


@dataclass(frozen=True)
class Program:
    """A model file and what runs it.

    Attributes:
        path: what the runtime loads.
        backend: the runtime.
        precision: what it runs in.
        softmax: whether it gives probabilities; their logarithm makes them logits again.
    """

    path: Path
    backend: str
    precision: str = "fp32"
    softmax: bool = False


@dataclass(frozen=True)
class Foreign:
    """A teacher's artefact and what is known of it.

    Attributes:
        program: the artefact.
        classes: names of its outputs, in their order.
        preprocess: how it is fed.
        sha256: of all its files.
        note: what a reader of the run should know; empty for nothing.
    """

    program: Program
    classes: tuple[str, ...]
    preprocess: Preprocess
    sha256: str
    note: str = ""


@dataclass(frozen=True)
class Card:
    """What a bare ONNX file does not say of itself.

    Attributes:
        classes: names of its outputs, in their order.
        preprocess: how it is fed.
    """

    __pydantic_config__ = _STRICT

    classes: tuple[str, ...] | None = None
    preprocess: Preprocess | None = None


class SessionModel(nn.Module):
    """A loaded program as a torch module: normalised images in, logits out, through numpy.

    Attributes:
        program: what runs.
    """

    def __init__(self, session: Session, program: Program) -> None:
        """Wrap a session.

        Args:
            session: of one input, float32 (B, 3, H, W), where B may be fixed.
            program: what it was loaded from.
        """
        super().__init__()
        self.program = program
        self._session = session
        self._input = session.inputs[0].name
        self._outputs = [spec.name for spec in session.outputs]
        self._batch = session.inputs[0].shape[0]

    def forward(self, images: Tensor) -> Tensor:
        """Map float32 images (B, 3, H, W) to float32 logits (B, C) on the same device.

        Where the program's batch is fixed, it is fed in pieces of that size, the last one filled
        up with zeros.
        """
        x = images.detach().float().cpu().contiguous()
        step = len(x) if self._batch == -1 else self._batch
        logits = torch.cat([self._run(piece, step) for piece in torch.split(x, step)])
        if self.program.softmax:
            logits = logits.clamp_min(torch.finfo(torch.float32).tiny).log()
        return logits.to(images.device)

    def _run(self, piece: Tensor, size: int) -> Tensor:
        full = piece
        if len(piece) < size:
            full = torch.cat([piece, piece.new_zeros(size - len(piece), *piece.shape[1:])])
        outputs = self._session.run({self._input: full.numpy()})
        # A bundle of several tasks has an output for each.
        found = [torch.from_numpy(outputs[name]) for name in self._outputs]
        return torch.cat(found, dim=1)[: len(piece)]


def load_program(program: Program) -> SessionModel:
    """Load a program with as many threads as torch has.

    Raises:
        BackendError: its runtime is missing or refuses it.
    """
    return SessionModel(_load(program), program)


def load_foreign(found: Foreign) -> SessionModel:
    """Load a teacher's artefact.

    Raises:
        BackendError: its runtime is missing or refuses it.
        ModelError: it does not take images and give one value per class.
    """
    session = _load(found.program)
    _check_ports(session, found)
    return SessionModel(session, found.program)


def open_bundle(folder: Path) -> Foreign:
    """Check a bundle's files by hash and choose its most precise artefact that runs here.

    Raises:
        BundleError: the bundle is damaged or empty.
        BackendError: no artefact's runtime is here.
    """
    manifest = verify_files(folder)
    artefacts = sorted(manifest.artefacts, key=lambda a: _MOST_PRECISE.index(a.precision))
    if not artefacts:
        raise BundleError(f"{folder}: holds no artefact", "export it again for a target")
    refused: BackendError | None = None
    for artefact in artefacts:
        try:
            get_backend(artefact.backend)
        except BackendError as error:
            refused = refused or error
            continue
        return _foreign(folder, manifest, artefact)
    assert refused is not None
    raise BackendError(f"{folder}: none of its artefacts runs here ({refused.what})", refused.fix)


def open_onnx(path: Path, card: Card | None) -> Foreign:
    """Look at a bare ONNX file: classes, preprocess, precision, and where its weights are.

    Args:
        path: the file.
        card: what it does not say of itself; ``None`` where it says it all.

    Raises:
        ModelError: it is not a valid ONNX, its weights lie at an unsafe place, or its classes or
            preprocess are not known.
        BackendError: neither ONNX Runtime nor OpenVINO is here.
    """
    beside = examine(path, check="valid")
    proto = read_onnx(path)
    known = _known(path, proto, card)
    assert known.classes is not None and known.preprocess is not None
    digests = [sha256_file(place) for place in (path, *beside)]
    kinds = {node.op_type for node in proto.graph.node}
    quantized = any(k == "DequantizeLinear" or k.startswith("QLinear") for k in kinds)
    softmax = _ends_in_softmax(proto)
    return Foreign(
        Program(path, _runtime(), "int8" if quantized else "fp32", softmax),
        known.classes,
        known.preprocess,
        digests[0] if len(digests) == 1 else fingerprint(digests),
        f"{path}: gives probabilities; their logarithm is taken for logits" if softmax else "",
    )


def read_card(path: Path) -> Card:
    """Read the YAML file that says what a bare ONNX file does not.

    Raises:
        RecipeError: with the line and key of every fault.
    """
    value = read_yaml(path, RecipeError)
    try:
        card = validate(Card, value, path, RecipeError, key_lines(path))
    except RecipeError as error:
        # Preprocess refuses a value without knowing which file it is from.
        what = error.what if str(path) in error.what else f"{path}: {error.what}"
        raise RecipeError(what, error.fix) from error
    names = card.classes or ()
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(
            f"{path}: class {twice[0]!r} stands twice", "give each output its own name"
        )
    return card


def _load(program: Program) -> Session:
    options = dict(OPTIONS.get(program.backend, {}))
    plan = Plan(program.precision, threads=torch.get_num_threads(), options=options)
    return get_backend(program.backend).load(program.path, plan)


def _foreign(folder: Path, manifest: Manifest, artefact: Artefact) -> Foreign:
    if not artefact.files:
        raise BundleError(
            f"{folder}: artefact {artefact.name} lists no file", "export the bundle again"
        )
    digests = [entry.sha256 for entry in artefact.files]
    exact = artefact.precision == "fp32"
    return Foreign(
        Program(folder / artefact.files[0].path, artefact.backend, artefact.precision),
        manifest.labels,
        manifest.preprocess,
        digests[0] if len(digests) == 1 else fingerprint(digests),
        note="" if exact else f"{folder}: teaches in {artefact.precision}, it holds no fp32",
    )


def _runtime() -> str:
    try:
        get_backend("onnxruntime")
    except BackendError:
        get_backend("openvino")
        return "openvino"
    return "onnxruntime"


def _known(path: Path, proto: ModelProto, card: Card | None) -> Card:
    """Join what the file says of itself and what the card says of it."""
    said = {p.key: p.value for p in proto.metadata_props if p.key.startswith("edgexfer.")}
    own = Card()
    try:
        if "edgexfer.classes" in said:
            own = replace(own, classes=tuple(map(str, json.loads(said["edgexfer.classes"]))))
        if "edgexfer.preprocess" in said:
            value = json.loads(said["edgexfer.preprocess"])
            own = replace(own, preprocess=decode(Preprocess, value, str(path)))
    except (EdgexferError, ValueError, TypeError) as error:
        raise ModelError(
            f"{path}: its edgexfer metadata is damaged ({error})", "export the teacher again"
        ) from error
    given = card or Card()
    for name in ("classes", "preprocess"):
        here, there = getattr(own, name), getattr(given, name)
        if here is None and there is None:
            raise ModelError(f"{path}: says nothing of its {name}", _CARD)
        if here is not None and there is not None and here != there:
            raise ModelError(
                f"{path}: the file and the card give different {name}",
                f"leave {name} out of the card; the file knows",
            )
    return Card(own.classes or given.classes, own.preprocess or given.preprocess)


def _ends_in_softmax(proto: ModelProto) -> bool:
    last = proto.graph.output[0].name if proto.graph.output else ""
    return any(n.op_type == "Softmax" and last in n.output for n in proto.graph.node)


def _check_ports(session: Session, found: Foreign) -> None:
    """Refuse an artefact that the preprocess cannot feed or whose outputs have no names."""
    ports = (
        ("takes", session.inputs, (-1, 3, *found.preprocess.size)),
        ("gives", session.outputs, (-1, len(found.classes))),
    )
    for verb, specs, wanted in ports:
        # A side that the artefact leaves free is -1; the batch may be free or of any size.
        good = len(specs) == 1 and len(specs[0].shape) == len(wanted)
        good = good and specs[0].dtype == "float32"
        pairs = zip(specs[0].shape[1:], wanted[1:], strict=True) if good else ()
        if not good or any(side not in (-1, want) for side, want in pairs):
            have = ", ".join(f"{spec.dtype} {spec.shape}" for spec in specs) or "nothing"
            raise ModelError(
                f"{found.program.path}: {verb} {have}, expected one float32 {wanted}",
                "export it with normalised images in and logits out; check its classes and size",
            )
