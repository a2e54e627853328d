"""TensorRT's Q/DQ rules, each on the smallest graph that can break it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from edgexfer.core.errors import ProfileError
from edgexfer.core.profile import Quantization
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.placement import place, plan
from edgexfer.quantize.qdq import check_qdq, quantize_qdq
from edgexfer.quantize.ranges import Range

HEAD = '<ir_version: 10, opset_import: ["" : 20]>\n'
IDENTITY_BLOCK = """g (float[n,3,8,8] x) => (float[n,3,8,8] y) {
  [c1] a = Conv<kernel_shape=[1,1]>(x, w1, b1)
  [r1] r = Relu(a)
  [c2] b = Conv<kernel_shape=[1,1]>(r, w2)
  [add] s = Add(b, x)
  [r2] y = Relu(s)
}"""
DOWNSAMPLED = """g (float[n,3,8,8] x) => (float[n,3,8,8] y) {
  [short] d = Conv<kernel_shape=[1,1]>(x, w1, b1)
  [c2] b = Conv<kernel_shape=[1,1]>(x, w2)
  [add] s = Add(d, b)
  [r2] y = Relu(s)
}"""
CONCAT = """g (float[n,3,8,8] x) => (float[n,3,8,8] y) {
  [c1] a = Conv<kernel_shape=[1,1]>(x, w1, b1)
  [r1] r = Relu(a)
  [p] q = MaxPool<kernel_shape=[1,1]>(r)
  [cat] c = Concat<axis=1>(q, x)
  [c2] b = Conv<kernel_shape=[1,1]>(r, w2)
  [c3] e = Conv<kernel_shape=[1,1]>(c, w3)
  [add] y = Add(e, b)
}"""


def graph(text: str) -> onnx.ModelProto:
    """Parse a graph, with weights from a seed and a channel of zeros in the first."""
    proto = onnx.parser.parse_model(HEAD + text)
    chance = np.random.default_rng(0)
    shapes = {"w1": (3, 3, 1, 1), "b1": (3,), "w2": (3, 3, 1, 1), "w3": (3, 6, 1, 1)}
    shapes |= {"t": (3, 6, 1, 1), "g": (5, 3), "m": (3, 5)}
    used = {name for node in proto.graph.node for name in node.input}
    for name in sorted(used & set(shapes)):
        values = chance.normal(size=shapes[name]).astype(np.float32)
        if name == "w1":
            values[1] = 0.0
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def placed(text: str, float_nodes: frozenset[str] = frozenset()) -> onnx.ModelProto:
    proto = graph(text)
    names = plan(proto, float_nodes).groups.values()
    ranges = {name: Range(0.01 * (i + 1), 0) for i, name in enumerate(dict.fromkeys(names))}
    made = place(proto, ranges, float_nodes=float_nodes)
    onnx.checker.check_model(made, full_check=True)
    return made


def inputs(proto: onnx.ModelProto, name: str) -> list[str]:
    """Return what a node takes: the tensors themselves, with a mark where they are quantized."""
    dequantized = {
        n.output[0]: n.input[0].removesuffix("_QuantizeLinear_Output").removesuffix("_quantized")
        for n in proto.graph.node
        if n.op_type == "DequantizeLinear"
    }
    node = next(n for n in proto.graph.node if n.name == name)
    return [f"q:{dequantized[i]}" if i in dequantized else i for i in node.input]


def test_of_a_residual_addition_the_branch_that_is_not_fused_is_quantized() -> None:
    made = placed(IDENTITY_BLOCK)
    assert inputs(made, "c1") == ["q:x", "q:w1", "b1"]
    assert inputs(made, "c2") == ["q:r", "q:w2"]
    assert inputs(made, "add") == ["b", "q:x"]
    assert inputs(made, "r2") == ["s"]
    # One pair for both that take x.
    assert sum(n.op_type == "QuantizeLinear" for n in made.graph.node) == 2


def test_of_two_convolutions_the_addition_is_fused_into_the_last() -> None:
    assert inputs(placed(DOWNSAMPLED), "add") == ["q:d", "b"]
    swapped = DOWNSAMPLED.replace("Add(d, b)", "Add(b, d)")
    assert inputs(placed(swapped), "add") == ["b", "q:d"]


def test_a_branch_that_others_take_too_is_not_fused() -> None:
    text = IDENTITY_BLOCK.replace("y = Relu(s)", "u = Relu(s)\n  [more] y = Mul(u, b)")
    assert inputs(placed(text), "add") == ["b", "x"]


def test_a_bias_that_is_added_is_no_residual() -> None:
    text = IDENTITY_BLOCK.replace("Add(b, x)", "Add(b, b1)").replace("8,8]", "8,3]")
    assert inputs(placed(text), "add") == ["b", "b1"]


def test_a_concatenation_and_what_it_takes_share_one_scale() -> None:
    made = placed(CONCAT)
    scales = {n.input[0]: n.input[1] for n in made.graph.node if n.op_type == "QuantizeLinear"}
    # Of the addition of two convolutions the earlier branch has a scale of its own.
    assert scales == {"x": "x_scale", "r": "x_scale", "c": "x_scale", "b": "b_scale"}
    assert plan(graph(CONCAT)).members("x") == ["x", "r", "c"]


def test_shared_scales_cover_every_member(tmp_path: Path) -> None:
    onnx.save(graph(CONCAT), tmp_path / "f.onnx")
    calibrate(tmp_path)
    made = onnx.load(tmp_path / "q.onnx")
    scale = constant(made, "x_scale")
    proto = onnx.load(tmp_path / "f.onnx")
    proto.graph.output.append(onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, None))
    fed = next(images().batches())
    largest = (
        onnxruntime.InferenceSession(proto.SerializeToString()).run(["r"], {"x": fed})[0].max()
    )
    assert largest > np.abs(fed).max()
    assert scale == pytest.approx(largest / 127, rel=1e-5)


def test_weights_are_int8_along_their_output_channels() -> None:
    text = """g (float[n,3,8,8] x) => (float[n,5] z) {
      [up] u = ConvTranspose<kernel_shape=[1,1]>(x, t)
      [mean] v = GlobalAveragePool(x)
      [flat] f = Flatten(v)
      [fc] h = Gemm<transB=1>(f, g)
      [mm] k = MatMul(f, m)
      [sum] z = Add(h, k)
    }"""
    made = placed(text)
    for name, axis in (("t", 1), ("g", 0), ("m", 1)):
        weight, scale = constant(made, f"{name}_quantized"), constant(made, f"{name}_scale")
        node = next(n for n in made.graph.node if n.name == f"{name}_DequantizeLinear")
        assert node.attribute[0].i == axis
        assert weight.dtype == np.int8
        assert scale.shape == (weight.shape[axis],)
        others = tuple(i for i in range(weight.ndim) if i != axis)
        assert (np.abs(weight.astype(int)).max(axis=others) == 127).all()
    assert not {t.name for t in made.graph.initializer} & {"t", "g", "m"}


def test_a_channel_of_zeros_has_a_scale() -> None:
    made = placed(IDENTITY_BLOCK)
    assert constant(made, "w1_scale")[1] == 1.0
    assert not constant(made, "w1_quantized")[1].any()


def test_nodes_left_in_float_are_as_they_were() -> None:
    made = placed(IDENTITY_BLOCK, frozenset({"c2", "add"}))
    assert inputs(made, "c1") == ["q:x", "q:w1", "b1"]
    assert inputs(made, "c2") == ["r", "w2"]
    assert inputs(made, "add") == ["b", "x"]


def test_the_same_graph_gives_the_same_bytes() -> None:
    first, second = (placed(CONCAT).SerializeToString() for _ in range(2))
    assert first == second


def test_int8_computes_what_float_does(tmp_path: Path) -> None:
    onnx.save(graph(CONCAT), tmp_path / "f.onnx")
    calibrate(tmp_path)
    assert check_qdq(tmp_path / "q.onnx", strict=True) == 4
    fed = next(images().batches())
    results = [
        onnxruntime.InferenceSession(tmp_path / name).run(None, {"x": fed})[0]
        for name in ("f.onnx", "q.onnx")
    ]
    assert np.linalg.norm(results[0] - results[1]) < 0.03 * np.linalg.norm(results[0])


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        (Quantization(activations="uint8"), "uint8 activations with 8-bit weights"),
        (Quantization(reduce_range=True), "int8 activations with 7-bit weights"),
    ],
)
def test_what_tensorrt_does_not_take_is_refused(
    scheme: Quantization, words: str, tmp_path: Path
) -> None:
    onnx.save(graph(CONCAT), tmp_path / "f.onnx")
    with pytest.raises(ProfileError) as caught:
        calibrate(tmp_path, scheme)
    assert words in caught.value.what
    assert "activations: int8" in caught.value.fix


def images() -> Calibration:
    from edgexfer.core.preprocess import Preprocess

    pixels = np.random.default_rng(1).integers(0, 256, (16, 8, 8, 3), np.uint8)
    return Calibration(pixels, Preprocess(size=(8, 8), resize=8), ("",) * len(pixels))


def calibrate(folder: Path, scheme: Quantization | None = None) -> None:
    scheme = scheme or Quantization()
    quantize_qdq(folder / "f.onnx", folder / "q.onnx", images(), scheme, restricted=True)


def constant(proto: onnx.ModelProto, name: str) -> np.ndarray:
    return np.asarray(
        numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == name))
    )
