"""Where TensorRT wants QuantizeLinear and DequantizeLinear nodes, and nothing else.

The rules (TensorRT developer guide, "Explicit Quantization"):

- every input of a weighted layer (Conv, ConvTranspose, Gemm, MatMul) is quantized, its output is
  not: what follows is fused into it at full precision;
- weights are int8 with a scale per channel, activations int8 with one scale; no zero points, and
  biases stay floating point;
- of the two branches that a residual addition takes, the convolution that it is fused into keeps
  its floating point output and the other branch is quantized;
- what a concatenation takes and gives shares one scale, so that the nodes may be moved across it;
  the same holds for operators that only move values.

Scales are made in ``clipping.py``. What ONNX Runtime's own kernels want is placed by its own
quantizer, see ``qdq.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgexfer.quantize.observe import float_tensors
from edgexfer.quantize.ranges import Range

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# What gives values that it takes, at other places.
MOVING = (
    "Concat",
    "Flatten",
    "Identity",
    "MaxPool",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
_LEVELS = 127


@dataclass(frozen=True)
class Plan:
    """What is to be quantized.

    Attributes:
        edges: the inputs, as (index of the node, index of its input), that are activations.
        groups: for each quantized activation the one whose scale it takes: the first of its group.
    """

    edges: tuple[tuple[int, int], ...]
    groups: dict[str, str]

    def members(self, leader: str) -> list[str]:
        """Return the activations that take the scale of one."""
        return [name for name, first in self.groups.items() if first == leader]


def plan(proto: ModelProto, float_nodes: Set[str] = frozenset()) -> Plan:
    """Say which activations of a float graph are quantized.

    Args:
        proto: the graph, with its nodes in order.
        float_nodes: names of nodes that stay floating point.
    """
    graph = proto.graph
    constants = _constants(proto)
    floats = set(float_tensors(proto)) - constants
    edges = []
    residual = dict(_residual_branches(proto))
    for at, node in enumerate(graph.node):
        if node.name in float_nodes:
            continue
        if node.op_type in WEIGHTED:
            wanted = [0, 1]
        elif at in residual:
            wanted = [residual[at]]
        else:
            continue
        edges += [(at, i) for i in wanted if node.input[i] in floats]
    groups = _Groups()
    for node in graph.node:
        if node.op_type in MOVING:
            taken = node.input if node.op_type == "Concat" else node.input[:1]
            for name in (*taken, *node.output):
                if name not in constants:
                    groups.join(node.output[0], name)
    leaders: dict[str, str] = {}
    found: dict[str, str] = {}
    for at, i in edges:
        name = graph.node[at].input[i]
        found[name] = leaders.setdefault(groups.root(name), name)
    return Plan(tuple(edges), found)


def place(
    proto: ModelProto,
    ranges: Mapping[str, Range],
    *,
    per_channel: bool = True,
    float_nodes: Set[str] = frozenset(),
) -> ModelProto:
    """Return a copy of a float graph with quantized inputs of weighted layers.

    The same graph and ranges give the same bytes.

    Args:
        proto: float32, with its nodes in order.
        ranges: of the activations, symmetric, by the name of the first of each group of ``plan``.
        per_channel: a scale for each output channel of a weight, else one for all.
        float_nodes: names of nodes that stay floating point.
    """
    from onnx import ModelProto, NodeProto, numpy_helper

    chosen = plan(proto, float_nodes)
    edges = set(chosen.edges)
    weights = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    writer = _Writer(ranges)
    for at, node in enumerate(proto.graph.node):
        copy = NodeProto()
        copy.CopyFrom(node)
        for i, name in enumerate(node.input):
            if (at, i) in edges:
                copy.input[i] = writer.activation(name, chosen.groups[name])
            elif name in weights and i in _weight_places(node) and node.name not in float_nodes:
                axis = weight_axis(node, i, weights[name].ndim) if per_channel else None
                copy.input[i] = writer.weight(name, weights[name], axis)
        writer.nodes.append(copy)
    made = ModelProto()
    made.CopyFrom(proto)
    used = {name for node in writer.nodes for name in node.input}
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    del made.graph.node[:], made.graph.initializer[:]
    made.graph.node.extend(writer.nodes)
    made.graph.initializer.extend([*kept, *writer.constants.values()])
    return made


def weight_scales(weight: npt.NDArray[Any], axis: int | None) -> npt.NDArray[np.float32]:
    """Return the symmetric scales of a weight; a channel of zeros gets 1.

    Args:
        weight: of any shape.
        axis: of its channels; ``None`` takes one scale for all.
    """
    others = tuple(i for i in range(weight.ndim) if axis is None or i != axis)
    reach = np.abs(weight).max(axis=others).astype(np.float64)
    scale = (reach / _LEVELS).astype(np.float32)
    return np.where(scale < np.finfo(np.float32).tiny, np.float32(1.0), scale)


@dataclass
class _Writer:
    """Collects the nodes and constants of a graph, each pair of nodes once.

    Attributes:
        ranges: of the activations.
        nodes: in order.
        constants: by name.
    """

    ranges: Mapping[str, Range]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    _done: dict[tuple[str, int | None], str] = field(default_factory=dict)

    def activation(self, name: str, leader: str) -> str:
        """Quantize an activation and return what it is dequantized to."""
        from onnx import helper

        if (name, None) not in self._done:
            self._constant(f"{leader}_scale", np.array(self.ranges[leader].scale, np.float32))
            self._constant(f"{leader}_zero_point", np.array(0, np.int8))
            taken = [name, f"{leader}_scale", f"{leader}_zero_point"]
            given = f"{name}_QuantizeLinear_Output"
            quantize = helper.make_node(
                "QuantizeLinear", taken, [given], name=f"{name}_QuantizeLinear"
            )
            self.nodes.append(quantize)
            self._done[name, None] = self._dequantize(name, [given, *taken[1:]], None)
        return self._done[name, None]

    def weight(self, name: str, values: npt.NDArray[Any], axis: int | None) -> str:
        """Keep a weight as int8 and return what it is dequantized to."""
        if (name, axis) not in self._done:
            # Layers that take one weight along different axes need it twice.
            own = name if f"{name}_quantized" not in self.constants else f"{name}_axis_{axis}"
            scale = weight_scales(values, axis)
            wide = [-1 if i == axis else 1 for i in range(values.ndim)]
            steps = np.round(values / scale.reshape(wide))
            integers = np.clip(steps, -_LEVELS, _LEVELS).astype(np.int8)
            self._constant(f"{own}_quantized", integers)
            self._constant(f"{own}_scale", scale)
            self._constant(f"{own}_zero_point", np.zeros(scale.shape, np.int8))
            taken = [f"{own}_{part}" for part in ("quantized", "scale", "zero_point")]
            self._done[name, axis] = self._dequantize(own, taken, axis)
        return self._done[name, axis]

    def _dequantize(self, name: str, taken: list[str], axis: int | None) -> str:
        from onnx import helper

        given = f"{name}_DequantizeLinear_Output"
        options = {} if axis is None else {"axis": axis}
        self.nodes.append(
            helper.make_node(
                "DequantizeLinear", taken, [given], name=f"{name}_DequantizeLinear", **options
            )
        )
        return given

    def _constant(self, name: str, values: npt.NDArray[Any]) -> None:
        from onnx import numpy_helper

        self.constants[name] = numpy_helper.from_array(values, name)


class _Groups:
    """Sets of tensors that share a scale, as a forest."""

    def __init__(self) -> None:
        """Begin with every tensor alone."""
        self._parents: dict[str, str] = {}

    def root(self, name: str) -> str:
        """Return the name that stands for a tensor's set."""
        while (parent := self._parents.get(name, name)) != name:
            name = parent
        return name

    def join(self, first: str, second: str) -> None:
        """Put the sets of two tensors together."""
        self._parents[self.root(second)] = self.root(first)


def _residual_branches(proto: ModelProto) -> Iterator[tuple[int, int]]:
    """Yield for each residual addition its place in the graph and the input to quantize."""
    graph = proto.graph
    constants = _constants(proto)
    takers = Counter(name for node in graph.node for name in node.input)
    takers.update(output.name for output in graph.output)
    made_at = {name: at for at, node in enumerate(graph.node) for name in node.output}

    def fused_at(name: str) -> int:
        """Return where the convolution stands that makes a tensor for one taker, else -1."""
        at = made_at.get(name, -1)
        alone = at >= 0 and takers[name] == 1
        return at if alone and graph.node[at].op_type in ("Conv", "ConvTranspose") else -1

    for at, node in enumerate(graph.node):
        if node.op_type != "Add" or constants & set(node.input):
            continue
        first, second = (fused_at(name) for name in node.input)
        if max(first, second) >= 0:
            # Of two convolutions the addition is fused into the one that comes last.
            yield at, 1 if first > second else 0


def _weight_places(node: NodeProto) -> tuple[int, ...]:
    """Return which inputs of a node are weights where they are constant."""
    if node.op_type == "MatMul":
        return (0, 1)
    return (1,) if node.op_type in WEIGHTED else ()


def weight_axis(node: NodeProto, place: int, ndim: int) -> int | None:
    """Return the axis of a weight that its layer's output channels lie along."""
    options = {a.name: a.i for a in node.attribute if a.name in ("transB", "group")}
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        # The output channels of a grouped one lie along two axes.
        return 1 if options.get("group", 1) == 1 else None
    if node.op_type == "Gemm":
        return 0 if options.get("transB", 0) else 1
    return ndim - 1 if place == 1 and ndim > 1 else None


def _constants(proto: ModelProto) -> set[str]:
    made = {node.output[0] for node in proto.graph.node if node.op_type == "Constant"}
    return made | {tensor.name for tensor in proto.graph.initializer}
