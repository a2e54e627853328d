"""A Q/DQ graph that can be trained: an ONNX file run by torch, on the weights of a torch model.

The nodes say what is quantized and how; so whatever ``qdq.py`` places is trained, and nothing else.
Weights are rounded on the scale that they have at the moment, biases in steps of input scale times
weight scale. The scale of each activation begins where calibration put it and is learned as its
logarithm (Jain et al., "Trained Quantization Thresholds", 2020), so that a step of the optimiser
moves large and small ones by the same share; zero points stand still.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from edgexfer.quantize.binding import WEIGHTED, Array, Bound
from edgexfer.quantize.fake import fake_quantize, round_through, weight_scale, widen_for_bias
from edgexfer.quantize.operators import Attributes, Operator, get_operator
from edgexfer.quantize.ranges import Range

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


@dataclass(frozen=True)
class _Grid:
    """What a QuantizeLinear rounds to; several may share one scale."""

    index: int
    zero: int
    low: int
    high: int


@dataclass(frozen=True)
class _Step:
    """One node of the graph; ``run`` is a torch function, or the grid to round to."""

    run: Operator | _Grid
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes


@dataclass(frozen=True)
class _Layer:
    """A weight that the file keeps as INT8, and the bias that it keeps as INT32, if any.

    Attributes:
        outputs: names in the graph of what both are dequantized to.
        weight: of the model.
        axis: of its channels; ``None`` where one scale holds for all.
        bias: of the model.
        grid: index of the scale of the layer's input, in whose steps the bias is counted.
    """

    outputs: tuple[str, ...]
    weight: Bound
    axis: int | None
    bias: Bound | None = None
    grid: int | None = None


class QuantizedGraph(nn.Module):
    """Takes normalised images (B, 3, H, W), gives logits (B, C), and rounds as INT8 would.

    Attributes:
        student: the torch model whose weights are trained; it is never called.
        log_scales: of the activations.
    """

    def __init__(
        self, student: nn.Module, bound: Mapping[str, Bound], quantized: ModelProto, *, levels: int
    ) -> None:
        """Read the graph.

        Args:
            student: kept, and trained in place; only what the graph computes with is trainable.
            bound: its weights by the names of the file's initialisers, as ``bind`` finds them.
            quantized: the file with Q/DQ nodes.
            levels: largest integer of a weight.

        Raises:
            ModelError: the file has an operator that cannot be trained.
        """
        super().__init__()
        self.student = student.requires_grad_(False)
        self.log_scales = nn.ParameterList()
        self._levels = levels
        self._bound = dict(bound)
        self._names: list[str] = []
        self._zeros: list[int] = []
        self._steps: list[_Step] = []
        self._layers: list[_Layer] = []
        # Float constants go to the device with the module; shapes and axes stay on the CPU.
        self._integers: dict[str, Tensor] = {}
        self._floats: dict[str, str] = {}
        self._input = quantized.graph.input[0].name
        self._output = quantized.graph.output[0].name
        self._read(quantized)
        used = {name for step in self._steps for name in step.inputs}
        for kept in (self._bound, self._integers, self._floats):
            for name in [n for n in kept if n not in used]:
                del kept[name]
        rounded = [b for layer in self._layers for b in (layer.weight, layer.bias) if b is not None]
        for weight in (*rounded, *self._bound.values()):
            for parameter in weight.parameters(student):
                parameter.requires_grad_(True)

    def forward(self, images: Tensor) -> Tensor:
        """Run the graph in float32, whatever precision surrounds it."""
        with torch.autocast(images.device.type, enabled=False):
            values: dict[str, Any] = {"": None, self._input: images.float(), **self._integers}
            values.update({n: getattr(self, buffer) for n, buffer in self._floats.items()})
            values.update({n: bound.value(self.student) for n, bound in self._bound.items()})
            for layer in self._layers:
                values.update(zip(layer.outputs, self._rounded(layer), strict=True))
            for step in self._steps:
                found = self._run(step, [values[name] for name in step.inputs])
                outputs = found if isinstance(found, tuple) else (found,)
                values.update(zip(step.outputs, outputs, strict=True))
            logits: Tensor = values[self._output]
        return logits

    def ranges(self) -> dict[str, Range]:
        """Return the activations' ranges by the tensor's name in the file."""
        scales = [float(scale.detach().exp()) for scale in self.log_scales]
        both = zip(self._names, scales, self._zeros, strict=True)
        return {name: Range(scale, zero) for name, scale, zero in both}

    def get_classifier(self) -> nn.Module:
        """Return the student's head, by timm's convention."""
        finder: Any = self.student.get_classifier
        head: nn.Module = finder()
        return head

    def _run(self, step: _Step, inputs: list[Any]) -> Any:
        grid = step.run
        if not isinstance(grid, _Grid):
            return grid(inputs, step.attributes)
        scale = self.log_scales[grid.index].exp()
        return fake_quantize(inputs[0], scale, grid.zero, grid.low, grid.high)

    def _rounded(self, layer: _Layer) -> tuple[Tensor, ...]:
        weight = layer.weight.value(self.student)
        scale = weight_scale(weight, layer.axis, self._levels)
        if layer.bias is None or layer.grid is None:
            return (round_through(weight, scale),)
        bias = layer.bias.value(self.student)
        input_scale = self.log_scales[layer.grid].detach().exp()
        flat = widen_for_bias(scale.flatten(), input_scale, bias)
        # A channel without weight and bias may have a step that float32 cannot hold.
        step = (flat * input_scale).clamp_min(torch.finfo(flat.dtype).tiny)
        return round_through(weight, flat.view_as(scale)), round_through(bias, step)

    def _read(self, quantized: ModelProto) -> None:
        """Turn nodes into steps, and initialisers into weights and constants."""
        from onnx import numpy_helper

        arrays = {t.name: numpy_helper.to_array(t) for t in quantized.graph.initializer}
        for name, array in arrays.items():
            if name not in self._bound:
                self._keep(name, array)
        stored: dict[str, NodeProto] = {}
        for node in quantized.graph.node:
            if node.op_type == "Constant":
                self._keep(node.output[0], _attributes(node)["value"])
            elif node.op_type == _DEQUANTIZE and node.input[0] in arrays:
                stored[node.output[0]] = node
            else:
                self._steps.append(self._step(node, arrays))
        grids = {
            n.output[0]: self._names.index(_tensor_name(n))
            for n in quantized.graph.node
            if n.op_type == _DEQUANTIZE and n.output[0] not in stored
        }
        for node in quantized.graph.node:
            if node.op_type in WEIGHTED:
                self._read_layer(node, stored, arrays, grids)
        for node in stored.values():
            # What no layer takes, such as a constant of an addition, keeps its value.
            self._keep(node.output[0], _dequantized(node, arrays))

    def _step(self, node: NodeProto, arrays: Mapping[str, Array]) -> _Step:
        outputs = tuple(node.output)
        if node.op_type == _DEQUANTIZE:
            return _Step(get_operator("Identity"), (node.input[0],), outputs, {})
        if node.op_type != _QUANTIZE:
            run = get_operator(node.op_type)
            return _Step(run, tuple(node.input), outputs, _attributes(node))
        name = _tensor_name(node)
        scale, zero = (arrays[n] for n in node.input[1:])
        if name not in self._names:
            self._names.append(name)
            self._zeros.append(int(zero))
            self.log_scales.append(nn.Parameter(torch.tensor(math.log(float(scale)))))
        ends = np.iinfo(zero.dtype)
        grid = _Grid(self._names.index(name), int(zero), int(ends.min), int(ends.max))
        return _Step(grid, (node.input[0],), outputs, {})

    def _read_layer(
        self,
        node: NodeProto,
        stored: dict[str, NodeProto],
        arrays: Mapping[str, Array],
        grids: Mapping[str, int],
    ) -> None:
        """Take the weight and bias of a layer out of what is stored as integers."""
        found = stored.get(node.input[1])
        weight = self._bound.get(_weight_name(found)) if found else None
        if found is None or weight is None or arrays[found.input[0]].dtype != np.int8:
            return
        axis = _attributes(found).get("axis", 1) if arrays[found.input[1]].size > 1 else None
        del stored[node.input[1]]
        layer = _Layer((node.input[1],), weight, axis)
        biases = node.input[2:]
        if biases and biases[0] in stored:
            bias = self._bound[_weight_name(stored.pop(biases[0]))]
            layer = _Layer(tuple(node.input[1:]), weight, axis, bias, grids[node.input[0]])
        self._layers.append(layer)

    def _keep(self, name: str, array: Array) -> None:
        tensor = torch.from_numpy(np.array(array))
        if tensor.is_floating_point():
            self._floats[name] = f"constant_{len(self._floats)}"
            self.register_buffer(self._floats[name], tensor, persistent=False)
        else:
            self._integers[name] = tensor


def _tensor_name(node: NodeProto) -> str:
    """Return the tensor that a node's scale was made for; others may share the scale."""
    return str(node.input[1]).removesuffix("_scale")


def _weight_name(node: NodeProto) -> str:
    """Return the initialiser of the FP32 file that a node dequantizes."""
    return str(node.input[0]).removesuffix("_quantized")


def _dequantized(node: NodeProto, arrays: Mapping[str, Array]) -> Array:
    integers, scale, zero = (arrays[name] for name in node.input)
    if scale.size > 1:
        wide = [1] * integers.ndim
        wide[_attributes(node).get("axis", 1)] = -1
        scale, zero = scale.reshape(wide), zero.reshape(wide)
    values: Array = (integers.astype(np.float32) - zero.astype(np.float32)) * scale
    return values


def _attributes(node: NodeProto) -> Attributes:
    """Return a node's attributes as Python values; tensors as arrays."""
    from onnx import TensorProto, helper, numpy_helper

    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    for name, value in values.items():
        if isinstance(value, TensorProto):
            values[name] = numpy_helper.to_array(value)
        elif isinstance(value, bytes):
            values[name] = value.decode()
        elif not isinstance(value, int | float):
            values[name] = list(value)
    return values
