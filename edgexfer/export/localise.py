"""Where a rung of the ladder broke: the first input or layer that is not what the model has there.

Asked only once a rung has failed. The model runs again on a few images with every value of every
operator kept, the failing file with every tensor as an output, and each tensor is held against the
model's values. Nothing is matched by name: exporters fold, fuse and rename. What is wrong with an
input is told in ``slips.py``; limits are in ``parity.py``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgexfer.bench.accuracy import predict
from edgexfer.bench.compare import ratio_db
from edgexfer.core.backend import TensorSpec
from edgexfer.core.bundle import Rung
from edgexfer.core.errors import first_line
from edgexfer.core.preprocess import Preprocess
from edgexfer.export.parity import Probe
from edgexfer.export.slips import explain_input
from edgexfer.models.normalise import PixelModel
from edgexfer.models.onnx import INPUT

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

Float32 = npt.NDArray[np.float32]

# Images times pixels: all values of all layers are kept at once.
_PIXELS = 8 * 96 * 96
_MOST_IMAGES = 8
# Quantization costs every layer some; what a layer loses from a ratio above this is no fault.
_QUANTIZED_DB = 25.0
# Below it an input is another one; equal inputs are equal to the bit.
_SAME_INPUT_DB = 100.0
_LOWEST_DB = -1000.0


@dataclass(frozen=True)
class Layer:
    """One operator of a file, with what it gave.

    Attributes:
        op: its type.
        name: of the node.
        module: the module of the model whose weight it holds; empty where it holds none.
        takes: names of the tensors that it takes, without constants.
        gives: name of the tensor that it gives.
        value: that tensor, (N, ...); ``None`` where it is not floating point.
    """

    op: str
    name: str
    module: str
    takes: tuple[str, ...]
    gives: str
    value: Float32 | None


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps what every operator of a model gives and every module with weights takes.

    Attributes:
        values: what was given, by the number of elements.
        taken: what each module took, by its name.
    """

    def __init__(self, model: nn.Module, inputs: torch.Tensor) -> None:
        """Run the model.

        Args:
            model: in eval mode, on the CPU.
            inputs: float32, (N, 3, H, W), normalised.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.values: dict[int, list[Float32]] = defaultdict(list)
        self.taken: dict[str, list[Float32]] = defaultdict(list)
        self._images = len(inputs)
        with torch.no_grad(), _hooked(model, self._take), self:
            model(inputs)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: D105
        out = func(*args, **(kwargs or {}))
        first: Any = next(iter(tree_leaves(out)), None)
        if _is_batch(first, self._images):
            # A copy, as the next operator may work in place.
            self.values[first.numel()].append(_copied(first))
        return out

    def nearest_db(self, value: Float32) -> float:
        """Return the ratio to the value that comes nearest, over those of as many elements."""
        found = self.values.get(value.size, [])
        return max((ratio_db(mine, value) for mine in found), default=_LOWEST_DB)

    def _take(self, name: str, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], torch.Tensor):
            self.taken[name].append(_copied(args[0]))


def localise(model: nn.Module, preprocess: Preprocess, probe: Probe, file: Path, rung: Rung) -> str:
    """Say where a failed rung differs first.

    Args:
        model: the trained model, in eval mode, on the CPU.
        preprocess: of the model's own card.
        probe: what the rung was fed with.
        file: what the rung ran.
        rung: that failed.

    Returns:
        A phrase such as ``first at Conv layer1.0.conv2 (node_Conv_142), 12.3 dB``.
    """
    count = _count(preprocess)
    gated = "drop_pt" in rung.limits
    # Calibration does not cover the synthetic images, so a gated rung does not count them.
    extra = probe.synthetic[:0] if gated else probe.synthetic[-count:]
    images = np.concatenate([probe.images[:count], extra])
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    wanted = PixelModel(model, preprocess).normalise(pixels).numpy()
    fed = predict(_Echo(), images, probe.preprocess)
    if ratio_db(wanted, fed) < _SAME_INPUT_DB:
        return f"the input differs: {explain_input(wanted, fed, images, preprocess)}"
    if file.suffix != ".onnx":
        return f"the input is right, {file.name} is not"
    try:
        trace = Trace(model, torch.from_numpy(wanted))
        layers = run_layers(file, wanted, dict(model.named_modules()))
    except Exception as error:  # a file that a runtime refuses node by node must not hide the rung
        return f"where is not known, as its layers cannot be run ({first_line(error)})"
    return _worst(trace, layers) if gated else _first(trace, layers, rung.limits["sqnr_db"])


def run_layers(file: Path, inputs: Float32, modules: dict[str, nn.Module]) -> list[Layer]:
    """Run an ONNX file without rewriting it, and return its operators in order.

    Operators on constants alone are left out.

    Args:
        file: of one input.
        inputs: what to feed.
        modules: of the model that the file was made from, by name.
    """
    import onnx
    import onnxruntime as ort

    proto: ModelProto = onnx.load(file)
    graph = proto.graph
    nodes = list(_live(graph))
    known = {item.name for item in graph.output}
    names = [node.output[0] for node in nodes]
    graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = dict(zip(names, session.run(names, {graph.input[0].name: inputs}), strict=True))
    live = {*names, graph.input[0].name}
    weights = _weights(graph)
    layers = []
    for node in nodes:
        found = values[node.output[0]]
        floating = np.issubdtype(found.dtype, np.floating)
        layers.append(
            Layer(
                op=str(node.op_type),
                name=str(node.name),
                module=_module(node, weights, modules),
                takes=tuple(name for name in node.input if name in live),
                gives=str(node.output[0]),
                value=found.astype(np.float32) if floating else None,
            )
        )
    return layers


def _first(trace: Trace, layers: list[Layer], limit: float) -> str:
    """Name the first layer that gives what the model has nowhere, or takes what it should not."""
    ratios = {x.gives: trace.nearest_db(x.value) for x in layers if x.value is not None}
    right = {name for name, ratio in ratios.items() if ratio >= limit}
    # An exporter may go another way to the same value: what leads to a right one is right.
    for layer in reversed(layers):
        if layer.gives in right:
            right.update(layer.takes)
    values = {x.gives: x.value for x in layers}
    makers = {x.gives: x for x in layers}
    for layer in layers:
        source = layer.takes[0] if layer.takes else ""
        taken = _taken_db(trace, layer, values.get(source))
        if source in makers and taken is not None and taken < limit:
            # It is right for some layer, but not for this one: the one between them is missing.
            return f"first at {_named(makers[source], layers)}, {_ratio(taken)}"
        if layer.gives not in right and layer.value is not None:
            return f"first at {_named(layer, layers)}, {_ratio(ratios[layer.gives])}"
    return "every layer is right when the file runs unoptimised"


def _worst(trace: Trace, layers: list[Layer]) -> str:
    """Name the layer of a quantized file that loses most against what it takes."""
    ratios: dict[str, float] = {}
    worst, most, before = None, 0.0, _QUANTIZED_DB
    for layer in layers:
        came = min((ratios.get(name, _QUANTIZED_DB) for name in layer.takes), default=_QUANTIZED_DB)
        came = min(came, _QUANTIZED_DB)
        if layer.value is None:
            ratios[layer.gives] = came
            continue
        ratios[layer.gives] = trace.nearest_db(layer.value)
        if came - ratios[layer.gives] > most:
            worst, most, before = layer, came - ratios[layer.gives], came
    if worst is None:
        return "no layer stands out: all of them lose a little"
    ratio = _ratio(ratios[worst.gives])
    return f"most is lost at {_named(worst, layers)}: {ratio}, {before:.0f} dB or more before it"


def _taken_db(trace: Trace, layer: Layer, value: Float32 | None) -> float | None:
    """Compare what a layer takes with what its module takes; ``None`` where nothing tells."""
    taken = trace.taken.get(layer.module, [])
    ratios = [
        ratio_db(mine, value) for mine in taken if value is not None and mine.size == value.size
    ]
    return max(ratios) if ratios else None


def _named(layer: Layer, layers: list[Layer]) -> str:
    """Name a layer by its module, or by the last one before it that has one."""
    node = f" ({layer.name})" if layer.name else ""
    if layer.module:
        return f"{layer.op} {layer.module}{node}"
    makers = {x.gives: x for x in layers}
    before, seen = [layer], {layer.gives}
    while before:
        this = before.pop(0)
        if this.module:
            return f"{layer.op} after {this.module}{node}"
        fresh = [name for name in this.takes if name in makers and name not in seen]
        seen.update(fresh)
        before += [makers[name] for name in fresh]
    return f"{layer.op} on the input{node}"


def _ratio(ratio: float) -> str:
    if ratio <= _LOWEST_DB:
        return "not comparable or not finite"
    return f"{ratio:.1f} dB"


def _live(graph: GraphProto) -> Iterator[NodeProto]:
    """Yield the nodes that depend on the input."""
    reached = {graph.input[0].name}
    for node in graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            yield node


def _weights(graph: GraphProto) -> dict[str, str]:
    """Return for each constant tensor the initialiser that it comes from, through Q/DQ nodes."""
    found = {tensor.name: tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.input and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def _module(node: NodeProto, weights: dict[str, str], modules: dict[str, nn.Module]) -> str:
    """Return the module whose weight a node takes: exporters keep its name."""
    for name in node.input[1:]:
        owner = weights.get(name, "").rpartition(".")[0]
        if owner in modules and owner:
            return owner
    return ""


def _count(preprocess: Preprocess) -> int:
    height, width = preprocess.size
    return max(2, min(_MOST_IMAGES, _PIXELS // (height * width)))


def _is_batch(value: Any, images: int) -> bool:
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return False
    return value.ndim > 0 and len(value) == images


def _copied(tensor: torch.Tensor) -> Float32:
    copied: Float32 = tensor.detach().float().clone().contiguous().numpy()
    return copied


@contextmanager
def _hooked(model: nn.Module, take: Any) -> Iterator[None]:
    """Call ``take`` with the name and the arguments of every module that has its own weights."""
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: take(name, args))
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Echo:
    """A session that gives back what it is fed with."""

    def __init__(self) -> None:
        self.inputs: tuple[TensorSpec, ...] = (TensorSpec(INPUT, (-1, 3, -1, -1), "float32"),)
        self.outputs: tuple[TensorSpec, ...] = self.inputs
        self.active: dict[str, Any] = {}

    def run(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the feed."""
        return dict(feed)

    def close(self) -> None:
        """Hold nothing, so let go of nothing."""
