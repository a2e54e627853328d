"""Multiply-accumulates and sizes of ONNX graphs, against counts by hand and by torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgexfer.core.errors import ModelError
from edgexfer.models.create import create_model
from edgexfer.models.onnx import export_onnx
from edgexfer.models.workload import Size, Workload, count_workload, read_workload

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'


def parsed(body: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD + body)


def counted(body: str, **options: Any) -> Workload:
    return count_workload(parsed(body), **options)


def zeros(name: str, *dims: int) -> str:
    """Write an initialiser of zeros as the text form of ONNX has it."""
    values = ", ".join(["0"] * math.prod(dims))
    return f"float[{','.join(map(str, dims))}] {name} = {{{values}}}"


CASES = {
    # Output values times channels per group times kernel.
    "conv": (
        f"g (float[1,3,8,8] x) => (float[1,4,6,6] y) <{zeros('w', 4, 3, 3, 3)}>"
        "{ y = Conv(x, w) }",
        (4 * 6 * 6) * (3 * 3 * 3),
    ),
    "conv with stride, padding and bias": (
        f"g (float[1,3,8,8] x) => (float[1,4,4,4] y) <{zeros('w', 4, 3, 3, 3)}, {zeros('b', 4)}>"
        "{ y = Conv <strides=[2,2], pads=[1,1,1,1]> (x, w, b) }",
        (4 * 4 * 4) * (3 * 3 * 3),
    ),
    "depthwise": (
        f"g (float[1,8,8,8] x) => (float[1,8,8,8] y) <{zeros('w', 8, 1, 3, 3)}>"
        "{ y = Conv <group=8, pads=[1,1,1,1]> (x, w) }",
        (8 * 8 * 8) * (1 * 3 * 3),
    ),
    "grouped": (
        f"g (float[1,8,8,8] x) => (float[1,12,8,8] y) <{zeros('w', 12, 4, 1, 1)}>"
        "{ y = Conv <group=2> (x, w) }",
        (12 * 8 * 8) * 4,
    ),
    "transposed": (
        f"g (float[1,4,5,5] x) => (float[1,6,10,10] y) <{zeros('w', 4, 6, 2, 2)}>"
        "{ y = ConvTranspose <strides=[2,2]> (x, w) }",
        (4 * 5 * 5) * (6 * 2 * 2),
    ),
    "gemm": (
        f"g (float[2,64] x) => (float[2,10] y) <{zeros('w', 10, 64)}, {zeros('b', 10)}>"
        "{ y = Gemm <transB=1> (x, w, b) }",
        2 * 64 * 10,
    ),
    "gemm of a transposed input": (
        f"g (float[64,2] x) => (float[2,10] y) <{zeros('w', 64, 10)}>"
        "{ y = Gemm <transA=1> (x, w) }",
        2 * 64 * 10,
    ),
    "matmul of two activations": (
        "g (float[2,3,5,7] a, float[2,3,7,4] b) => (float[2,3,5,4] y) { y = MatMul(a, b) }",
        2 * 3 * 5 * 7 * 4,
    ),
    "nothing": ("g (float[1,5] x) => (float[1,5] y) { y = Relu(x) }", 0),
}


@pytest.mark.parametrize("case", CASES)
def test_macs_are_those_of_a_count_by_hand(case: str) -> None:
    body, macs = CASES[case]
    assert counted(body).macs == macs


def test_int8_operators_count_like_float_ones() -> None:
    body = (
        "g (uint8[1,3,8,8] x) => (uint8[1,4,8,8] y) <"
        f"{zeros('s', 1)}, uint8 z = {{0}}, {zeros('w', 4, 3, 1, 1).replace('float', 'int8')},"
        "int8 wz = {0}> { y = QLinearConv(x, s, z, w, s, wz, s, z) }"
    ).replace("float[1] s = {0}", "float s = {1}")
    work = counted(body)
    assert work.macs == 4 * 8 * 8 * 3
    assert work.kernels == Size(floats=1, others=4 * 3 + 1 + 1), "a scale, the kernel, zero points"


@pytest.mark.torch
def test_a_whole_net_is_the_sum_of_its_layers(tmp_path: Path) -> None:
    """resnet8 of the CIFAR benchmarks, by hand."""
    model, _ = create_model("resnet8", 10)
    work = read_workload(export_onnx(model, (32, 32), tmp_path / "resnet8.onnx"))
    stem = 32 * 32 * 16 * 3 * 9
    first = 2 * (32 * 32 * 16 * 16 * 9)
    second = 16 * 16 * 32 * (16 * 9 + 32 * 9 + 16)  # two 3x3 and the 1x1 of the shortcut
    third = 8 * 8 * 64 * (32 * 9 + 64 * 9 + 32)
    assert work.macs == stem + first + second + third + 64 * 10
    assert work.batch == 1
    assert work.uncounted == ()
    # Batch norms are folded; their biases are 0 in a new net, and left out. The head keeps its own.
    kernels = 16 * 27 + 2 * 16 * 144 + 32 * (144 + 288 + 16) + 64 * (288 + 576 + 32) + 640
    assert work.weights.floats == kernels + 10


@pytest.mark.torch
@pytest.mark.parametrize(("name", "size"), [("mobilenetv3_small_100", 64), ("mobilevit_xxs", 64)])
def test_torch_counts_the_same(name: str, size: int, tmp_path: Path) -> None:
    model = create_model(name, 10)[0].eval()
    work = read_workload(export_onnx(model, (size, size), tmp_path / "m.onnx"), batch=3)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(3, 3, size, size))
    assert 2 * work.macs == counter.get_total_flops()


def test_a_free_batch_is_set_and_a_fixed_one_is_kept() -> None:
    free = "g (float[N,8] x) => (float[N,4] y) <" + zeros("w", 8, 4) + "> { y = MatMul(x, w) }"
    assert (counted(free).batch, counted(free).macs) == (1, 32)
    assert (counted(free, batch=5).batch, counted(free, batch=5).macs) == (5, 160)
    assert counted(free.replace("N", "2"), batch=5).batch == 2


def test_what_constants_alone_give_is_no_work() -> None:
    """INT8 weights are dequantized when a model is loaded; scale and zero point are gone then."""
    body = (
        "g (float[1,4] x) => (float[1,2] y) <int8[4,2] q = {0,0,0,0,0,0,0,0}, float s = {1},"
        "int8 z = {0}> { w = DequantizeLinear(q, s, z)\n y = MatMul(x, w) }"
    )
    work = counted(body)
    assert [node.op_type for node in work.nodes] == ["MatMul"]
    assert work.weights == work.kernels == Size(floats=8)


def test_live_activations_follow_the_last_reader() -> None:
    """A residual keeps its first tensor alive; an element-wise result takes a dead one's place."""
    body = (
        f"g (float[1,2,4,4] x) => (float[1,2,4,4] y) <{zeros('w', 2, 2, 1, 1)}>"
        "{ a = Conv(x, w)\n b = Conv(a, w)\n c = Relu(b)\n y = Add(c, a) }"
    )
    each = 2 * 4 * 4
    lives = {node.name: node.live.floats // each for node in counted(body).nodes}
    # x and a; a and b; b becomes c while a waits; c becomes y while a is read.
    assert lives == {"a": 2, "b": 2, "c": 2, "y": 2}
    work = counted(body)
    assert work.peak_live_bytes(4) == 2 * each * 4
    assert work.peak_live_bytes(1) == 2 * each
    assert work.weights == Size(floats=4), "two nodes share one weight"


def test_an_operator_that_is_not_counted_is_named() -> None:
    work = counted(
        "g (float[2,3] a, float[3,4] b) => (float[2,4] y)"
        '{ y = Einsum <equation="ij,jk->ik"> (a, b) }'
    )
    assert work.uncounted == ("Einsum",)
    assert work.macs == 0


@pytest.mark.parametrize(
    ("body", "what", "fix"),
    [
        (
            "g (float[1,3,H,W] x) => (float[1,3,H,W] y) { y = Relu(x) }",
            "the size of 'x' is not fixed (1 x 3 x H x W)",
            "fixed size",
        ),
        (
            "g (float[1,3] x) => (float[1,3] y) { y = com.acme.Magic(x) }",
            "the shape of 'y' cannot be told",
            "standard operators",
        ),
        (
            f"g (float[1,3] x) => (float[1,3] y) <{zeros('w', 4, 4)}> {{ y = MatMul(x, w) }}",
            "its shapes contradict each other",
            "export wrote",
        ),
        ("g (float[1,3] x) => () { }", "computes nothing", "export wrote"),
    ],
)
def test_a_graph_that_cannot_be_counted_is_refused(body: str, what: str, fix: str) -> None:
    text = (HEAD + body).replace('["" : 20]', '["" : 20, "com.acme" : 1]')
    with pytest.raises(ModelError) as caught:
        count_workload(onnx.parser.parse_model(text), where="net.onnx")
    assert what in caught.value.what
    assert caught.value.what.startswith("net.onnx: ")
    assert fix in caught.value.fix


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\x08\x0a\x12 not a model")
    for name, what in (("net.onnx", "is not an ONNX file"), ("none.onnx", "no such file")):
        with pytest.raises(ModelError, match=what) as caught:
            read_workload(tmp_path / name)
        assert caught.value.fix


def test_weights_that_lie_elsewhere_are_not_read(tmp_path: Path) -> None:
    """Nor is a path followed that leads out of the folder."""
    model = parsed(
        f"g (float[1,4] x) => (float[1,2] y) <{zeros('w', 4, 2)}> {{ y = MatMul(x, w) }}"
    )
    [weight] = model.graph.initializer
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../etc/passwd")
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    assert read_workload(tmp_path / "net.onnx").macs == 8
