"""The ladder that INT8 climbs where plain calibration loses too much.

Its rungs, each tried only where those before it are not enough: another range of the activations;
equalised layers and corrected biases; the fewest nodes in float, unless half of them are not enough
either. Every try is judged on images that are neither calibrated with nor measured on; what the
measured ones say is the export's business.
"""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgexfer.core.explanation import Step, Verdict
from edgexfer.core.profile import HardwareProfile
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.clipping import METHODS, clip_all, within
from edgexfer.quantize.equalise import correct_biases, equalise
from edgexfer.quantize.nncf import Tuning, quantize_nncf
from edgexfer.quantize.observe import Extremes, extremes, histograms, observe
from edgexfer.quantize.qdq import SHARES, Placed, describe, write_qdq
from edgexfer.quantize.ranges import is_restricted
from edgexfer.quantize.sensitivity import EQUAL_DB, Sensitivity, measure_nodes

# What a try must gain over plain calibration where the judge lets that pass, as it may on other
# images than those that refused it. Three decibels are half of the noise.
_GAIN_DB = 3.0
# Images that each node is run with alone.
_SENSITIVITY_IMAGES = 32
# Where one of them is, NNCF's scheme for transformers may fit better.
_OF_TRANSFORMERS = {"LayerNormalization", "Softmax"}
# The two ranges of plain calibration, which takes the nearer one.
OF_ALL, OF_MOST = "min-max", f"{100 * min(SHARES):.0f} % of the images"

Judge = Callable[[Path], Verdict]
Tell = Callable[[Step], None]


@dataclass(frozen=True)
class Wanted:
    """What an INT8 is searched for.

    Attributes:
        model: FP32 ONNX with one input.
        profile: the target.
        calibration: the images.
        refused: range of the file that lost too much, ``OF_ALL`` or ``OF_MOST``. NNCF has but its
            own, which is the first that is tried.
    """

    model: Path
    profile: HardwareProfile
    calibration: Calibration
    refused: str = OF_ALL


@dataclass(frozen=True)
class Found:
    """What a search ends with.

    Attributes:
        scheme: in words, for the manifest.
        chosen: name of the step that was taken: the best attempt of the first rung that passed,
            otherwise the best of all.
        steps: all that was tried, in order.
        float_nodes: names of the nodes that stay floating point.
        in_vain: why nothing was enough; empty where something was.
    """

    scheme: str
    chosen: str
    steps: tuple[Step, ...]
    float_nodes: tuple[str, ...]
    in_vain: str = ""


def find_int8(wanted: Wanted, out: Path, judge: Judge, tell: Tell | None = None) -> Found:
    """Look for an INT8 file that loses less than plain calibration's.

    Args:
        wanted: for which model and target.
        out: file to write, the best that was found; an IR's weights go beside it.
        judge: compares a file with the FP32 model on images held out.
        tell: is told of every try as soon as it is judged.

    Raises:
        BackendError: the quantizer fails on the model.
    """
    with tempfile.TemporaryDirectory() as folder:
        kind = _NncfTries if wanted.profile.quantization.scheme == "nncf" else _QdqTries
        tries = kind(wanted, Path(folder), judge)
        tries.tell = tell
        chosen = tries.climb()
        for file in chosen.files:
            shutil.copyfile(file, out.with_suffix(file.suffix))
    steps = tuple(attempt.step for attempt in tries.attempts)
    words = f"{tries.scheme}, {chosen.step.name}"
    return Found(words, chosen.step.name, steps, chosen.way.tuning.float_nodes, tries.in_vain)


@dataclass(frozen=True)
class _Way:
    """How a file is made.

    Attributes:
        base: the float file.
        tuning: how its ranges are found, and which nodes are left in float.
        ends: the ranges; empty where the quantizer finds its own.
        of_most: the ranges hold the extremes of most images alone, whatever the tuning says.
    """

    base: Path
    tuning: Tuning = field(default_factory=Tuning)
    ends: Mapping[str, Extremes] = field(default_factory=dict)
    of_most: bool = False


@dataclass(frozen=True)
class _Attempt:
    """A file that was judged.

    Attributes:
        step: what the judge said.
        files: of the model; the first is what the runtime loads.
        way: how they were made.
    """

    step: Step
    files: tuple[Path, ...]
    way: _Way

    @property
    def merit(self) -> tuple[bool, bool, float, float, float]:
        """What the best has most of.

        Answers that are not like those of FP32 come after all that are, also where as many of them
        are right: on few images that is chance, and what is built on them is refused in the end.
        """
        verdict = self.step.verdict
        answers = verdict.agreement_pct, self.ratio_db
        return verdict.passed, verdict.alike, -verdict.drop_pt, *answers

    @property
    def ratio_db(self) -> float:
        """Signal-to-noise ratio of the logits, a number also where they are equal."""
        found = self.step.verdict.sqnr_db
        return EQUAL_DB if found is None else found


class _Tries(ABC):
    """What both quantizers' ladders share: keeping what was tried, and bisecting on the nodes.

    Attributes:
        attempts: in order; the first is plain calibration's, of all images.
        scheme: in words.
        tell: is told of every try.
        in_vain: why nothing was enough, once that is known.
    """

    scheme: str
    tell: Tell | None = None
    in_vain: str = ""

    def __init__(self, wanted: Wanted, folder: Path, judge: Judge) -> None:
        """Keep what tries are made from; ``folder`` is theirs."""
        self._model, self._profile = wanted.model, wanted.profile
        self._calibration, self._refused = wanted.calibration, wanted.refused
        self._folder, self._judge = folder, judge
        self.attempts: list[_Attempt] = []

    def climb(self) -> _Attempt:
        """Try rung after rung until one is good enough; return that, else the best of all."""
        for rung in self._rungs():
            rung()
            if len(self.attempts) > 1 and self._is_enough(self._best()):
                return self._best()
        return self._mix() or self._best()

    def _base(self) -> _Attempt:
        """Return the best to build upon, which may be the one that was refused."""
        return max(self.attempts[1:] or self.attempts, key=lambda attempt: attempt.merit)

    def _best(self) -> _Attempt:
        """Return the best of all but the one that was refused, which would be refused again."""
        others = [attempt for attempt in self.attempts if attempt is not self._plainest()]
        return max(others or self.attempts, key=lambda attempt: attempt.merit)

    def _plainest(self) -> _Attempt:
        """Return the attempt that was refused; before it is made, the first."""
        found = (attempt for attempt in self.attempts if attempt.step.name == self._refused)
        return next(found, self.attempts[0])

    @abstractmethod
    def _rungs(self) -> tuple[Callable[[], None], ...]:
        """Return the rungs, each of which tries something; the first is plain calibration."""

    @abstractmethod
    def _make(self, way: _Way) -> list[Path]:
        """Write one try and return its files."""

    @abstractmethod
    def _order(self, best: _Attempt) -> list[Sensitivity]:
        """Return the nodes, those first whose quantization costs most."""

    def _try(self, name: str, way: _Way) -> _Attempt:
        files = self._make(way)
        step = Step(name, self._judge(files[0]))
        if self.tell is not None:
            self.tell(step)
        self.attempts.append(_Attempt(step, tuple(files), way))
        return self.attempts[-1]

    def _is_enough(self, attempt: _Attempt) -> bool:
        if not attempt.step.verdict.passed:
            return False
        plain = self._plainest().step.verdict
        if not plain.passed:
            return True
        return plain.sqnr_db is not None and attempt.ratio_db >= plain.sqnr_db + _GAIN_DB

    def _mix(self) -> _Attempt | None:
        """Bisect for the fewest nodes in float, the most sensitive first, that are enough.

        With more than half of them in float there is little left of INT8; where the half is not
        enough, fewer are not tried.
        """
        best = self._base()
        order = [found.node for found in self._order(best)]
        most = len(order) // 2
        low, high = 1, most
        enough = self._in_float(best, order, most) if most else None
        if enough is None:
            self.in_vain = f"not even {most} of {len(order)} nodes in float were enough"
        while enough is not None and low < high:
            count = (low + high) // 2
            fewer = self._in_float(best, order, count)
            if fewer is None:
                low = count + 1
            else:
                enough, high = fewer, count
        return enough

    def _in_float(self, best: _Attempt, order: Sequence[str], count: int) -> _Attempt | None:
        """Try the best with the first nodes in float; return it where it is enough."""
        name = f"{best.step.name}, {count} node{'s' if count > 1 else ''} in float"
        tuning = replace(best.way.tuning, float_nodes=tuple(order[:count]))
        attempt = self._try(name, replace(best.way, tuning=tuning))
        return attempt if self._is_enough(attempt) else None


class _QdqTries(_Tries):
    """Q/DQ files."""

    def _rungs(self) -> tuple[Callable[[], None], ...]:
        scheme = self._profile.quantization
        self.scheme = describe(scheme, restricted=is_restricted(self._profile))
        return self._plain, self._methods, self._rewrite

    def _plain(self) -> None:
        self._seen = extremes(self._model, self._calibration)
        self._try(OF_ALL, _Way(self._model, ends=self._seen))

    def _methods(self) -> None:
        seen = histograms(self._model, self._calibration, self._seen)
        for method in METHODS[1:]:
            ends = clip_all(seen, method, self._profile.quantization)
            self._try(method, _Way(self._model, Tuning(method), ends))
        most = _Way(self._model, of_most=True)
        self._try(OF_MOST, replace(most, ends=self._ends(most)))

    def _rewrite(self) -> None:
        """Equalise the layers, then correct the biases of what came out best."""
        best = self._base()
        equalised = self._folder / "equalised.onnx"
        if equalise(self._model, equalised):
            way = replace(best.way, base=equalised)
            self._try(f"{best.step.name}, equalised", replace(way, ends=self._ends(way)))
            best = self._base()
        corrected = self._folder / "corrected.onnx"
        correct_biases(best.way.base, self._whole(best.way), corrected, self._calibration)
        self._try(f"{best.step.name}, biases corrected", replace(best.way, base=corrected))

    def _ends(self, way: _Way) -> Mapping[str, Extremes]:
        """Find the ranges anew, as where the file is another."""
        if way.of_most:
            return within(observe(way.base, self._calibration).ends, min(SHARES))
        seen = histograms(way.base, self._calibration, extremes(way.base, self._calibration))
        return clip_all(seen, way.tuning.method, self._profile.quantization)

    def _order(self, best: _Attempt) -> list[Sensitivity]:
        images = first_images(self._calibration)
        return measure_nodes(self._whole(best.way), best.way.base, images)

    def _make(self, way: _Way) -> list[Path]:
        out = self._folder / f"try-{len(self.attempts)}.onnx"
        self._write(way, out, whole=False)
        return [out]

    def _whole(self, way: _Way) -> Path:
        """Write the file with every node quantized, to measure nodes by."""
        out = self._folder / f"try-{len(self.attempts)}-whole.onnx"
        self._write(way, out, whole=True)
        return out

    def _write(self, way: _Way, out: Path, *, whole: bool) -> None:
        scheme, restricted = self._profile.quantization, is_restricted(self._profile)
        nodes = frozenset(way.tuning.float_nodes)
        write_qdq(way.base, out, way.ends, Placed(scheme, restricted, nodes, whole))


class _NncfTries(_Tries):
    """IRs of OpenVINO; which nodes are sensitive is measured on a Q/DQ file of the same scheme.

    NNCF corrects biases in every try. Its slower correction, layer by layer on the quantized model,
    is no rung: on three students it moved the logits by less than 0.1 dB, at twice the time.
    """

    def _rungs(self) -> tuple[Callable[[], None], ...]:
        return self._plain, self._as_transformer, self._methods, self._equalised

    def _plain(self) -> None:
        self._try("nncf's own ranges", _Way(self._model))

    def _as_transformer(self) -> None:
        import onnx

        operators = {node.op_type for node in onnx.load(self._model).graph.node}
        if _OF_TRANSFORMERS & operators:
            self._try("as a transformer", _Way(self._model, Tuning(transformer=True)))

    def _methods(self) -> None:
        way = max(self.attempts, key=lambda attempt: attempt.merit).way
        for method in ("mse", "percentile-99.99"):
            name = f"as a transformer, {method}" if way.tuning.transformer else method
            self._try(name, replace(way, tuning=replace(way.tuning, method=method)))

    def _equalised(self) -> None:
        best, equalised = self._base(), self._folder / "equalised.onnx"
        if equalise(self._model, equalised):
            self._try(f"{best.step.name}, equalised", replace(best.way, base=equalised))

    def _order(self, best: _Attempt) -> list[Sensitivity]:
        base, whole = best.way.base, self._folder / "whole.onnx"
        placed = Placed(self._profile.quantization, restricted=False, whole=True)
        write_qdq(base, whole, extremes(base, self._calibration), placed)
        return measure_nodes(whole, base, first_images(self._calibration))

    def _make(self, way: _Way) -> list[Path]:
        out = self._folder / f"try-{len(self.attempts)}.xml"
        scheme = self._profile.quantization
        self.scheme = quantize_nncf(way.base, out, self._calibration, scheme, way.tuning)
        return [out, out.with_suffix(".bin")]


def first_images(calibration: Calibration) -> Calibration:
    """Return as many images as one node is measured on, spread over all."""
    step = max(1, len(calibration) // _SENSITIVITY_IMAGES)
    kept = slice(0, step * _SENSITIVITY_IMAGES, step)
    return replace(calibration, images=calibration.images[kept], keys=calibration.keys[kept])
