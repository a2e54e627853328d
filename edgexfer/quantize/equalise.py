"""Two rewritings of the float graph that make it easier to quantize.

Cross-layer equalisation (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction", 2019) moves scale between the channels of two layers in a row; the graph computes the
same to the bit. Bias correction (same paper, its empirical form) takes the mean error that rounding
makes on images out of the biases; the float graph then is wrong by as much as INT8 would be right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.observe import run_batches
from edgexfer.quantize.sensitivity import DEQUANTIZE, QUANTIZE, keep_quantized

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Float32 = npt.NDArray[np.float32]
# Chains of pairs settle in a few rounds, as scales are powers of two.
_ROUNDS = 20


@dataclass(frozen=True)
class Pair:
    """Two convolutions with nothing between them, or a ReLU.

    Attributes:
        first: name of the first node.
        second: name of the second.
        weight: initialiser of the first's weight.
        bias: initialiser of its bias, if it has one.
        taking: initialiser of the second's weight.
        depthwise: whether each channel of the second takes one of the first's alone.
    """

    first: str
    second: str
    weight: str
    bias: str | None
    taking: str
    depthwise: bool


def find_pairs(proto: ModelProto) -> list[Pair]:
    """Return the pairs of a float graph between which scale can be moved exactly.

    A positive factor passes a ReLU and nothing else that bends, so there must be no other function
    between the two, and nobody else may take what is between. Weights that nodes share are left
    alone.
    """
    graph = proto.graph
    weights = {tensor.name for tensor in graph.initializer}
    takers = Counter(name for node in graph.node for name in node.input)
    takers.update(output.name for output in graph.output)
    taking = {name: node for node in graph.node for name in node.input}
    found = []
    for node in graph.node:
        second = _next_conv(node, taking, takers)
        if node.op_type != "Conv" or second is None:
            continue
        names = [*node.input[1:], second.input[1]]
        if any(name not in weights or takers[name] > 1 for name in names):
            continue
        group = _group(second)
        shape = next(tuple(t.dims) for t in graph.initializer if t.name == second.input[1])
        depthwise = group == shape[0] and shape[1] == 1
        if group != 1 and not depthwise:
            continue
        bias = node.input[2] if len(node.input) > 2 else None
        found.append(Pair(node.name, second.name, node.input[1], bias, second.input[1], depthwise))
    return found


def equalise(model: Path, out: Path) -> int:
    """Write a float ONNX file whose layers in a row have channels of like ranges.

    Factors are powers of two, so that nothing is rounded: outputs are equal to the bit as long as
    no number leaves the range of float32.

    Args:
        model: FP32 ONNX file.
        out: file to write.

    Returns:
        Between how many pairs scale was moved.
    """
    import onnx
    from onnx import numpy_helper

    proto = onnx.load(model)
    pairs = find_pairs(proto)
    arrays = {t.name: np.array(numpy_helper.to_array(t)) for t in proto.graph.initializer}
    moved: set[str] = set()
    for _ in range(_ROUNDS):
        changed = [pair.first for pair in pairs if _balance(pair, arrays)]
        if not changed:
            break
        moved.update(changed)
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    onnx.save(proto, out)
    return len(moved)


def correct_biases(model: Path, quantized: Path, out: Path, calibration: Calibration) -> int:
    """Write a float ONNX file whose biases make up for the mean error of its quantized twin.

    Each layer is compared with itself on what the float graph feeds it, so that the errors of
    layers before it are not counted twice. Memory holds the means of one batch.

    Args:
        model: FP32 ONNX file.
        quantized: Q/DQ file made from it, with every one of its nodes.
        out: file to write.
        calibration: the images.

    Returns:
        How many layers were corrected.

    Raises:
        BackendError: ONNX Runtime cannot run the graph.
    """
    import onnx

    base = onnx.load(model)
    twins = _Twins(onnx.load(quantized), base)
    sums: dict[str, Any] = {}
    counts: Counter[str] = Counter()  # a layer may see windows of an image, one by one
    for batch in run_batches(twins.proto, calibration, model.name):
        for name, errors in zip(twins.layers, batch, strict=True):
            means = errors.reshape(len(errors), -1)
            sums[name] = sums.get(name, 0.0) + means.sum(axis=0, dtype=np.float64)
            counts[name] += len(errors)
    for node in base.graph.node:
        if node.name in sums:
            _add_to_bias(base, node, (sums[node.name] / counts[node.name]).astype(np.float32))
    onnx.save(base, out)
    return len(sums)


class _Twins:
    """A float graph with the mean errors of its layers, each quantized alone, as outputs.

    Attributes:
        proto: gives for each layer the mean error of each channel, float minus quantized.
        layers: names of the layers, in the order of the outputs.
    """

    def __init__(self, quantized: ModelProto, base: ModelProto) -> None:
        """Put beside each layer its quantized twin, fed with the same."""
        self.proto = keep_quantized(quantized, base, frozenset())
        self.layers: list[str] = []
        self._makers = {name: node for node in quantized.graph.node for name in node.output}
        self._constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
        self._held = {tensor.name for tensor in self.proto.graph.initializer}
        self._present: set[str] = set()
        del self.proto.graph.output[:]
        for node in quantized.graph.node:
            if _has_bias(node):
                for pair in self._pairs(node):
                    self._add(pair)
                self._add(node)
                self._compare(node)

    def _pairs(self, node: NodeProto) -> Iterator[NodeProto]:
        """Yield the Q/DQ nodes that a layer takes its inputs from, in the order of the data."""
        for name in node.input:
            last = self._makers.get(name)
            if last is None or last.op_type != DEQUANTIZE:
                continue
            before = self._makers.get(last.input[0])
            if before is not None and before.op_type == QUANTIZE:
                yield before
            yield last

    def _add(self, node: NodeProto) -> None:
        if node.output[0] in self._present:
            return
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            # What a layer's twin gives is taken by nobody: the next is fed by the float graph too.
            self._present.add(node.output[0])
        graph = self.proto.graph
        twin = graph.node.add()
        twin.CopyFrom(node)
        twin.name = f"{node.name}_twin"
        twin.output[0] = f"{node.output[0]}_twin"
        for i, name in enumerate(node.input):
            if name in self._present:
                twin.input[i] = f"{name}_twin"
            elif name in self._constants and name not in self._held:
                graph.initializer.add().CopyFrom(self._constants[name])
                self._held.add(name)

    def _compare(self, node: NodeProto) -> None:
        from onnx import TensorProto, helper

        graph, own = self.proto.graph, node.output[0]
        given = f"{own}_error"
        graph.node.append(helper.make_node("Sub", [own, f"{own}_twin"], [given]))
        if node.op_type == "Conv":
            taken, given = given, f"{own}_mean"
            graph.node.append(helper.make_node("GlobalAveragePool", [taken], [given]))
        graph.output.append(helper.make_tensor_value_info(given, TensorProto.FLOAT, None))
        self.layers.append(node.name)


def _has_bias(node: NodeProto) -> bool:
    """Say whether a node adds a bias per channel, or can."""
    return node.op_type == "Conv" or (node.op_type == "Gemm" and len(node.input) > 2)


def _add_to_bias(proto: ModelProto, node: NodeProto, values: Float32) -> None:
    from onnx import numpy_helper

    held = {tensor.name: tensor for tensor in proto.graph.initializer}
    name = node.input[2] if len(node.input) > 2 else ""
    if name in held:
        values = values + numpy_helper.to_array(held[name])
    shared = sum(list(n.input).count(name) for n in proto.graph.node) > 1
    own = f"{node.name}_corrected_bias" if shared or name not in held else name
    if own == name:
        held[name].CopyFrom(numpy_helper.from_array(values, name))
        return
    proto.graph.initializer.append(numpy_helper.from_array(values, own))
    if len(node.input) > 2:
        node.input[2] = own
    else:
        node.input.append(own)


def _balance(pair: Pair, arrays: Mapping[str, npt.NDArray[Any]]) -> bool:
    """Move scale between the channels of a pair; say whether there was any to move."""
    weight, taking = arrays[pair.weight], arrays[pair.taking]
    given = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    taken = np.abs(taking).max(axis=(1, 2, 3) if pair.depthwise else (0, 2, 3))
    if len(given) != len(taken):
        return False
    both = (given > 0) & (taken > 0)
    ratio = np.where(both, given / np.where(both, taken, 1.0), 1.0)
    # Both ranges become their geometric mean, to the nearest power of two.
    exponents = np.round(0.5 * np.log2(ratio.astype(np.float64)))
    factor = np.exp2(exponents).astype(np.float32)
    weight /= factor.reshape(-1, 1, 1, 1)
    if pair.bias is not None:
        arrays[pair.bias][...] /= factor
    taking *= factor.reshape((-1, 1, 1, 1) if pair.depthwise else (1, -1, 1, 1))
    return bool(exponents.any())


def _next_conv(
    node: NodeProto, taking: Mapping[str, NodeProto], takers: Mapping[str, int]
) -> NodeProto | None:
    """Return the convolution that alone takes what a node gives, a ReLU between them or not."""
    for between in _followers(node, taking, takers):
        if between.op_type == "Conv":
            return between
        if between.op_type != "Relu":
            return None
    return None


def _followers(
    node: NodeProto, taking: Mapping[str, NodeProto], takers: Mapping[str, int]
) -> Iterator[NodeProto]:
    while takers.get(node.output[0]) == 1 and node.output[0] in taking:
        follower = taking[node.output[0]]
        if follower.input[0] != node.output[0]:
            return
        yield follower
        node = follower


def _group(node: NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "group"), 1)
