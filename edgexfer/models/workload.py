"""What an ONNX graph asks of a machine: multiply-accumulates and sizes, node by node.

Shapes alone are read, never weights, so that a file whose weights lie beside it needs none of them.
What a machine makes of it is in ``roofline.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgexfer.core.errors import ModelError, first_line

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Size:
    """How large tensors are, whatever precision their floating-point numbers will have.

    Attributes:
        floats: floating-point numbers, which a target may store in fewer bytes.
        others: bytes of all else, such as weights that are INT8 already.
    """

    floats: int = 0
    others: int = 0

    def __add__(self, other: Size) -> Size:
        """Return the size of both."""
        return Size(self.floats + other.floats, self.others + other.others)

    def __sub__(self, other: Size) -> Size:
        """Return what is left without the other."""
        return Size(self.floats - other.floats, self.others - other.others)

    def bytes(self, width: int) -> int:
        """Return the bytes with floating-point numbers of ``width`` bytes."""
        return self.floats * width + self.others


@dataclass(frozen=True)
class Node:
    """One node that runs; what is computed from constants alone is done when a model is loaded.

    Attributes:
        name: of its first output.
        op_type: its operator.
        macs: multiply-accumulates; 0 for operators that are not counted.
        weights: of the constants that it reads.
        activations: of the tensors that it reads and writes.
        live: of all activations that exist while it runs.
    """

    name: str
    op_type: str
    macs: int
    weights: Size
    activations: Size
    live: Size


@dataclass(frozen=True)
class Workload:
    """A graph as a sum of its nodes.

    Attributes:
        batch: images at once.
        nodes: in their order.
        weights: all constants that nodes read, each once.
        kernels: those of them that are multiplied, by nodes with ``macs``.
        uncounted: operators with multiplications that are not counted, which leaves bounds valid.
    """

    batch: int
    nodes: tuple[Node, ...]
    weights: Size
    kernels: Size
    uncounted: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all nodes."""
        return sum(node.macs for node in self.nodes)

    def peak_live_bytes(self, width: int) -> int:
        """Return the most bytes that activations take at one time, layer by layer."""
        return max((node.live.bytes(width) for node in self.nodes), default=0)


# Operators whose result may take the place of their first input.
_IN_PLACE = (
    *("Add", "BatchNormalization", "Cast", "Clip", "DequantizeLinear", "Div", "Dropout", "Elu"),
    *("Erf", "Exp", "Flatten", "Gelu", "HardSigmoid", "HardSwish", "Identity"),
    *("LayerNormalization", "LeakyRelu", "Mish", "Mul", "Neg", "Pow", "QuantizeLinear"),
    *("Reciprocal", "Relu", "Reshape", "Selu", "Sigmoid", "Softmax", "Softplus", "Sqrt"),
    *("Squeeze", "Sub", "Swish", "Tanh", "Unsqueeze"),
)
_UNCOUNTED = ("Attention", "DeformConv", "Einsum", "GRU", "If", "LSTM", "Loop", "RNN", "Scan")


def read_workload(path: Path, *, batch: int = 1) -> Workload:
    """Count the work of an ONNX file; see ``count_workload``.

    Raises:
        ModelError: it is not an ONNX file, or its sizes are not fixed.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError as fault:
        raise ModelError(f"{path}: no such file", "check the path") from fault
    except (DecodeError, OSError) as fault:
        raise ModelError(f"{path}: is not an ONNX file", "name a file that export wrote") from fault
    return count_workload(model, batch=batch, where=str(path))


def count_workload(model: ModelProto, *, batch: int = 1, where: str = "model") -> Workload:
    """Count multiply-accumulates, weights and activations of a graph.

    Convolutions and matrix products are counted as they are written; element-wise work is not.

    Args:
        model: its weights may be elsewhere.
        batch: size of the first dimension of its inputs, where that is free.
        where: opens the text of an error.

    Raises:
        ModelError: the graph is empty, or a tensor's shape cannot be told.
    """
    graph = _Graph(model, batch, where)
    constants = set(graph.initialisers)
    running: list[NodeProto] = []
    for node in model.graph.node:
        if all(name in constants for name in node.input if name):
            constants.update(node.output)
        else:
            running.append(node)
    if not running:
        raise ModelError(f"{where}: its graph computes nothing", "name a file that export wrote")
    live = _live_sizes(running, graph, constants)
    nodes, weights, kernels = [], set[str](), set[str]()
    for node, size in zip(running, live, strict=True):
        macs = _macs(node, graph)
        read = {name for name in node.input if name in constants}
        weights |= read
        kernels |= read if macs else set()
        dynamic = [name for name in (*node.input, *node.output) if name and name not in read]
        nodes.append(
            Node(
                next((name for name in node.output if name), node.name),
                node.op_type,
                macs,
                graph.size_of(read),
                graph.size_of(dynamic),
                size,
            )
        )
    return Workload(
        graph.batch,
        tuple(nodes),
        graph.size_of(weights),
        graph.size_of(kernels),
        tuple(sorted({n.op_type for n in running if n.domain or n.op_type in _UNCOUNTED})),
    )


class _Graph:
    """The shapes of a graph whose batch is fixed."""

    def __init__(self, model: ModelProto, batch: int, where: str) -> None:
        import onnx

        fixed = onnx.ModelProto()
        fixed.CopyFrom(model)
        self._where = where
        self.initialisers = {tensor.name for tensor in model.graph.initializer}
        self.inputs = [i.name for i in model.graph.input if i.name not in self.initialisers]
        for value in fixed.graph.input:
            dims = value.type.tensor_type.shape.dim
            if value.name in self.inputs and dims and dims[0].dim_value <= 0:
                dims[0].dim_value = batch
        # What the exporter noted may hold the name of the batch; all of it follows from the inputs.
        fixed.graph.ClearField("value_info")
        for value in fixed.graph.output:
            value.type.tensor_type.ClearField("shape")
        try:
            known = onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True).graph
        except (onnx.shape_inference.InferenceError, RuntimeError) as fault:
            reason = first_line(fault)
            fix = "name a file that export wrote"
            raise ModelError(
                f"{where}: its shapes contradict each other ({reason})", fix
            ) from fault
        self._types = {v.name: v.type for v in (*known.input, *known.value_info, *known.output)}
        self._tensors = {t.name: (tuple(t.dims), t.data_type) for t in known.initializer}
        self.outputs = [value.name for value in model.graph.output]
        self.batch = self.shape(self.inputs[0])[0] if self.inputs else batch

    def shape(self, name: str) -> Shape:
        """Return a tensor's shape, or refuse the file."""
        return self._tensor(name)[0]

    def size_of(self, names: Any) -> Size:
        """Return the size of several tensors; optional ones that are absent have none."""
        return sum((self._size(name) for name in names if name), Size())

    def _size(self, name: str) -> Size:
        from onnx import TensorProto, helper

        shape, kind = self._tensor(name)
        count = math.prod(shape)
        if kind in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16):
            return Size(floats=count)
        return Size(others=count * helper.tensor_dtype_to_np_dtype(kind).itemsize)

    def _tensor(self, name: str) -> tuple[Shape, int]:
        if name in self._tensors:
            return self._tensors[name]
        kind = self._types[name].tensor_type if name in self._types else None
        if kind is None or not kind.HasField("shape"):
            raise ModelError(
                f"{self._where}: the shape of {name!r} cannot be told",
                "name a file of standard operators",
            )
        dims = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
        if any(dim < 0 for dim in dims):
            raise ModelError(
                f"{self._where}: the size of {name!r} is not fixed ({_written(kind)})",
                "export with a fixed size; the batch alone may be free",
            )
        return dims, kind.elem_type


def _written(kind: Any) -> str:
    return " x ".join(
        str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in kind.shape.dim
    )


def _live_sizes(running: list[NodeProto], graph: _Graph, constants: set[str]) -> list[Size]:
    """Walk the nodes in order and return what is alive while each runs.

    A tensor lives from the node that writes it to the last that reads it; inputs live from the
    start, outputs to the end. An element-wise result takes the place of an input that dies.
    """
    last: dict[str, int] = dict.fromkeys(graph.inputs, -1)
    for index, node in enumerate(running):
        last.update({name: index for name in (*node.input, *node.output) if name})
    last.update(dict.fromkeys(graph.outputs, len(running)))
    alive = graph.size_of(graph.inputs)
    sizes = []
    for index, node in enumerate(running):
        made = graph.size_of(node.output)
        dying = {n for n in node.input if n and n not in constants and last[n] == index}
        first = node.input[0] if node.input else ""
        replaced = Size()
        if node.op_type in _IN_PLACE and first in dying:
            whole = graph.size_of([first])
            replaced = Size(min(whole.floats, made.floats), min(whole.others, made.others))
        sizes.append(alive + made - replaced)
        unread = {n for n in node.output if n and last[n] == index}
        alive = alive + made - graph.size_of(dying | unread)
    return sizes


def _macs(node: NodeProto, graph: _Graph) -> int:
    counter = _COUNTERS.get(node.op_type)
    return counter(node, graph) if counter is not None and not node.domain else 0


def _conv(node: NodeProto, graph: _Graph) -> int:
    """Count output values times the weights of one output channel: channels per group x kernel."""
    weight = node.input[3 if node.op_type == "QLinearConv" else 1]
    return math.prod(graph.shape(node.output[0])) * math.prod(graph.shape(weight)[1:])


def _conv_transpose(node: NodeProto, graph: _Graph) -> int:
    """Count input values times the weights of one input channel."""
    return math.prod(graph.shape(node.input[0])) * math.prod(graph.shape(node.input[1])[1:])


def _gemm(node: NodeProto, graph: _Graph) -> int:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    depth = graph.shape(node.input[0])[0 if transposed else 1]
    return math.prod(graph.shape(node.output[0])) * depth


def _matmul(node: NodeProto, graph: _Graph) -> int:
    return math.prod(graph.shape(node.output[0])) * graph.shape(node.input[0])[-1]


_COUNTERS: Mapping[str, Callable[[NodeProto, _Graph], int]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "QLinearConv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
}
