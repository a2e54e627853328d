"""The graph that is trained rounds as ONNX Runtime rounds the same file, node by node."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from edgexfer.bench.compare import compare
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.profile import Quantization
from edgexfer.models.create import create_model
from edgexfer.models.onnx import export_onnx
from edgexfer.quantize.binding import bind
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.graph import QuantizedGraph
from edgexfer.quantize.qdq import quantize_qdq

SIZE = 32
PREPROCESS = Preprocess(
    size=(SIZE, SIZE), resize=SIZE, mode="squash", mean=(0.3, 0.45, 0.6), std=(0.25, 0.3, 0.4)
)
U8 = Quantization(activations="uint8")
S8 = Quantization(activations="int8")
SEVEN = replace(U8, weights="int8-per-tensor", reduce_range=True)
CASES = [
    ("resnet8", U8, False),
    ("resnet8", SEVEN, False),
    ("resnet18", S8, True),
    ("mobilenetv3_small_100", U8, False),
    ("mobilenetv4_conv_small", S8, False),
]
Made = tuple[QuantizedGraph, onnx.ModelProto, Tensor]


def lively(name: str) -> nn.Module:
    """Return a model whose batch norms do something, with channels of no and of little weight."""
    model, _ = create_model(name, 10, seed=0)
    torch.manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.3)
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 2.0)
        conv = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
        conv.weight[0] = 0.0
        conv.weight[1] *= 1e-9
    return model.eval()


def make(folder: Path, name: str, scheme: Quantization, restricted: bool) -> Made:
    images = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)
    calibration = Calibration(images, PREPROCESS, ("",) * len(images))
    model = lively(name)
    fed = torch.from_numpy(next(calibration.batches()))
    file = export_onnx(model, (SIZE, SIZE), folder / "fp32.onnx")
    quantize_qdq(file, folder / "int8.onnx", calibration, scheme, restricted=restricted)
    quantized = onnx.load(folder / "int8.onnx")
    bound = bind(model, onnx.load(file), fed[:1])
    levels = 64 if scheme.reduce_range else 127
    return QuantizedGraph(model, bound, quantized, levels=levels), quantized, fed


@pytest.fixture(scope="module", params=CASES, ids=lambda c: f"{c[0]}-{c[1].activations}-{c[2]}")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch.set_num_threads(1)
    return make(tmp_path_factory.mktemp("graph"), *request.param)


def runtime_tensors(quantized: onnx.ModelProto, fed: Tensor) -> dict[str, np.ndarray]:
    """Return what ONNX Runtime computes at every node of the file as it stands."""
    proto = copy.deepcopy(quantized)
    known = {o.name for o in proto.graph.output}
    for node in proto.graph.node:
        for name in set(node.output) - known:
            proto.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    names = [o.name for o in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"images": fed.numpy()}), strict=True))
    found["images"] = fed.numpy()
    # Integers become what they stand for, as the graph has them.
    constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero = (constants[n] for n in node.input[1:])
            integers = found[node.output[0]].astype(np.float32)
            found[node.output[0]] = (integers - zero.astype(np.float32)) * scale
    return {**constants, **found}


def steps(graph: QuantizedGraph, values: dict[str, np.ndarray]) -> Iterator[tuple[str, Any, Any]]:
    """Run each step on what ONNX Runtime has as its inputs; yield both results."""
    with torch.no_grad():
        for step in graph._steps:
            inputs = [torch.from_numpy(np.array(values[n])) if n else None for n in step.inputs]
            found = graph._run(step, inputs)
            yield step.outputs[0], found.numpy(), values[step.outputs[0]]


def test_every_node_rounds_as_onnx_runtime_does(made: Made) -> None:
    graph, quantized, fed = made
    ranges = graph.ranges()
    scales = {
        node.output[0]: ranges[node.input[1].removesuffix("_scale")].scale
        for node in quantized.graph.node
        if node.op_type == "QuantizeLinear"
    }
    for name, mine, wanted in steps(graph, runtime_tensors(quantized, fed)):
        difference = np.abs(mine - wanted)
        if name in scales:
            assert difference.max() <= 1.001 * scales[name], name
            assert np.mean(difference > 0.001 * scales[name]) <= 1e-3, name
        else:
            assert difference.max() <= 1e-5 * max(1.0, np.abs(wanted).max()), name


def test_weights_and_biases_are_those_of_the_file(made: Made) -> None:
    graph, quantized, fed = made
    values = runtime_tensors(quantized, fed)
    stored = {n.output[0]: n for n in quantized.graph.node if n.op_type == "DequantizeLinear"}
    assert len(graph._layers) == sum(n.op_type in ("Conv", "Gemm") for n in quantized.graph.node)
    for layer in graph._layers:
        for name, tensor in zip(layer.outputs, graph._rounded(layer), strict=True):
            step = values[stored[name].input[1]]
            step = step.reshape(-1, *[1] * (tensor.ndim - 1)) if step.size > 1 else step
            difference = np.abs(tensor.detach().numpy() - values[name]) / step
            # What lies between two integers may go either way; biases are many steps long.
            assert difference.max() <= 1.01, name
            assert tensor.ndim == 1 or np.mean(difference > 0.02) <= 1e-3, name


def test_logits_are_those_of_the_file(made: Made) -> None:
    graph, quantized, fed = made
    wanted = runtime_tensors(quantized, fed)[quantized.graph.output[0].name]
    with torch.no_grad():
        found = graph(fed).numpy()
    # Of random weights a rounding here and there grows from layer to layer.
    assert compare(wanted, found).at_least(30.0)


@pytest.fixture
def small(tmp_path: Path) -> Made:
    return make(tmp_path, "resnet8", U8, False)


def test_gradients_reach_all_that_is_trained(small: Made) -> None:
    graph, _, fed = small
    torch.autograd.backward(graph(fed).square().mean())
    trained = {n: p for n, p in graph.named_parameters() if p.requires_grad}
    assert {n for n, p in trained.items() if p.grad is None} == set()
    assert {"student.conv1.weight", "student.bn1.weight", "student.bn1.bias"} <= set(trained)
    assert sum(n.startswith("log_scales.") for n in trained) == len(graph.ranges())


def test_it_computes_in_float32_whatever_surrounds_it(small: Made) -> None:
    graph, _, fed = small
    with torch.no_grad():
        plain = graph(fed)
        with torch.autocast("cpu", torch.bfloat16):
            surrounded = graph(fed)
    assert surrounded.dtype == torch.float32
    assert torch.equal(plain, surrounded)


def test_a_copy_with_the_same_state_gives_the_same(small: Made) -> None:
    graph, _, fed = small
    other = copy.deepcopy(graph)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.01)
        assert not torch.equal(other(fed), graph(fed))
        other.load_state_dict(graph.state_dict())
        assert torch.equal(other(fed), graph(fed))
