"""The ONNX file is what was asked for, and says nothing of the machine that wrote it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from timm.layers import StdConv2d
from torch import Tensor, nn

from edgexfer.bench.compare import compare
from edgexfer.bench.feed import run_once
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.errors import ModelError
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.profile import Quantization
from edgexfer.export.half import to_half
from edgexfer.export.program import export_program
from edgexfer.models.create import create_model
from edgexfer.models.onnx import OPSET, check_onnx, export_onnx
from edgexfer.models.store import load_model
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.qdq import quantize_qdq


class Branching(nn.Module):
    """Decides by the data, which no graph can."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 16 * 16, 2)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        scores: Tensor = self.fc(flat)
        return scores if flat.sum() > 0 else -scores


class Overwriting(nn.Module):
    """A convolution, whose shortcut also holds what the activation writes over it."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 2, 16), nn.Hardswish(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        before = self.conv(x).flatten(1)
        both: Tensor = before + self.act(before)
        return both


@pytest.mark.parametrize("inplace", [True, False])
def test_what_a_layer_writes_over_its_input_is_exported(inplace: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = Overwriting(inplace).eval(), torch.rand(2, 3, 16, 16)
    file = export_onnx(model, (16, 16), tmp_path / "m.onnx")
    session = get_backend("onnxruntime").load(file, Plan())
    with torch.no_grad():
        np.testing.assert_allclose(run_once(session, images.numpy()), model(images), atol=1e-6)


def test_layers_are_as_before_their_export(tmp_path: Path) -> None:
    layers = [nn.Conv2d(3, 2, 16), nn.Hardswish(inplace=True), nn.Flatten()]
    model = nn.Sequential(*layers).eval()
    export_onnx(model, (16, 16), tmp_path / "m.onnx")
    assert model[1].inplace


def _branched() -> nn.Module:
    """Return a RepVGG whose batch norms all do something, and differ."""
    model, _ = create_model("repvgg_a0", 2, seed=0)
    chance = torch.Generator().manual_seed(1)
    for norm in [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]:
        for tensor, low in ((norm.running_mean, -0.1), (norm.running_var, 0.5), (norm.weight, 0.5)):
            assert tensor is not None
            tensor.data = low + torch.rand(tensor.shape, generator=chance)
    return model.eval()


def test_branches_that_are_for_training_alone_become_one_layer(tmp_path: Path) -> None:
    model = _branched()
    names = [name for name, _ in model.named_parameters()]
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(images).numpy()
    files = {
        merge: export_onnx(model, (32, 32), tmp_path / f"{merge}.onnx", merge=merge)
        for merge in (True, False)
    }
    blocks = sum(1 for m in model.modules() if type(m).__name__ == "RepVggBlock")
    counts = {
        merge: [node.op_type for node in onnx.load(file).graph.node].count("Conv")
        for merge, file in files.items()
    }
    assert counts == {True: blocks, False: 2 * blocks}
    for file in files.values():
        found = run_once(get_backend("onnxruntime").load(file, Plan()), images.numpy())
        assert compare(expected, found).at_least(100)
    assert [name for name, _ in model.named_parameters()] == names


def test_the_file_is_as_asked(fp32: Path) -> None:
    proto = onnx.load(fp32)
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", OPSET)]
    ends = [*proto.graph.input, *proto.graph.output]
    shapes = {
        e.name: [d.dim_param or d.dim_value for d in e.type.tensor_type.shape.dim] for e in ends
    }
    assert shapes == {"images": ["batch", 3, 16, 16], "logits": ["batch", 10]}
    assert "BatchNormalization" not in {n.op_type for n in proto.graph.node}
    assert sorted(p.name for p in fp32.parent.iterdir()) == [fp32.name]


@pytest.mark.parametrize("opset", [18, 20])
def test_the_opset_is_really_written(opset: int, run: Path, tmp_path: Path) -> None:
    model, card = load_model(run)
    place = export_onnx(model, card.preprocess.size, tmp_path / "m.onnx", opset=opset)
    assert check_onnx(place) == opset


def test_an_opset_that_the_exporter_cannot_write_is_refused(run: Path, tmp_path: Path) -> None:
    model, card = load_model(run)
    with pytest.raises(ModelError) as caught:
        export_onnx(model, card.preprocess.size, tmp_path / "m.onnx", opset=13)
    assert "holds opset 18, asked for 13" in caught.value.what
    assert f"use opset {OPSET}" in caught.value.fix


def test_metadata_is_kept_and_nothing_else_is(run: Path, tmp_path: Path) -> None:
    model, card = load_model(run)
    place = tmp_path / "m.onnx"
    export_onnx(model, card.preprocess.size, place, metadata={"edgexfer.classes": ["é", "b"]})
    proto = onnx.load(place)
    assert [(p.key, p.value) for p in proto.metadata_props] == [
        ("edgexfer.classes", '["\\u00e9", "b"]')
    ]
    assert not any(n.metadata_props or n.doc_string for n in proto.graph.node)
    assert b".py" not in place.read_bytes()


def test_two_exports_are_equal_to_the_byte(run: Path, tmp_path: Path) -> None:
    model, card = load_model(run)
    for name in ("a", "b"):
        export_onnx(model, card.preprocess.size, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_channels_last_model_gives_the_same_file(run: Path, tmp_path: Path, fp32: Path) -> None:
    model, card = load_model(run)
    last = model.to(memory_format=torch.channels_last)
    export_onnx(last, card.preprocess.size, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == fp32.read_bytes()


def test_the_exporter_says_nothing(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, card = load_model(run)
    export_onnx(model, card.preprocess.size, tmp_path / "m.onnx")
    export_program(model, card.preprocess.size, tmp_path / "m.pt2")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("write", [export_onnx, export_program])
def test_the_model_is_as_before(write: Callable[..., Path], run: Path, tmp_path: Path) -> None:
    model, card = load_model(run)
    model.train()
    frozen = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    write(model, card.preprocess.size, tmp_path / "m")
    assert model.training
    assert not frozen.training
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())


@pytest.mark.parametrize("write", [export_onnx, export_program])
def test_a_model_that_branches_on_data_is_named(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        write(Branching(), (16, 16), tmp_path / "m")
    assert "model Branching cannot be exported" in caught.value.what
    assert "data-dependent control flow" in caught.value.fix


def rename_output(proto: onnx.ModelProto) -> None:
    proto.graph.node[-1].output[0] = proto.graph.output[0].name = "scores"


def foreign_operator(proto: onnx.ModelProto) -> None:
    proto.opset_import.append(helper.make_opsetid("com.example", 1))


def cut_a_wire(proto: onnx.ModelProto) -> None:
    proto.graph.node[3].input[0] = "nowhere"


BREACHES: dict[Callable[[onnx.ModelProto], None], str] = {
    rename_output: "has inputs and outputs (['images'], ['scores'])",
    foreign_operator: "needs operators of com.example",
    cut_a_wire: "is not a valid ONNX model",
}


@pytest.mark.parametrize("breach", BREACHES, ids=lambda f: str(f.__name__))
def test_a_file_that_is_not_ours_is_refused(
    breach: Callable[[onnx.ModelProto], None], fp32: Path, tmp_path: Path
) -> None:
    proto = onnx.load(fp32)
    breach(proto)
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError) as caught:
        check_onnx(tmp_path / "m.onnx")
    assert BREACHES[breach] in caught.value.what
    assert caught.value.fix


def test_weights_in_another_file_are_refused(fp32: Path, tmp_path: Path) -> None:
    onnx.save(onnx.load(fp32), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    with pytest.raises(ModelError, match="keeps its weights in another file"):
        check_onnx(tmp_path / "m.onnx")


def test_each_layer_has_a_bias_of_its_own_so_that_int8_can_be_made_of_it(tmp_path: Path) -> None:
    """One bias for all of many norms was copied by ONNX Runtime under the name of a tensor."""
    parts = [nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.GroupNorm(1, 4)) for _ in range(16)]
    model = nn.Sequential(nn.Conv2d(3, 4, 1), *parts, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    file = export_onnx(model, (8, 8), tmp_path / "f.onnx")
    norms = [n for n in onnx.load(file).graph.node if n.op_type == "InstanceNormalization"]
    assert len({n.input[2] for n in norms}) == len(norms) == 16
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    images = Calibration(pixels, Preprocess(size=(8, 8), resize=8), ("",) * 4)
    scheme = Quantization(activations="uint8")
    quantize_qdq(file, tmp_path / "q.onnx", images, scheme, restricted=False)


@pytest.mark.parametrize("merge", [True, False])
def test_weights_that_are_standardised_are_so_once_and_for_all(merge: bool, tmp_path: Path) -> None:
    """Else each inference computes them, and INT8 takes them for activations."""
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 32, 1), StdConv2d(32, 64, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model = nn.Sequential(*parts).eval()
    file = export_onnx(model, (8, 8), tmp_path / "f.onnx", merge=merge)
    graph = onnx.load(file).graph
    held = {tensor.name for tensor in graph.initializer}
    weights = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    assert len(weights) == 2
    assert (set(weights) <= held) == merge
    images = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        wanted = model(images).numpy()
    found = run_once(get_backend("onnxruntime").load(file, Plan()), images.numpy())
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_half_keeps_the_ends_and_types_the_inside(fp32: Path, tmp_path: Path) -> None:
    proto = onnx.load(to_half(fp32, tmp_path / "half.onnx"))
    kinds = {t.data_type for t in proto.graph.initializer}
    assert onnx.TensorProto.FLOAT not in kinds
    ends = [*proto.graph.input, *proto.graph.output]
    assert {e.type.tensor_type.elem_type for e in ends} == {onnx.TensorProto.FLOAT}
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * fp32.stat().st_size


def test_half_names_a_file_that_it_cannot_type(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08")
    with pytest.raises(ModelError) as caught:
        to_half(tmp_path / "m.onnx", tmp_path / "half.onnx")
    assert "m.onnx: cannot be typed as FP16" in caught.value.what
    assert "--precision fp32" in caught.value.fix


class Summing(nn.Module):
    """Sums one tensor along two axes, which FP16 is not trusted with."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 0.1
        return (torch.cumsum(y, 2) + torch.cumsum(y, 3)).mean((2, 3))


def test_half_leaves_two_nodes_of_one_input_in_float(tmp_path: Path) -> None:
    file = export_onnx(Summing().eval(), (8, 8), tmp_path / "m.onnx")
    half = to_half(file, tmp_path / "half.onnx")
    kinds = [node.op_type for node in onnx.load(half).graph.node]
    assert (kinds.count("CumSum"), kinds.count("Cast")) == (2, 5)
    images = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
    exact, found = (
        run_once(get_backend("onnxruntime").load(f, Plan()), images) for f in (file, half)
    )
    assert compare(exact, found).at_least(50)
