"""What each tensor of a float ONNX file takes on the calibration images: extremes and histograms.

Which range is made of them lives in ``clipping.py``, and what is quantized in ``placement.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgexfer.core.errors import BackendError, QuantizerError, first_line
from edgexfer.quantize.calibration import Calibration

if TYPE_CHECKING:
    from onnx import ModelProto

Float = npt.NDArray[np.float32]
# Fine enough for a threshold to half a percent of the largest value, at 16 KB a tensor.
BINS = 2048


@dataclass(frozen=True)
class Extremes:
    """The smallest and largest value of a tensor; 0 lies between them, as every grid holds it."""

    low: float
    high: float


@dataclass(frozen=True)
class Histogram:
    """How often a tensor takes which values.

    Attributes:
        counts: of ``BINS`` bins of equal width, int64.
        extremes: ends of the first and the last bin.
    """

    counts: npt.NDArray[np.int64]
    extremes: Extremes

    def centres(self) -> npt.NDArray[np.float64]:
        """Return the middle of each bin."""
        width = (self.extremes.high - self.extremes.low) / len(self.counts)
        places = np.arange(len(self.counts), dtype=np.float64)
        return self.extremes.low + width * (places + 0.5)


def float_tensors(proto: ModelProto) -> list[str]:
    """Return the names of the float32 activations of a graph, its input first."""
    from onnx import TensorProto, shape_inference

    graph = shape_inference.infer_shapes(proto).graph
    infos = [*graph.input, *graph.value_info, *graph.output]
    floats = {i.name for i in infos if i.type.tensor_type.elem_type == TensorProto.FLOAT}
    named = [i.name for i in graph.input] + [name for n in graph.node for name in n.output]
    weights = {t.name for t in graph.initializer}
    return [name for name in dict.fromkeys(named) if name in floats - weights]


@dataclass(frozen=True)
class Observed:
    """What one pass over the calibration images gives.

    Attributes:
        ends: by tensor the smallest and the largest value on each image, float32 (images, 2).
        logits: of the float model, float32 (images, C); those of several tasks side by side.
    """

    ends: dict[str, Float]
    logits: Float


def extremes(model: Path, calibration: Calibration) -> dict[str, Extremes]:
    """Return the extremes of every float32 activation on all images; see ``observe``."""
    return {
        name: Extremes(min(float(ends[:, 0].min()), 0.0), max(float(ends[:, 1].max()), 0.0))
        for name, ends in observe(model, calibration).ends.items()
    }


def observe(model: Path, calibration: Calibration) -> Observed:
    """Run the calibration images once and see what every float32 activation takes on each.

    They go through in batches, as many as bound the memory, where each tensor says that its first
    dimension is the batch; else one by one.

    Args:
        model: float ONNX file with one input.
        calibration: the images.

    Raises:
        QuantizerError: ONNX Runtime cannot run the model.
        BackendError: a value is not finite.
    """
    import onnx

    proto = onnx.load(model)
    names = float_tensors(proto)
    answers = [names.index(output.name) for output in proto.graph.output]
    at_once = None if is_by_image(proto) else 1
    rows, logits = [], []
    for values in run_batches(with_outputs(proto, names), calibration, model.name, at_once):
        size = len(values[0])
        flat = [value.reshape(size, -1) for value in values]
        rows.append(np.array([(v.min(axis=1), v.max(axis=1)) for v in flat], np.float32))
        logits.append(np.concatenate([values[i] for i in answers], axis=1))
    pairs = np.concatenate(rows, axis=2)
    broken = ~np.isfinite(pairs).all(axis=(1, 2))
    if broken.any():
        raise BackendError(
            f"{model.name}: tensor {names[int(broken.argmax())]} is not finite on the calibration "
            "images",
            "train again with a smaller learning rate, or look for broken weights",
        )
    ends = {name: found.T for name, found in zip(names, pairs, strict=True)}
    return Observed(ends, np.concatenate(logits))


def is_by_image(proto: ModelProto) -> bool:
    """Tell whether the first dimension of all float32 tensors is that of the input, the batch."""
    from onnx import shape_inference

    names = float_tensors(proto)
    graph = shape_inference.infer_shapes(proto).graph
    infos = {i.name: i.type.tensor_type.shape for i in (*graph.value_info, *graph.output)}
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    inner = [infos[name].dim for name in names if name in infos]
    return bool(batch) and all(dim and dim[0].dim_param == batch for dim in inner)


def histograms(
    model: Path, calibration: Calibration, seen: Mapping[str, Extremes]
) -> dict[str, Histogram]:
    """Run the calibration images once more and count the values of each tensor.

    The ends are known by now, so that nothing is kept but the counts: whatever the number of
    images, memory holds the activations of one batch.

    Args:
        model: float ONNX file with one input.
        calibration: the images that ``seen`` is of.
        seen: the tensors, as ``extremes`` found them.

    Raises:
        QuantizerError: ONNX Runtime cannot run the model.
    """
    import onnx

    counts = {name: np.zeros(BINS, np.int64) for name in seen}
    for values in run_batches(with_outputs(onnx.load(model), list(seen)), calibration, model.name):
        for name, value in zip(seen, values, strict=True):
            counts[name] += _count(value, seen[name])
    return {name: Histogram(counts[name], ends) for name, ends in seen.items()}


def with_outputs(proto: ModelProto, names: Sequence[str]) -> ModelProto:
    """Return a copy of a graph that gives these tensors, in this order, instead of its outputs."""
    from onnx import ModelProto, TensorProto, helper

    copy = ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    given = {i.name for i in copy.graph.input}
    for name in names:
        made = name
        if name in given:  # an input cannot be an output as it is
            made = f"{name}_seen"
            copy.graph.node.append(helper.make_node("Identity", [name], [made]))
        copy.graph.output.append(helper.make_tensor_value_info(made, TensorProto.FLOAT, None))
    return copy


def run_batches(
    proto: ModelProto,
    calibration: Calibration,
    name: str,
    at_once: int | None = None,
    threads: int = 0,
) -> Iterator[list[Any]]:
    """Run a graph on all calibration images and yield the outputs of each batch.

    Args:
        proto: takes one input.
        calibration: the images.
        name: of the file, for errors.
        at_once: images in a batch; ``None`` takes as many as bound the memory.
        threads: of ONNX Runtime; 0 for all.

    Raises:
        QuantizerError: ONNX Runtime refuses the graph, or fails to run it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    # As the graph is written: what a fusion rounds otherwise would move a range by a bit.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        feed = session.get_inputs()[0].name
        for batch in calibration.batches(at_once):
            yield session.run(None, {feed: batch})
    except Exception as error:  # ONNX Runtime's classes share no base but this one
        raise cannot_quantize(name, error) from error


def cannot_quantize(name: str, error: Exception) -> QuantizerError:
    """Return the error of a file that ONNX Runtime fails on, in its own words."""
    return QuantizerError(
        f"{name}: ONNX Runtime cannot quantize it ({first_line(error)})",
        "export with --precision fp32, or choose another architecture",
    )


def _count(value: Float, ends: Extremes) -> npt.NDArray[np.int64]:
    reach = ends.high - ends.low
    if reach <= 0.0:
        return np.bincount([0], [value.size], BINS).astype(np.int64)
    places = ((value.ravel() - np.float32(ends.low)) * np.float32(BINS / reach)).astype(np.int32)
    # The largest value lies on the end of the last bin; another batch may round otherwise.
    return np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)
