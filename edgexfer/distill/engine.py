"""Which runtime computes the teacher: what is asked for, or what a short race says.

The teacher is often the larger half of a training step, and it only ever answers: a compiler for
inference, or a lower number format than the student's, computes it faster. Runtimes bring thread
pools of their own, which can slow the student down by more than they gain; so they are raced with a
piece of training between the calls.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgexfer.bench.compare import compare
from edgexfer.core.codec import encode
from edgexfer.core.errors import BackendError, EdgexferError, RecipeError
from edgexfer.distill.foreign import Program, SessionModel, load_program
from edgexfer.distill.teacher import Teacher
from edgexfer.models.normalise import PixelModel
from edgexfer.models.onnx import export_onnx
from edgexfer.training.precision import candidate

# How far an engine's answers may be from those of the teacher as it was loaded (torch: FP32,
# eager): the root mean square error of its logits, each image's mean taken off, as a share of
# theirs; and the share of images of another top class, of which one is always allowed.
MOST_ERROR, MOST_FLIPS = 0.02, 0.01
# The race: the gain that another engine must show, the time of all rounds together and their least
# number, and the teacher's time in the whole training from which on a race is worth its own.
_GAIN, _RACE_S, _ROUNDS, _WORTH_S = 1.10, 2.0, 2, 120.0


@dataclass(frozen=True)
class Engine:
    """A teacher, what computes it, and why.

    Attributes:
        teacher: answers as the one that was loaded, computed by this engine.
        name: ``RUNTIME-PRECISION``, such as ``torch-bf16`` or ``openvino-fp32``.
        why: one line for the run's lineage.
        times_ms: time of one batch with a piece of training before it, of each engine that raced.
        error: of its logits, see ``MOST_ERROR``; ``None`` where they were not compared.
        agreement_pct: images with the same top class as the teacher that was loaded; likewise.
        refused: for each engine that was tried in vain the reason.
    """

    teacher: Teacher
    name: str
    why: str
    times_ms: dict[str, float] = field(default_factory=dict)
    error: float | None = None
    agreement_pct: float | None = None
    refused: dict[str, str] = field(default_factory=dict)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, 3, H, W) on 0..255 to logits (B, C), as the teacher does."""
        logits: Tensor = self.teacher(pixels)
        return logits

    def encode(self) -> dict[str, Any]:
        """Return all but the teacher as values that JSON can hold."""
        return {f.name: encode(getattr(self, f.name)) for f in fields(self) if f.name != "teacher"}


def choose_engine(
    teacher: Teacher,
    pixels: Tensor,
    *,
    asked: str = "auto",
    device: torch.device,
    features: bool = False,
    calls: int | None = None,
) -> Engine:
    """Choose what computes a teacher during one training.

    Args:
        teacher: as it was loaded; it is moved to the device.
        pixels: one batch of the training, (B, 3, H, W) on 0..255.
        asked: ``torch``, ``openvino`` or ``onnxruntime`` for that runtime in its fastest precision
            that agrees; ``auto`` for the fastest of all.
        device: where the student trains.
        features: whether a loss looks at the teacher's layers, which torch alone shows.
        calls: how often the teacher is still to be asked; unset for very often.

    Returns:
        The engine. Without a race, for a short training, it is the teacher as it was loaded, or the
        runtime asked for in its highest precision.

    Raises:
        RecipeError: the runtime asked for cannot compute this teacher.
        BackendError: it is missing, or its answers are not the teacher's.
    """
    native = place_teacher(teacher, device)
    names = _names(teacher, native, device, asked, features)
    pixels = pixels.to(device).float()
    seconds = _call_s(teacher, pixels) * (calls or 0)
    short = calls is not None and seconds < _WORTH_S
    if names == [native]:
        return Engine(teacher, native, "no other engine can compute it")
    if short and asked == "auto":
        why = f"its calls take {seconds:.0f} s in all, too little for a race"
        return Engine(teacher, native, why)

    passed, refused = _made(teacher, names, pixels, native, enough=1 if short else len(names))
    if not passed:
        raise BackendError(
            f"the teacher cannot be computed by {asked}: {'; '.join(refused.values())}",
            "use --teacher-engine auto",
        )
    if len(passed) == 1:
        why = "no other engine agrees with it" if asked == "auto" else f"{asked} was asked for"
        (only,) = passed.values()
        return replace(only, why=why, refused=refused)
    times = _race({name: engine.teacher for name, engine in passed.items()}, pixels)
    name, why = _fastest(times)
    return replace(passed[name], why=why, times_ms=times, refused=refused)


def engine_names(
    teacher: Teacher, *, asked: str, device: torch.device, features: bool
) -> list[str]:
    """Return the engines that ``choose_engine`` would try with the same arguments.

    Raises:
        RecipeError: the runtime asked for cannot compute this teacher.
    """
    return _names(teacher, place_teacher(teacher, device), device, asked, features)


def make_engine(
    teacher: Teacher, name: str, device: torch.device, why: str = "as recorded"
) -> Engine:
    """Make the engine that an earlier ``choose_engine`` named, without asking how fast it is.

    Args:
        teacher: as it was loaded; it is moved to the device.
        name: of the engine.
        device: where the student trains.
        why: this one and no other.

    Raises:
        BackendError: its runtime is not here any more, or refuses the teacher.
        ModelError: the teacher cannot be exported for it.
    """
    native = place_teacher(teacher, device)
    with tempfile.TemporaryDirectory(prefix="edgexfer-") as folder:
        return Engine(_Forge(Path(folder), native).recast(teacher, name), name, why)


def place_teacher(teacher: Teacher, device: torch.device) -> str:
    """Move a teacher to a device, channels last in memory, and name what computes it as it is."""
    teacher.to(memory_format=torch.channels_last).to(device)
    programs = [m.model.program for m in teacher.members() if isinstance(m.model, SessionModel)]
    if len(programs) < len(teacher.members()):
        return "torch-fp32"
    return "+".join(sorted({f"{p.backend}-{p.precision}" for p in programs}))


class _Forge:
    """Makes other computers of a teacher; a torch model is exported once for all runtimes."""

    def __init__(self, folder: Path, native: str) -> None:
        self._folder, self._native = folder, native
        self._files: dict[nn.Module, Path] = {}

    def recast(self, teacher: Teacher, name: str) -> Teacher:
        """Return the teacher as the engine of that name computes it."""
        if name == self._native:
            return teacher
        runtime, precision = name.split("-")
        if runtime == "torch":
            return teacher.recast(precision, lambda member: member)

        def compiled(member: PixelModel) -> PixelModel:
            program = replace(self._program(member), backend=runtime, precision=precision)
            return PixelModel(load_program(program), member.preprocess)

        return teacher.recast("fp32", compiled)

    def _program(self, member: PixelModel) -> Program:
        model = member.model
        if isinstance(model, SessionModel):
            return model.program
        if model not in self._files:
            place = self._folder / f"{len(self._files)}.onnx"
            self._files[model] = export_onnx(model, member.preprocess.size, place)
        return Program(self._files[model], "onnxruntime")


def _names(
    teacher: Teacher, native: str, device: torch.device, asked: str, features: bool
) -> list[str]:
    """Return the engines to try, the one that the race is against first.

    Raises:
        RecipeError: none of them is of the runtime that was asked for.
    """
    inner = [member.model for member in teacher.members()]
    foreign = [model.program for model in inner if isinstance(model, SessionModel)]
    names = [native]
    if not foreign and (lower := candidate(device)):
        names.append(f"torch-{lower}")
    open_to_all = all(p.path.suffix == ".onnx" and p.precision == "fp32" for p in foreign)
    if device.type == "cpu" and open_to_all and not features:
        names += ["openvino-fp32", "openvino-bf16", "onnxruntime-fp32"]
    if asked != "auto":
        names = [name for name in names if name.split("-")[0] == asked]
    if not names:
        reason = "a feature loss looks at its layers" if features else f"it is for {native}"
        raise RecipeError(
            f"teacher_engine is {asked}, which cannot compute this teacher: {reason}",
            "use --teacher-engine auto",
        )
    return list(dict.fromkeys(names))


def _made(
    teacher: Teacher, names: list[str], pixels: Tensor, native: str, *, enough: int
) -> tuple[dict[str, Engine], dict[str, str]]:
    """Make engines and compare them, in order, until there are enough.

    Returns:
        Those that agree with the teacher, by name, and the reasons against the others.
    """
    reference: Tensor = teacher(pixels)
    passed: dict[str, Engine] = {}
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="edgexfer-") as folder:
        forge = _Forge(Path(folder), native)
        for name in names:
            if len(passed) == enough:
                break
            try:
                engine = Engine(forge.recast(teacher, name), name, "")
                passed[name] = _compared(engine, pixels, reference)
            except EdgexferError as error:
                refused[name] = error.what
    return passed, refused


def _compared(engine: Engine, pixels: Tensor, reference: Tensor) -> Engine:
    """Return the engine with how far its answers are from the reference.

    Raises:
        BackendError: they are too far.
    """
    answers = engine(pixels)
    apart = compare(_centred(reference), _centred(answers))
    error = 0.0 if apart.sqnr_db is None else 10 ** (-apart.sqnr_db / 20)
    flips = round(apart.n * (1 - apart.agreement_pct / 100))
    if error > MOST_ERROR or flips > max(1, MOST_FLIPS * apart.n):
        raise BackendError(
            f"{engine.name} is {100 * error:.1f} % off and changes the class of {flips} in "
            f"{apart.n} images",
            "use --teacher-engine torch",
        )
    return replace(engine, error=error, agreement_pct=apart.agreement_pct)


def _centred(logits: Tensor) -> Any:
    """Take off each image's mean, which softmax does not see."""
    return (logits - logits.mean(1, keepdim=True)).cpu().numpy()


def _race(engines: Mapping[str, Teacher], pixels: Tensor) -> dict[str, float]:
    """Return the time of a batch with a piece of training before it, in milliseconds, by engine.

    The piece is the same for all, so that what an engine's threads cost it is the engine's own. The
    least time counts: other programs on the machine can only add to it.
    """
    training = _training(pixels)
    times: dict[str, list[float]] = {name: [] for name in engines}
    end = time.perf_counter() + _RACE_S
    rounds = 0
    while rounds < _ROUNDS or time.perf_counter() < end:
        for name, engine in engines.items():
            times[name].append(_seconds(partial(_turn, training, engine, pixels), pixels.device))
        rounds += 1
    return {name: 1000 * min(seconds) for name, seconds in times.items()}


def _turn(training: Callable[[], None], engine: Teacher, pixels: Tensor) -> None:
    training()
    engine(pixels)


def _training(pixels: Tensor) -> Callable[[], None]:
    """Return a small piece of a student's step: two convolutions, forward and backward."""
    # The training that follows must not see that random numbers were drawn.
    with torch.random.fork_rng(devices=[]):
        first, second = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 16, 3, padding=1)
    layers = nn.Sequential(first, nn.ReLU(), second).to(pixels.device)

    def step() -> None:
        torch.autograd.backward(layers(pixels).square().mean())

    step()
    return step


def _seconds(call: Callable[[], Any], device: torch.device) -> float:
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _call_s(teacher: Teacher, pixels: Tensor) -> float:
    """Return the time of one batch, after one to warm up."""
    _seconds(lambda: teacher(pixels), pixels.device)
    return _seconds(lambda: teacher(pixels), pixels.device)


def _fastest(times: Mapping[str, float]) -> tuple[str, str]:
    """Return the fastest engine, or the first where none gains enough on it, and why."""
    first = next(iter(times))
    best = min(times, key=lambda name: times[name])
    gain = times[first] / times[best]
    if gain < _GAIN:
        return first, f"no other engine is {_GAIN:g} times as fast"
    return best, f"{gain:.2f} times as fast as {first}"
