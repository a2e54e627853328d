"""The parity ladder: each hop of an export compared with the one before, and what it must meet.

Both ends of a hop are fed on their own path. The reference is the trainer's ``PixelModel``; the
artefact is fed as a device feeds it, by ``bench``. A wrong mean or swapped channels therefore show
as a difference, as a broken layer does. What is made and loaded lives in the other files.

Limits, and why they are such:

- torch to ONNX, both FP32: 100 dB, or 1e-5 of the largest output. What is left is the order of
  sums; 118 to 127 dB were measured.
- FP32 in another runtime: 60 dB. Its kernels may fuse and transform (Winograd) at will, which
  costs 10 to 40 dB; half precision taken in silence gives 35 dB and fails.
- FP16: 45 dB and 99 % agreement. Its significand has 11 bits; 53 to 61 dB were measured. The
  synthetic images must agree and be finite, so that an overflow shows; their ratio says nothing: on
  a checkerboard, which no training has seen, a sound mobilenetv3_small_100 is 22 dB off.
- BF16: accuracy decides, as with INT8. Its significand has 8 bits; 34 to 36 dB and 98.4 to 99.2 %
  agreement were measured on nets of a few epochs, so below 30 dB or 98 % is a note, and below
  20 dB or 90 % it is broken.
- INT8: accuracy decides, by the drop that the user allows. The ratio alone cannot: nets of a
  few epochs gave 9 to 16 dB at unchanged accuracy. So below 20 dB or 98 % agreement is a note;
  below 5 dB or 80 % the artefact is broken or fed wrongly, whatever its accuracy, and another is
  searched for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgexfer.bench.accuracy import predict, predict_apart
from edgexfer.bench.compare import compare
from edgexfer.bench.tasks import answers, marks, right
from edgexfer.core.backend import Session, lanes
from edgexfer.core.bundle import Rung
from edgexfer.core.errors import ParityError
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.stats import PairedDrop, images_needed, paired_drop
from edgexfer.core.tasks import Task, spans
from edgexfer.models.normalise import PixelModel

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]

EXACT = {"sqnr_db": 100.0, "max_abs": 1e-5, "agreement_pct": 100.0}
RUNTIME = {"sqnr_db": 60.0, "agreement_pct": 99.0}
HALF = {"sqnr_db": 45.0, "agreement_pct": 99.0}
INT8 = {"sqnr_db": 5.0, "agreement_pct": 80.0}
INT8_USUAL = {"sqnr_db": 20.0, "agreement_pct": 98.0}
BF16 = {"sqnr_db": 20.0, "agreement_pct": 90.0}
BF16_USUAL = {"sqnr_db": 30.0, "agreement_pct": 98.0}
# Two classes nearer than this share of the largest output are a tie, which rounding may turn.
_TIE = 1e-5
# 1 - 0.99 is more than 0.01 in floating point.
_ROUNDING_PT = 1e-9
# Images that the trainer's model gets at once; it bounds memory whatever their size.
_PIXELS_AT_ONCE = 32 * 128 * 128


@dataclass(frozen=True)
class Probe:
    """What every hop is fed with.

    Attributes:
        images: the bundle's evaluation images, uint8 (N, H, W, 3), RGB; artefacts get them one by
            one, as a benchmark feeds them.
        labels: their classes, int64 (N,), or of several tasks (N, tasks).
        synthetic: images at the ends of the range, of the same kind; artefacts get them at once,
            so that both a batch of one and a larger one are tried.
        preprocess: the model's, as the bundle will carry it.
        tasks: what its outputs are about, where that is more than one question.
    """

    images: UInt8
    labels: npt.NDArray[np.int64]
    synthetic: UInt8
    preprocess: Preprocess
    tasks: tuple[Task, ...] = ()

    def spread(self, n: int) -> npt.NDArray[np.int64]:
        """Return the places of so many evaluation images, or of all, spread over all."""
        return np.linspace(0, len(self.images) - 1, min(n, len(self.images))).astype(np.int64)

    def at(self, places: npt.NDArray[np.int64]) -> Probe:
        """Return the same with these evaluation images alone."""
        return replace(self, images=self.images[places], labels=self.labels[places])


@dataclass(frozen=True)
class Logits:
    """What one hop gave for a probe.

    Attributes:
        real: for the evaluation images, (N, C).
        synthetic: for the synthetic ones.
        tasks: what they are about, where that is more than one question.
    """

    real: Float32
    synthetic: Float32
    tasks: tuple[Task, ...] = ()

    def at(self, places: npt.NDArray[np.int64]) -> Logits:
        """Return the same for these evaluation images alone."""
        return replace(self, real=self.real[places])

    def all(self) -> Float32:
        """Return both, the real ones first."""
        return np.concatenate([self.real, self.synthetic])


def synthetic_images(size: tuple[int, int]) -> UInt8:
    """Return eight images at the ends of what a camera can give, uint8 (8, H, W, 3).

    Black, almost black, white, grey, one pure channel each side of a line, a checkerboard, a ramp
    and seeded noise.
    """
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width]
    images = np.zeros((8, height, width, 3), np.uint8)
    images[1] = 1
    images[2] = 255
    images[3] = 127
    images[4, :, : width // 2, 0] = images[4, :, width // 2 :, 2] = 255
    images[5] = (255 * ((rows + columns) % 2))[..., None]
    images[6] = np.linspace(0, 255, width).astype(np.uint8)[None, :, None]
    images[7] = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return images


def reference_logits(model: nn.Module, preprocess: Preprocess, probe: Probe) -> Logits:
    """Run the trained model as its trainer does, in FP32 on the CPU.

    Args:
        model: in eval mode, on the CPU.
        preprocess: of the model's own card, not of what is exported.
        probe: the images.
    """
    # On a copy: the exporters are to see the weights in the order that they have.
    fed = PixelModel(copy.deepcopy(model), preprocess).eval().to(memory_format=torch.channels_last)
    height, width = preprocess.size
    batch = max(1, _PIXELS_AT_ONCE // (height * width))

    def run(images: UInt8) -> Float32:
        parts = []
        for start in range(0, len(images), batch):
            # Seen as NCHW, these bytes already lie in the channels-last order that CPUs like best.
            pixels = torch.from_numpy(images[start : start + batch]).permute(0, 3, 1, 2)
            parts.append(fed(pixels).float().numpy())
        return np.concatenate(parts)

    with torch.inference_mode():
        return Logits(run(probe.images), run(probe.synthetic), probe.tasks)


def session_logits(session: Session, probe: Probe, streams: int = 1) -> Logits:
    """Run a loaded artefact as a device feeds it, several calls at the same time if it can."""
    return Logits(
        predict_apart(lanes(session, streams), probe.images, probe.preprocess),
        predict(session, probe.synthetic, probe.preprocess, batch=len(probe.synthetic)),
        probe.tasks,
    )


def float_rung(
    name: str, against: str, reference: Logits, found: Logits, limits: dict[str, float]
) -> Rung:
    """Compare two hops that should be equal but for rounding.

    Args:
        name: of the hop.
        against: of the hop before it.
        reference: what the hop before gave.
        found: what this hop gave.
        limits: ``EXACT``, ``RUNTIME`` or ``HALF``.
    """
    y, other = reference.all(), found.all()
    difference = compare(y, other, reference.tasks)
    largest = max(1.0, float(np.abs(y).max()))
    near = difference.at_least(limits["sqnr_db"])
    if "max_abs" in limits:
        near = near or difference.max_abs <= limits["max_abs"] * largest
    agreement = _agreement_pct(y, other, _TIE * largest, reference.tasks)
    return Rung(
        name=name,
        against=against,
        n=difference.n,
        sqnr_db=difference.sqnr_db,
        max_abs=difference.max_abs,
        agreement_pct=agreement,
        passed=near and agreement >= limits["agreement_pct"],
        limits=dict(limits),
    )


def half_rung(name: str, reference: Logits, found: Logits) -> Rung:
    """Compare an FP16 hop with FP32: by the evaluation images; on the synthetic ones it must agree.

    Args:
        name: of the hop.
        reference: what FP32 gave.
        found: what FP16 gave.
    """
    whole = float_rung(name, "torch fp32", reference, found, HALF)
    real = compare(reference.real, found.real, reference.tasks)
    return replace(
        whole,
        n=real.n,
        sqnr_db=real.sqnr_db,
        max_abs=real.max_abs,
        passed=real.at_least(HALF["sqnr_db"])
        and whole.agreement_pct >= HALF["agreement_pct"]
        and bool(np.isfinite(found.synthetic).all()),
    )


def with_accuracy(rung: Rung, probe: Probe, reference: Logits, found: Logits) -> Rung:
    """Add to a rung the accuracy on the evaluation images, and the drop with its interval."""
    drop, _ = worst_drop(reference.real, found.real, probe.labels, probe.tasks)
    return _with_drop(rung, probe, found, drop)


def _with_drop(rung: Rung, probe: Probe, found: Logits, drop: PairedDrop) -> Rung:
    return replace(
        rung,
        top1_pct=100.0 * float(np.mean(right(found.real, probe.labels, probe.tasks))),
        drop_pt=drop.drop_pt,
        drop_low_pt=drop.low_pt,
        drop_high_pt=drop.high_pt,
    )


def int8_rung(name: str, probe: Probe, reference: Logits, found: Logits, max_drop: float) -> Rung:
    """Compare an INT8 hop with FP32: accuracy decides, and broken artefacts are told apart.

    Only the evaluation images count; no calibration covers the synthetic ones, which must just
    give finite outputs.

    Args:
        name: of the hop.
        probe: the images.
        reference: what FP32 gave.
        found: what INT8 gave.
        max_drop: most accuracy that may be lost, in points.
    """
    limits = {**INT8, "drop_pt": max_drop}
    return _gated(name, probe, reference, found, limits, INT8_USUAL)


def bf16_rung(name: str, probe: Probe, reference: Logits, found: Logits, max_drop: float) -> Rung:
    """Compare a BF16 hop with FP32, as ``int8_rung`` does, within limits of its own."""
    limits = {**BF16, "drop_pt": max_drop}
    return _gated(name, probe, reference, found, limits, BF16_USUAL)


def _gated(
    name: str,
    probe: Probe,
    reference: Logits,
    found: Logits,
    limits: dict[str, float],
    usual: dict[str, float],
) -> Rung:
    max_drop = limits["drop_pt"]
    difference = compare(reference.real, found.real, probe.tasks)
    drop, task = worst_drop(reference.real, found.real, probe.labels, probe.tasks)
    notes = [f"task {task} loses most"] if task is not None and drop.drop_pt > 0 else []
    if not difference.at_least(usual["sqnr_db"]):
        notes.append(f"SQNR {difference.sqnr_db:.1f} dB, {usual['sqnr_db']:.0f} dB are usual")
    if difference.agreement_pct < usual["agreement_pct"]:
        notes.append(
            f"agrees on {difference.agreement_pct:.1f} % of the images, "
            f"{usual['agreement_pct']:.0f} % are usual"
        )
    allowed = drop.drop_pt <= max_drop + _ROUNDING_PT
    if allowed and drop.high_pt > max_drop:
        notes.append(_undecided(drop, max_drop))
    sound = (
        difference.at_least(limits["sqnr_db"])
        and difference.agreement_pct >= limits["agreement_pct"]
        and bool(np.isfinite(found.synthetic).all())
    )
    rung = Rung(
        name=name,
        against="torch fp32",
        n=difference.n,
        sqnr_db=difference.sqnr_db,
        max_abs=difference.max_abs,
        agreement_pct=difference.agreement_pct,
        passed=sound and allowed,
        limits=limits,
        notes=tuple(notes),
    )
    return _with_drop(rung, probe, found, drop)


def require(
    rung: Rung,
    *,
    quantized: bool = True,
    trainable_for: str | None = None,
    where: Callable[[Rung], str] | None = None,
) -> Rung:
    """Return a rung that passed.

    Args:
        rung: a hop that was compared.
        quantized: whether calibration images made it, more of which the mend then offers.
        trainable_for: the target whose INT8 a student can be trained for, which the mend then
            offers; ``None`` where it cannot.
        where: says of a failed rung where it differs first; not asked of one that passed.

    Raises:
        ParityError: it did not; with the rung, what was measured, the limits and the mend.
    """
    if rung.passed:
        return rung
    place = f"; {where(rung)}" if where is not None else ""
    limit = rung.limits.get("drop_pt")
    offer = f"distil with --qat-for {trainable_for}, " if trainable_for else ""
    if quantized:
        offer += "calibrate with more images (--calibration-images), "
    if limit is not None and rung.drop_pt is not None and rung.drop_pt > limit + _ROUNDING_PT:
        raise ParityError(
            f"parity: {rung.name} loses {rung.drop_pt:.2f} points of top-1 accuracy "
            f"(95 % interval {rung.drop_low_pt:.2f} to {rung.drop_high_pt:.2f}, n={rung.n}), "
            f"the limit is {limit:g}{place}",
            f"{offer}allow more (--max-drop), or export with --precision fp32",
        )
    sqnr = "equal" if rung.sqnr_db is None else f"{rung.sqnr_db:.1f} dB"
    limits = ", ".join(f"{key} {value:g}" for key, value in rung.limits.items() if key != "drop_pt")
    if limit is not None:
        fix = f"{offer}export with --precision fp32"
    else:
        fix = "choose another architecture or target, and report this one with the model's name"
    raise ParityError(
        f"parity: {rung.name} differs from {rung.against}: {sqnr}, largest difference "
        f"{rung.max_abs:.3g}, agreement {rung.agreement_pct:.1f} %, n={rung.n} (limits: {limits})"
        f"{place}",
        fix,
    )


def worst_drop(
    reference: Float32, found: Float32, labels: npt.NDArray[np.int64], tasks: tuple[Task, ...]
) -> tuple[PairedDrop, str | None]:
    """Return the accuracy lost, of several tasks by that which loses most, with its name.

    Args:
        reference: logits (N, C).
        found: likewise.
        labels: int64, (N,), or of several tasks (N, tasks), -1 for none.
        tasks: of the model; empty for one.
    """
    before, known = marks(reference, labels, tasks)
    after, _ = marks(found, labels, tasks)
    drops = [
        (paired_drop(a[k].tolist(), b[k].tolist()), tasks[t].name if tasks else None)
        for t, (a, b, k) in enumerate(zip(before.T, after.T, known.T, strict=True))
        if k.any()
    ]
    return max(drops, key=lambda item: item[0].drop_pt)


def _agreement_pct(y: Float32, other: Float32, tie: float, tasks: tuple[Task, ...]) -> float:
    """Return the share of images with the same top-1 class, where a tie may go either way."""
    chosen = answers(other, tasks)
    parts = zip(chosen.T, spans(tasks, y.shape[1]), strict=True)
    behind = np.max(
        [y[:, a:b].max(axis=1) - y[np.arange(len(y)), best] for best, (a, b) in parts], axis=0
    )
    finite = np.isfinite(y).all(axis=1) & np.isfinite(other).all(axis=1)
    return 100.0 * float(np.mean(finite & (behind <= tie)))


def _undecided(drop: PairedDrop, max_drop: float) -> str:
    needed = images_needed(drop, max_drop)
    if needed is None:
        return "drop undecidable: it stands at the limit itself"
    return f"drop undecidable with {drop.n} images: about {needed} are needed"
