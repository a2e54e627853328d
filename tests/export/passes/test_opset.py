"""Older opsets give what the newer one gave: node by node, and on whole nets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edgexfer.core.errors import ModelError
from edgexfer.export.passes.opset import lower_opset, opset_of
from edgexfer.models.create import create_model
from edgexfer.models.onnx import export_onnx
from tests.export.passes.graphs import Array, graph, kinds, noise, run

pytestmark = pytest.mark.ort

node = helper.make_node
INTEGERS = np.int64


def _norm(axis: int, *more: str) -> onnx.NodeProto:
    return node("LayerNormalization", ["x", "scale", *more], ["y"], axis=axis, epsilon=1e-3)


#: Nodes, constants, and operators that must be gone at opset 13.
REWRITTEN: dict[str, tuple[list[onnx.NodeProto], dict[str, Array], set[str]]] = {
    "hard swish": ([node("HardSwish", ["x"], ["y"])], {}, {"HardSwish"}),
    "mish": ([node("Mish", ["x"], ["y"])], {}, {"Mish"}),
    "gelu": ([node("Gelu", ["x"], ["y"])], {}, {"Gelu"}),
    "gelu by tanh": ([node("Gelu", ["x"], ["y"], approximate="tanh")], {}, {"Gelu"}),
    "layer norm": (
        [_norm(-1, "bias")],
        {"scale": noise(6), "bias": noise(2, 6)[1]},
        {"LayerNormalization"},
    ),
    "layer norm of an image, no bias": (
        [_norm(1)],
        {"scale": noise(4, 6, 6)},
        {"LayerNormalization"},
    ),
    "group norm": (
        [node("GroupNormalization", ["x", "scale", "bias"], ["y"], num_groups=2)],
        {"scale": noise(2), "bias": noise(2, 2)[1]},
        {"GroupNormalization"},
    ),
    "mean": (
        [node("ReduceMean", ["x", "axes"], ["y"], keepdims=1)],
        {"axes": np.array([2, -1], INTEGERS)},
        set(),
    ),
    "mean of everything": ([node("ReduceMean", ["x"], ["y"])], {}, set()),
    "mean of nothing": (
        [node("ReduceMean", ["x"], ["y"], noop_with_empty_axes=1)],
        {},
        {"ReduceMean"},
    ),
    "uneven split": (
        [
            node("Split", ["x"], ["a", "b", "c"], axis=2, num_outputs=3),
            node("Split", ["x"], ["d", "e"], axis=2, num_outputs=2),
            node("Concat", ["a", "c", "d", "e", "b"], ["y"], axis=2),
        ],
        {},
        set(),
    ),
    "padding of one axis": (
        [node("Pad", ["x", "pads", "", "axes"], ["y"], mode="reflect")],
        {"pads": np.array([1, 2], INTEGERS), "axes": np.array([-1], INTEGERS)},
        set(),
    ),
    "reshape": (
        [node("Reshape", ["x", "shape"], ["y"], allowzero=1)],
        {"shape": np.array([-1, 2, 12, 6], INTEGERS)},
        set(),
    ),
    "part of a shape": (
        [
            node("Shape", ["x"], ["sides"], start=1, end=-1),
            node("Shape", ["x"], ["last"], start=-1),
            node("Concat", ["batch", "sides", "last"], ["shape"], axis=0),
            node("Reshape", ["x", "shape"], ["y"]),
        ],
        {"batch": np.array([-1], INTEGERS)},
        set(),
    ),
    "resize": (
        [
            node(
                "Resize",
                ["x", "", "scales"],
                ["y"],
                mode="linear",
                antialias=0,
                keep_aspect_ratio_policy="stretch",
            )
        ],
        {"scales": np.array([1, 1, 2, 2], np.float32)},
        set(),
    ),
    "clip": (
        [node("Clip", ["x", "low", "high"], ["y"])],
        {"low": np.array(-0.5, np.float32), "high": np.array(0.5, np.float32)},
        set(),
    ),
    "pooling": (
        [node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], dilations=[1, 1])],
        {},
        set(),
    ),
    "pooling that is filled, rounded up": (
        [
            node(
                "AveragePool",
                ["x"],
                ["y"],
                kernel_shape=[2, 3],
                strides=[2, 3],
                pads=[1, 0, 1, 0],
                ceil_mode=1,
            )
        ],
        {},
        set(),
    ),
    "squeeze and unsqueeze": (
        [
            node("Unsqueeze", ["x", "axis"], ["wide"]),
            node("Squeeze", ["wide", "axis"], ["y"]),
        ],
        {"axis": np.array([1], INTEGERS)},
        set(),
    ),
    "quantize and dequantize": (
        [
            node("QuantizeLinear", ["x", "scale", "zero"], ["q"], saturate=1),
            node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        ],
        {"scale": np.array(0.02, np.float32), "zero": np.array(0, np.int8)},
        set(),
    ),
}


@pytest.mark.parametrize("opset", [17, 13])
@pytest.mark.parametrize("name", REWRITTEN)
def test_a_rewritten_node_gives_the_same(name: str, opset: int) -> None:
    nodes, constants, gone = REWRITTEN[name]
    model = graph(nodes, constants)
    before = model.SerializeToString()
    x = noise(2, 4, 6, 6)

    lowered = lower_opset(model, opset)

    assert opset_of(lowered, "it") == opset
    assert lowered.ir_version <= {17: 8, 13: 7}[opset]
    # Sums in another order: a few units in the last place of float32.
    np.testing.assert_allclose(run(lowered, x), run(model, x), rtol=2e-6, atol=2e-6)
    assert model.SerializeToString() == before, "the model that was given has changed"
    if opset == 13:
        assert not gone & kinds(lowered)


def test_group_norm_of_opset_21_has_a_scale_for_each_channel() -> None:
    nodes = [node("GroupNormalization", ["x", "scale", "bias"], ["y"], num_groups=2)]
    constants = {"scale": noise(4), "bias": noise(2, 4)[1]}
    model = graph(nodes, constants, opset=21)
    x = noise(2, 4, 6, 6)
    expected = run(model, x)
    for opset in (20, 17):
        np.testing.assert_allclose(run(lower_opset(model, opset), x), expected, atol=2e-6)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic", None])
def test_sampling_has_the_older_names_of_its_modes(mode: str | None) -> None:
    named = {} if mode is None else {"mode": mode}
    grid = {"grid": np.tanh(noise(2, 5, 5, 2))}
    model = graph([node("GridSample", ["x", "grid"], ["y"], **named)], grid)
    x = noise(2, 4, 6, 6)
    np.testing.assert_allclose(run(lower_opset(model, 17), x), run(model, x), atol=2e-6)


def test_one_that_is_old_enough_is_left_alone() -> None:
    model = graph([node("Relu", ["x"], ["y"])], opset=13)
    assert lower_opset(model, 17) is model


#: What cannot be lowered to opset 13, and words of the refusal.
REFUSED: dict[str, tuple[onnx.ModelProto, tuple[str, ...]]] = {
    "no older form": (
        graph([node("GridSample", ["x", "grid"], ["y"])], {"grid": noise(1, 6, 6, 2)}),
        ("GridSample", "opset 13 has none"),
    ),
    "younger attribute": (
        graph(
            [node("Resize", ["x", "", "scales"], ["y"], mode="linear", antialias=1)],
            {"scales": np.array([1, 1, 0.5, 0.5], np.float32)},
        ),
        ("Resize", "antialias"),
    ),
    "younger value": (
        graph([node("Pad", ["x", "p"], ["y"], mode="wrap")], {"p": np.ones(8, INTEGERS)}),
        ("Pad", "mode"),
    ),
    "changed meaning": (
        graph(
            [node("AveragePool", ["x"], ["y"], kernel_shape=[5, 5], strides=[2, 2], ceil_mode=1)]
        ),
        ("AveragePool", "ceil_mode"),
    ),
    "younger type": (
        graph(
            [
                node("QuantizeLinear", ["x", "s", "z"], ["q"]),
                node("DequantizeLinear", ["q", "s", "z"], ["y"]),
            ],
            {"s": np.array(0.1, np.float16), "z": np.array(0, np.int8)},
            kinds=(TensorProto.FLOAT16, TensorProto.FLOAT16),
        ),
        ("QuantizeLinear", "tensor(float16)"),
    ),
    "computed axes": (
        graph(
            [
                node("Shape", ["x"], ["s"], start=0, end=1),
                node("ReduceMax", ["x", "s"], ["y"]),
            ],
            shape=(1, 4, 6, 6),
        ),
        ("ReduceMax", "axes"),
    ),
    "free split": (
        graph(
            [
                node("Split", ["x"], ["a", "b"], num_outputs=2, axis=0),
                node("Concat", ["b", "a"], ["y"], axis=0),
            ]
        ),
        ("Split", "not fixed"),
    ),
    "mean that is read": (
        graph(
            [
                node("LayerNormalization", ["x", "scale"], ["n", "m"], name="norm"),
                node("Add", ["n", "m"], ["y"]),
            ],
            {"scale": noise(6)},
        ),
        ("LayerNormalization (norm)", "mean"),
    ),
    "zero sides": (
        graph(
            [node("Reshape", ["x", "shape"], ["y"], allowzero=1)],
            {"shape": np.array([0, 4], INTEGERS)},
            shape=(0, 6),
        ),
        ("Reshape", "zero"),
    ),
    "unknown operator": (graph([node("Frobnicate", ["x"], ["y"])]), ("Frobnicate",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_older_form_is_refused_by_name(name: str) -> None:
    model, words = REFUSED[name]
    with pytest.raises(ModelError) as caught:
        lower_opset(model, 13, "net.onnx")
    assert caught.value.what.startswith("net.onnx: ")
    assert "\n" not in caught.value.what
    assert all(word in caught.value.what for word in words), caught.value.what
    assert "newer runtime" in caught.value.fix


def test_an_opset_that_is_too_old_is_refused() -> None:
    with pytest.raises(ModelError, match="opset 12 is too old") as caught:
        lower_opset(graph([node("Relu", ["x"], ["y"])]), 12)
    assert "13" in caught.value.fix


NETS: dict[str, dict[str, Any]] = {
    "resnet8": {},
    "mobilenetv3_small_100": {},
    "convnext_atto": {"depths": (1, 1, 2, 1)},
    "mobilenetv4_conv_small": {},
}


@pytest.mark.parametrize("name", NETS)
def test_a_net_gives_the_same_in_every_opset(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    model, _ = create_model(name, 10, options=NETS[name], seed=0)
    model.eval()
    proto = onnx.load(export_onnx(model, (64, 64), tmp_path / "net.onnx"))
    x = noise(2, 3, 64, 64)
    expected = run(proto, x)
    for opset in (20, 17, 13):
        lowered = lower_opset(proto, opset)
        assert opset_of(lowered, name) == opset
        found = run(lowered, x)
        # As the parity ladder asks of the FP32 file: 1e-5 of the largest logit.
        assert np.abs(found - expected).max() <= 1e-5 * max(1, np.abs(expected).max())
    assert not {"HardSwish", "Gelu", "LayerNormalization"} & kinds(lowered)
