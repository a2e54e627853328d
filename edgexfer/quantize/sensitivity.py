"""Which node's quantization costs how much: one quantized, all others in float.

It works on any Q/DQ file, whoever placed its nodes, by leading the inputs of nodes around their
Q/DQ pairs. A pair belongs to the nodes that take it; one at an output of the graph belongs to the
node before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgexfer.bench.compare import compare
from edgexfer.data.pool import ahead, cores
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.observe import run_batches

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
Float32 = npt.NDArray[np.float32]
# What stands for "the outputs are equal" where a number is needed to sort by.
EQUAL_DB = 1000.0
# Each has a copy of the weights.
_AT_ONCE = 8


@dataclass(frozen=True)
class Sensitivity:
    """What the quantization of one node does to the outputs.

    Attributes:
        node: its name.
        op_type: its operator.
        alone_db: signal-to-noise ratio of the logits where it alone is quantized; ``None`` where
            they are equal to the bit.
        share_pct: its share of the noise of all nodes, each alone.
    """

    node: str
    op_type: str
    alone_db: float | None
    share_pct: float


def quantized_nodes(proto: ModelProto) -> list[tuple[str, str]]:
    """Return name and operator of the nodes that take quantized inputs, in the order of the graph.

    Args:
        proto: a Q/DQ graph.
    """
    dequantized = {n.output[0] for n in proto.graph.node if n.op_type == DEQUANTIZE}
    return [
        (n.name, n.op_type)
        for n in proto.graph.node
        if n.op_type not in (QUANTIZE, DEQUANTIZE) and dequantized & set(n.input)
    ]


def keep_quantized(quantized: ModelProto, base: ModelProto, nodes: Set[str]) -> ModelProto:
    """Return a copy of a Q/DQ graph in which only some nodes are quantized.

    Args:
        quantized: made from ``base``, with every one of its nodes.
        base: the float graph.
        nodes: names of those that take quantized inputs still.
    """
    from onnx import ModelProto, helper

    made = ModelProto()
    made.CopyFrom(quantized)
    graph = made.graph
    makers = {name: node for node in graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in base.graph.initializer}
    floats: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in (QUANTIZE, DEQUANTIZE) or node.name in nodes:
            continue
        for i, name in enumerate(node.input):
            source = _float_source(makers.get(name), makers)
            if source is not None and source in weights:
                # The dequantized tensor may have the very name of the float one.
                source = floats.setdefault(source, f"{source}_float")
            node.input[i] = source or name
    for output in graph.output:
        last = makers[output.name]
        source = _float_source(last, makers)
        if source is not None and makers[source].name not in nodes:
            last.CopyFrom(helper.make_node("Identity", [source], [output.name]))
    for name, own in floats.items():
        tensor = graph.initializer.add()
        tensor.CopyFrom(weights[name])
        tensor.name = own
    _prune(made)
    return made


def measure_nodes(
    quantized: Path,
    model: Path,
    images: Calibration,
) -> list[Sensitivity]:
    """Quantize each node alone and compare the logits with those in float.

    Nodes are run side by side, a core each: of such small work several cores make little.

    Args:
        quantized: a Q/DQ file with every node of ``model``.
        model: the FP32 ONNX file.
        images: few are enough; each node is run on all of them.

    Returns:
        The most sensitive node first.

    Raises:
        BackendError: ONNX Runtime cannot run a graph.
    """
    import onnx

    made, base = onnx.load(quantized), onnx.load(model)
    wanted = logits_of(base, images, model.name)

    def alone_db(node: tuple[str, str]) -> float | None:
        part = keep_quantized(made, base, {node[0]})
        return compare(wanted, logits_of(part, images, quantized.name, threads=1)).sqnr_db

    nodes, workers = quantized_nodes(made), min(cores(), _AT_ONCE)
    ratios = list(ahead(nodes, alone_db, workers=workers, depth=2 * workers))
    noises = [0.0 if db is None else 10 ** (-db / 10) for db in ratios]
    total = sum(noises) or 1.0
    found = [
        Sensitivity(name, op_type, db, 100.0 * noise / total)
        for (name, op_type), db, noise in zip(nodes, ratios, noises, strict=True)
    ]
    return sorted(found, key=lambda s: EQUAL_DB if s.alone_db is None else s.alone_db)


def logits_of(proto: ModelProto, images: Calibration, name: str, threads: int = 0) -> Float32:
    """Run a graph on images and return its logits, (N, C), those of several outputs side by side.

    Args:
        proto: the graph.
        images: that it is fed with.
        name: of the file, for errors.
        threads: of ONNX Runtime; 0 for all.

    Raises:
        BackendError: ONNX Runtime cannot run it.
    """
    batches = run_batches(proto, images, name, threads=threads)
    rows = [np.concatenate(outputs, axis=1) for outputs in batches]
    return np.concatenate(rows).astype(np.float32, copy=False)


def _float_source(node: NodeProto | None, makers: dict[str, NodeProto]) -> str | None:
    """Return the float tensor that a DequantizeLinear stands for; ``None`` of other nodes."""
    if node is None or node.op_type != DEQUANTIZE:
        return None
    before = makers.get(node.input[0])
    if before is not None and before.op_type == QUANTIZE:
        return str(before.input[0])
    return str(node.input[0]).removesuffix("_quantized")


def _prune(proto: ModelProto) -> None:
    """Take out nodes and constants that nothing takes."""
    graph = proto.graph
    used = {output.name for output in graph.output}
    kept = []
    for node in _backwards(graph.node):
        if used & set(node.output):
            used.update(node.input)
            kept.append(node)
    kept.reverse()
    constants = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(constants)


def _backwards(nodes: Sequence[NodeProto]) -> Iterator[NodeProto]:
    """Yield copies, as taking nodes out of a graph takes them away."""
    from onnx import NodeProto

    for node in reversed(nodes):
        copy = NodeProto()
        copy.CopyFrom(node)
        yield copy
