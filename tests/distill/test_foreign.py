"""Teachers that are a bundle or a bare ONNX file, run by the runtimes themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edgexfer.bench.feed import normalise
from edgexfer.core.bundle import read_manifest
from edgexfer.core.codec import encode
from edgexfer.core.errors import BackendError, BundleError, ModelError, RecipeError
from edgexfer.core.files import sha256_file
from edgexfer.core.model import ModelCard
from edgexfer.distill.foreign import SessionModel, open_onnx, read_card
from edgexfer.distill.teacher import Teacher, load_teacher
from edgexfer.export.lower import Lowering
from edgexfer.models.normalise import PixelModel
from tests.bundles import LABELS, PREPROCESS, SIZE, make_bundle, reseal, write_onnx

pytestmark = [pytest.mark.torch, pytest.mark.ort]

CARD = f"""
classes: [cat, dog, owl]
preprocess: {{size: [{SIZE}, {SIZE}], resize: {SIZE}, mode: squash}}
"""


def pixels(n: int = 5) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)


def as_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def by_hand(model: Path, images: np.ndarray) -> np.ndarray:
    """Run a file in ONNX Runtime itself, one image at a time."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    fed = normalise(images, PREPROCESS)
    return np.concatenate(
        [session.run(None, {"images": fed[i : i + 1]})[0] for i in range(len(fed))]
    )


def member(teacher: Teacher) -> SessionModel:
    inner = teacher.members()[0].model
    assert isinstance(inner, SessionModel)
    return inner


@pytest.fixture
def card(tmp_path: Path) -> Path:
    place = tmp_path / "card.yaml"
    place.write_text(CARD)
    return place


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "teacher.onnx")


def changed(model: Path, change: Any) -> Path:
    """Write a file anew after ``change`` had its proto."""
    proto = onnx.load(model)
    change(proto)
    onnx.save(proto, model)
    return model


def fix_batch(proto: onnx.ModelProto) -> None:
    for port in (*proto.graph.input, *proto.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = 2


def add_softmax(proto: onnx.ModelProto) -> None:
    proto.graph.node[-1].output[0] = "raw"
    proto.graph.node.append(helper.make_node("Softmax", ["raw"], ["logits"], axis=1))


def add_facts(proto: onnx.ModelProto) -> None:
    import json

    facts = {"edgexfer.classes": list(LABELS), "edgexfer.preprocess": encode(PREPROCESS)}
    helper.set_model_props(proto, {k: json.dumps(v) for k, v in facts.items()})


def test_an_onnx_file_teaches_with_what_its_card_says(model: Path, card: Path) -> None:
    images = pixels()
    teacher = load_teacher(model, ("owl", "cat"), card=card)
    expected = torch.from_numpy(by_hand(model, images)[:, [2, 0]])
    torch.testing.assert_close(teacher.logits(as_tensor(images)), expected)
    assert teacher.reordered and teacher.modules_for_features is None
    assert not list(teacher.parameters())


def test_an_onnx_file_that_says_all_of_itself_needs_no_card(model: Path, card: Path) -> None:
    teacher = load_teacher(changed(model, add_facts), LABELS)
    assert open_onnx(model, None).sha256 == sha256_file(model)
    x = as_tensor(pixels())
    assert teacher(x).equal(load_teacher(model, LABELS, card=card)(x))


def test_a_fixed_batch_is_filled_up(model: Path, card: Path) -> None:
    images = pixels(5)
    expected = by_hand(model, images)
    teacher = load_teacher(changed(model, fix_batch), LABELS, card=card)
    torch.testing.assert_close(teacher.logits(as_tensor(images)), torch.from_numpy(expected))


def test_probabilities_are_turned_back_into_logits(model: Path, card: Path) -> None:
    images = pixels()
    logits = torch.from_numpy(by_hand(model, images))
    teacher = load_teacher(changed(model, add_softmax), LABELS, card=card)
    torch.testing.assert_close(teacher.logits(as_tensor(images)), logits.log_softmax(1))
    assert teacher.notes == (f"{model}: gives probabilities; their logarithm is taken for logits",)


def test_the_file_of_an_export_says_all_of_itself(tmp_path: Path) -> None:
    layers = (nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    inner = nn.Sequential(*layers).eval()
    card = ModelCard("edgexfer.model/1", "own", LABELS, PREPROCESS, 0, "0" * 64, "scratch")
    place = Lowering(inner, card, tmp_path, None).onnx().files[0]
    teacher = load_teacher(place, LABELS)
    images = as_tensor(pixels())
    with torch.no_grad():
        expected = PixelModel(inner, PREPROCESS)(images)
    torch.testing.assert_close(teacher.logits(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=pytest.mark.ov)])
def test_a_bundle_teaches_with_its_most_precise_artefact(tmp_path: Path, backend: str) -> None:
    bundle = make_bundle(tmp_path / "bundle", [f"{backend}-int8", f"{backend}-fp32"], images=0)
    teacher = load_teacher(bundle, LABELS)
    assert member(teacher).program.precision == "fp32" and teacher.notes == ()
    expected = by_hand(write_onnx(tmp_path / "same.onnx"), pixels())
    answers = teacher.logits(as_tensor(pixels()))
    torch.testing.assert_close(answers, torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


def test_a_program_of_torch_teaches_without_its_code(tmp_path: Path) -> None:
    teacher = load_teacher(make_bundle(tmp_path / "bundle", ["torch-fp32"], images=0), LABELS)
    images = as_tensor(pixels())
    answers = teacher(images)
    torch.testing.assert_close(answers[:1], teacher(images[:1]), rtol=1e-2, atol=1e-3)
    assert member(teacher).program.backend == "torch" and answers.std(0).min() > 0
    assert teacher.modules_for_features is None


def test_a_bundle_of_int8_alone_says_so(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", ["onnxruntime-int8"], images=0)
    teacher = load_teacher(bundle, LABELS)
    assert teacher.notes == (f"{bundle}: teaches in int8, it holds no fp32",)


def test_a_damaged_bundle_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", ["onnxruntime-fp32"], images=0)
    model = next(bundle.rglob("*.onnx"))
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    with pytest.raises(BundleError, match="differs from the manifest"):
        load_teacher(bundle, LABELS)


def test_a_bundle_that_cannot_run_here_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", ["onnxruntime-fp32"], images=0)
    manifest = read_manifest(bundle)
    foreign = dataclasses.replace(manifest.artefacts[0], backend="tensorrt")
    reseal(bundle, dataclasses.replace(manifest, artefacts=(foreign,)))
    with pytest.raises(BackendError, match="none of its artefacts runs here") as caught:
        load_teacher(bundle, LABELS)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("text", "what"),
    [(None, "says nothing of its classes"), ("classes: [cat, dog, owl]\n", "of its preprocess")],
)
def test_what_a_file_does_not_say_is_asked_for(
    model: Path, card: Path, text: Any, what: str
) -> None:
    if text:
        card.write_text(text)
    with pytest.raises(ModelError, match=what) as caught:
        load_teacher(model, LABELS, card=card if text else None)
    assert "preprocess: {size: [224, 224]" in caught.value.fix
    assert "--teacher-card" in caught.value.fix


def test_the_mend_of_a_missing_card_is_a_card(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_teacher(model, LABELS)
    lines = [part for i, part in enumerate(caught.value.fix.split("`")) if i % 2]
    (tmp_path / "shown.yaml").write_text("\n".join(lines))
    shown = read_card(tmp_path / "shown.yaml")
    assert shown.classes == ("cat", "dog") and shown.preprocess is not None


def test_a_card_that_contradicts_the_file_is_refused(model: Path, card: Path) -> None:
    card.write_text(CARD.replace("cat, dog", "dog, cat"))
    with pytest.raises(ModelError, match="give different classes") as caught:
        load_teacher(changed(model, add_facts), LABELS, card=card)
    assert "leave classes out" in caught.value.fix


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("classes", "klasses", r"unknown key klasses \(line 2\)"),
        ("resize:", "rezise:", r"unknown key preprocess.rezise \(line 3\)"),
        ("dog", "cat", "class 'cat' stands twice"),
        ("mode: squash", "mode: fit", r"card.yaml: preprocess.mode is 'fit'"),
    ],
)
def test_a_wrong_card_is_refused(card: Path, old: str, new: str, what: str) -> None:
    card.write_text(CARD.replace(old, new))
    with pytest.raises(RecipeError, match=what) as caught:
        read_card(card)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (f"[{SIZE}, {SIZE}]", "[8, 8]", "takes float32"),
        ("[cat, dog, owl]", "[cat, dog, owl, yak]", "gives float32"),
    ],
)
def test_a_card_of_another_model_is_refused(
    model: Path, card: Path, old: str, new: str, what: str
) -> None:
    card.write_text(CARD.replace(old, new))
    with pytest.raises(ModelError, match=what) as caught:
        load_teacher(model, LABELS, card=card)
    assert "check its classes and size" in caught.value.fix


@pytest.mark.parametrize("content", [b"", b"\x00not a model", None])
def test_what_is_no_onnx_is_refused(tmp_path: Path, card: Path, content: bytes | None) -> None:
    place = tmp_path / "other.onnx"
    if content is not None:
        place.write_bytes(content)
    with pytest.raises(ModelError, match=r"ONNX file|no such file"):
        load_teacher(place, LABELS, card=card)


def external(model: Path, location: str) -> Path:
    """Make a file say that a weight of a nested graph lies at ``location``."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    graph = helper.make_graph([], "inner", [], [], [tensor])
    node = helper.make_node("If", ["c"], ["d"], then_branch=graph, else_branch=graph)
    return changed_raw(model, node)


def changed_raw(model: Path, node: onnx.NodeProto) -> Path:
    proto = onnx.load(model)
    proto.graph.node.append(node)
    model.write_bytes(proto.SerializeToString())
    return model


@pytest.mark.parametrize("location", ["/etc/hostname", "../secret.bin", "link.bin", ""])
def test_weights_at_an_unsafe_place_are_refused(model: Path, card: Path, location: str) -> None:
    (model.parent.parent / "secret.bin").write_bytes(b"\0" * 16)
    (model.parent / "link.bin").symlink_to(model.parent.parent / "secret.bin")
    with pytest.raises(ModelError, match="unsafe place") as caught:
        load_teacher(external(model, location), LABELS, card=card)
    assert "onnx.save" in caught.value.fix


def test_missing_weights_are_named(model: Path, card: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.bin: is missing"):
        load_teacher(external(model, "gone.bin"), LABELS, card=card)


def test_weights_beside_the_file_are_taken_and_decide_the_identity(model: Path, card: Path) -> None:
    images = as_tensor(pixels())
    whole = load_teacher(model, LABELS, card=card)(images)
    onnx.save_model(
        onnx.load(model), model, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    teacher = load_teacher(model, LABELS, card=card)
    assert teacher(images).equal(whole)
    before = open_onnx(model, read_card(card)).sha256
    beside = model.parent / "w.bin"
    beside.write_bytes(b"\0" * beside.stat().st_size)
    assert open_onnx(model, read_card(card)).sha256 != before
