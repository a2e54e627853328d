"""A head with a hidden layer goes wherever a linear one does, and is known by the model's card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import edgexfer
from edgexfer.bench.accuracy import predict
from edgexfer.core.backend import Plan as Loading
from edgexfer.core.backend import get_backend
from edgexfer.core.errors import ModelError
from edgexfer.core.model import read_card
from edgexfer.models.create import create_model, head_classes
from edgexfer.models.head import Perceptron, head_names, head_size, set_head
from edgexfer.models.normalise import PixelModel
from edgexfer.models.store import load_model
from edgexfer.recipe import (
    BenchSection,
    DataSection,
    ExportSection,
    ModelSection,
    StudentSection,
    TeacherSection,
)
from tests.pictures import COLOURS, picture, write_folder
from tests.transfer.tiny import TRAIN, from_weights

pytestmark = [pytest.mark.torch, pytest.mark.ort]

HIDDEN = {"head_hidden": 8}
PICTURES = np.stack([np.asarray(picture(c, s)) for c in COLOURS.values() for s in range(90, 94)])


@pytest.fixture(scope="module")
def run(data: DataSection, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe with a perceptron."""
    place = tmp_path_factory.mktemp("perceptron") / "run"
    edgexfer.finetune(data, from_weights(weights, "probe", head="mlp", hidden=8), place)
    return place


def head_of(run: Path) -> nn.Module:
    model, card = load_model(run)
    assert card.options == HIDDEN
    return model.get_submodule(head_names(model)[0])


def test_it_is_exported_measured_and_asked(tmp_path: Path, run: Path) -> None:
    model, card = load_model(run)
    with torch.no_grad():
        pixels = torch.from_numpy(PICTURES).permute(0, 3, 1, 2)
        wanted = PixelModel(model, card.preprocess).eval()(pixels).numpy()
    manifest = edgexfer.export(
        run, ExportSection(("x86-onnxruntime",), "fp32"), tmp_path / "bundle"
    )
    assert manifest.parity and all(rung.passed for rung in manifest.parity)
    file = tmp_path / "bundle" / manifest.artefacts[0].files[0].path
    session = get_backend("onnxruntime").load(file, Loading("fp32", threads=1))
    found = predict(session, PICTURES, manifest.preprocess)
    session.close()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
    short = BenchSection(processes=1, seconds=0.01, samples=10, threads=1)
    records = edgexfer.bench(tmp_path / "bundle", tmp_path / "bench", section=short)
    assert [record.status for record in records if record.status == "failed"] == []
    with edgexfer.load_bundle(tmp_path / "bundle") as loaded:
        said = [loaded.predict(image).label for image in PICTURES]
    assert said == [manifest.labels[i] for i in wanted.argmax(1)]


def test_it_teaches_and_a_student_may_have_one(
    tmp_path: Path, data: DataSection, run: Path
) -> None:
    student = ModelSection("resnet8", size=16, options=HIDDEN)
    section = StudentSection(student, train=replace(TRAIN, epochs=1))
    edgexfer.distill(data, [run], section, tmp_path / "student")
    assert isinstance(head_of(tmp_path / "student"), Perceptron)


@pytest.mark.parametrize("options", [HIDDEN, {}, {"head_hidden": 4}])
def test_it_is_taken_up_where_the_same_is_asked_for(run: Path, options: dict[str, Any]) -> None:
    """Else the head is made anew, as one of other classes is, on the backbone that was trained."""
    theirs, _ = load_model(run)
    ours, origin = create_model("resnet8", 3, options=options, weights=run)
    assert origin == f"file:{read_card(run).weights_sha256}"
    state = ours.state_dict()
    same = {n for n, t in theirs.state_dict().items() if n in state and t.equal(state[n])}
    heads = {n for n in state if n.startswith("fc.")}
    assert set(state) - same == (set() if options == HIDDEN else heads)
    assert head_classes("resnet8", options=options, weights=run) == (None if not options else 3)


def test_what_remembers_keeps_the_former_head_with_its_hidden_layer(
    tmp_path: Path, run: Path
) -> None:
    colours = {"amber": (230, 180, 30), "green": (40, 180, 60)}
    more = DataSection(str(write_folder(tmp_path / "more", 12, colours)))
    section = TeacherSection(
        ModelSection("resnet8", size=16),
        "lwf",
        strategy_options={"old": str(run)},
        train=replace(TRAIN, epochs=1, lr=1e-12),
    )
    info = edgexfer.finetune(more, section, tmp_path / "run")
    former, model = head_of(run), head_of(tmp_path / "run")
    assert isinstance(former, Perceptron) and isinstance(model, Perceptron)
    torch.testing.assert_close(model.hidden.weight, former.hidden.weight)
    # Of the new classes, amber and green, the latter is a former one; blue and red come behind.
    torch.testing.assert_close(model.out.weight[[2, 1, 3]], former.out.weight)
    assert info.result["old_task"]["n"] > 0


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "vit_tiny_patch16_224", "resnet20"])
def test_any_architecture_with_a_linear_head_takes_one(name: str) -> None:
    more = {"img_size": 32} if name.startswith("vit") else {}
    before = torch.random.get_rng_state()
    model, _ = create_model(name, 3, options={**HIDDEN, **more}, seed=1)
    again, _ = create_model(name, 3, options={**HIDDEN, **more}, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(t.equal(again.state_dict()[n]) for n, t in model.state_dict().items())
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    # More hidden units than outputs do not make them more outputs.
    assert head_size(model) == 3 and model.eval()(pixels).shape == (2, 3)
    set_head(model, 5)
    assert head_size(model) == 5
    assert isinstance(model.get_submodule(head_names(model)[0]), nn.Linear)


@pytest.mark.parametrize(
    ("name", "hidden", "what", "fix"),
    [
        ("resnet8", 0, "head_hidden is 0", "from 1 on"),
        ("resnet8", True, "head_hidden is True", "from 1 on"),
        ("resnet8", "many", "head_hidden is 'many'", "from 1 on"),
        ("resnetv2_18", 4, "but head head.fc is not a linear layer", "leave head_hidden out"),
    ],
)
def test_a_hidden_layer_that_cannot_be_is_refused(
    name: str, hidden: Any, what: str, fix: str
) -> None:
    with pytest.raises(ModelError) as caught:
        create_model(name, 3, options={"head_hidden": hidden})
    assert what in caught.value.what and fix in caught.value.fix


def test_prototypes_and_two_heads_take_none(
    tmp_path: Path, data: DataSection, run: Path, weights: Path
) -> None:
    section = from_weights(weights, "prototype")
    section = replace(section, model=replace(section.model, options=HIDDEN))
    with pytest.raises(ModelError, match="head has a hidden layer, but prototype") as caught:
        edgexfer.finetune(data, section, tmp_path / "prototype")
    assert "head_hidden" in caught.value.fix
    name = "deit_tiny_distilled_patch16_224"
    options = {"patch_size": 8, "depth": 1}
    model, _ = create_model(name, 3, options={"img_size": 16, **options})
    place = tmp_path / "deit.safetensors"
    from safetensors.torch import save_file

    save_file(model.state_dict(), place)
    asked = ModelSection(name, 16, str(place), options=options)
    with pytest.raises(ModelError, match="has two heads") as caught:
        edgexfer.finetune(
            data,
            TeacherSection(asked, "probe", strategy_options={"head": "mlp"}, train=TRAIN),
            tmp_path / "deit",
        )
    assert "head=logistic" in caught.value.fix
