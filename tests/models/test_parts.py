"""Heads, freezing, parameter groups, normalisation and the stored model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgexfer.core.errors import ModelError, RunError
from edgexfer.core.preprocess import Preprocess
from edgexfer.models.create import create_model, default_preprocess
from edgexfer.models.freeze import freeze, freeze_backbone
from edgexfer.models.groups import parameter_groups
from edgexfer.models.head import head_names, head_parameters, head_size, set_head, stages
from edgexfer.models.normalise import PixelModel
from edgexfer.models.store import load_model, save_model

pytestmark = pytest.mark.torch

HEADS = {
    "resnet8": ("fc",),
    "mobilenetv4_conv_small": ("classifier",),
    "convnext_atto": ("head.fc",),
    "vit_tiny_patch16_224": ("head",),
    "deit_tiny_distilled_patch16_224": ("head", "head_dist"),
}


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    return {name: create_model(name, 7)[0] for name in HEADS}


@pytest.mark.parametrize("name", HEADS)
def test_the_head_is_found_and_all_else_is_backbone(
    models: dict[str, nn.Module], name: str
) -> None:
    model = models[name]
    assert head_names(model) == HEADS[name] and head_size(model) == 7
    assert {p.shape[0] for p in head_parameters(model).values()} == {7}
    found = [parameter for stage in stages(model) for parameter in stage]
    assert sorted(found) == sorted(n for n, _ in model.named_parameters())


def test_a_model_without_head_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        head_names(nn.Sequential(nn.Conv2d(3, 4, 1)))
    assert "Sequential: has no classification head" in caught.value.what
    with pytest.raises(ModelError):
        head_names(create_model("mobilenetv3_small_050", 0)[0])


def test_a_new_head_is_a_function_of_its_seed() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    heads = []
    for seed in (1, 1, 2):
        model, _ = create_model("mobilenetv3_small_050", 10)
        set_head(model, 3, seed=seed)
        heads.append(model.get_parameter("classifier.weight"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert heads[0].shape[0] == 3
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize("name", HEADS)
def test_probing_freezes_all_but_the_head(name: str) -> None:
    model, _ = create_model(name, 7)
    held = freeze_backbone(model)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(
        head_parameters(model)
    )
    for module in held:
        module.eval()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(m.training for m in norms)


@pytest.mark.parametrize(
    ("name", "until", "moving"),
    [
        ("resnet8", None, ("layer3.", "fc.")),
        ("resnet8", "conv1", ("bn1.", "layer1.", "layer2.", "layer3.", "fc.")),
        ("resnet8", "layer2.0.conv1", ("layer2.0.bn1", "layer2.0.conv2", "layer2.0.bn2",
                                       "layer2.0.downsample", "layer3.", "fc.")),
        ("mobilenetv4_conv_small", None, ("blocks.4.", "conv_head.", "norm_head.", "classifier.")),
        ("mobilenetv4_conv_small", "blocks.1", ("blocks.2.", "blocks.3.", "blocks.4.", "conv_head.",
                                                "norm_head.", "classifier.")),
        ("vit_tiny_patch16_224", "blocks.10", ("blocks.11.", "norm.", "head.")),
    ],
)  # fmt: skip
def test_freezing_stops_where_it_is_told(
    name: str, until: str | None, moving: tuple[str, ...]
) -> None:
    model, _ = create_model(name, 7)
    held = freeze(model, until)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable == {n for n, _ in model.named_parameters() if n.startswith(moving)}
    inside = {id(p) for module in held for p in module.parameters()}
    assert not inside & {id(p) for n, p in model.named_parameters() if n in trainable}


def test_an_unknown_layer_offers_the_nearest() -> None:
    model, _ = create_model("resnet8", 7)
    for until in ("layr2", "fc", "layer"):
        with pytest.raises(ModelError) as caught:
            freeze(model, until)
        assert f"layer {until!r}: CifarResNet has no such layer" in caught.value.what
    with pytest.raises(ModelError) as caught:
        freeze(model, "layr2")
    assert "'layer2'" in caught.value.fix


def test_groups_hold_each_trainable_parameter_once() -> None:
    model, _ = create_model("vit_tiny_patch16_224", 7)
    freeze(model, "blocks.5")
    groups = {
        g["name"]: g for g in parameter_groups(model, lr=1.0, backbone_lr=0.1, weight_decay=0.05)
    }
    assert {n: (g["lr"], g["weight_decay"]) for n, g in groups.items()} == {
        "head": (1.0, 0.05),
        "head_no_decay": (1.0, 0.0),
        "backbone": (0.1, 0.05),
        "backbone_no_decay": (0.1, 0.0),
    }
    held = [id(p) for g in groups.values() for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert all(p.ndim > 1 for n in ("head", "backbone") for p in groups[n]["params"])


def test_each_stage_below_the_head_moves_less() -> None:
    model, _ = create_model("resnet8", 7)
    groups = parameter_groups(
        model, lr=1.0, backbone_lr=0.8, weight_decay=0.05, layer_decay=0.5, decay_all=True
    )
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    found = {n.split(".")[0]: rates[id(p)] for n, p in model.named_parameters()}
    stages = {"layer3": 0.4, "layer2": 0.2, "layer1": 0.1, "conv1": 0.05, "bn1": 0.05}
    assert found == {"fc": 1.0, **stages}


def test_everything_decays_where_asked_for() -> None:
    model, _ = create_model("resnet8", 7)
    groups = parameter_groups(model, lr=1.0, backbone_lr=1.0, weight_decay=0.05, decay_all=True)
    assert {g["name"]: g["weight_decay"] for g in groups} == {"head": 0.05, "backbone": 0.05}
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))


def test_what_an_architecture_exempts_has_no_decay() -> None:
    model, _ = create_model("vit_tiny_patch16_224", 7)
    for decay_all in (False, True):
        groups = parameter_groups(
            model, lr=1.0, backbone_lr=0.1, weight_decay=0.05, decay_all=decay_all
        )
        exempt = next(g for g in groups if g["name"] == "backbone_no_decay")["params"]
        assert any(p is model.get_parameter("pos_embed") for p in exempt)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_pixels_are_normalised_to_the_bits_of_two_float32_operations(channels: str) -> None:
    preprocess = Preprocess((4, 6), 6, channels=channels)
    pixels = torch.randint(0, 256, (2, 3, 4, 6), dtype=torch.uint8)
    scale, bias = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in preprocess.affine())
    expected = pixels.numpy().astype(np.float32) * scale
    expected = expected + bias
    expected = expected[:, ::-1] if channels == "BGR" else expected
    for given in (pixels, pixels.float(), pixels.contiguous(memory_format=torch.channels_last)):
        found = PixelModel(nn.Identity(), preprocess)(given)
        assert found.dtype == torch.float32
        assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_pixels_of_another_size_are_resized_within_their_range(interpolation: str) -> None:
    preprocess = Preprocess(
        (8, 8), 8, interpolation=interpolation, mean=(0, 0, 0), std=(1 / 255,) * 3
    )
    flat = torch.full((1, 3, 20, 30), 100.0)
    model = PixelModel(nn.Identity(), preprocess)
    assert model(flat).shape == (1, 3, 8, 8)
    torch.testing.assert_close(model(flat), torch.full((1, 3, 8, 8), 100.0))
    edges = (torch.rand(1, 3, 5, 5) > 0.5) * 255
    assert float(model(edges).min()) >= 0 and float(model(edges).max()) <= 255.001


def test_a_stored_model_comes_back_to_the_bit(tmp_path: Path) -> None:
    model, origin = create_model("mobilenetv3_small_050", 3, options={"drop_rate": 0.2}, seed=1)
    model.to(memory_format=torch.channels_last)
    card = save_model(
        tmp_path,
        model,
        name="mobilenetv3_small_050",
        classes=("a", "b", "no"),
        preprocess=default_preprocess("mobilenetv3_small_050", 64),
        origin=origin,
        options={"drop_rate": 0.2},
    )
    loaded, found = load_model(tmp_path)
    assert found == card and found.classes == ("a", "b", "no")
    assert card.parameters == sum(p.numel() for p in model.parameters())
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


def test_a_stored_model_that_changed_is_refused(tmp_path: Path) -> None:
    stored(tmp_path)
    place = tmp_path / "model" / "weights.safetensors"
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(bytes(data))
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path)
    assert f"{place}: differs from what was trained" in caught.value.what
    place.unlink()
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path)
    assert "no such weights file" in caught.value.what


def test_classes_that_do_not_fit_the_weights_are_refused(tmp_path: Path) -> None:
    stored(tmp_path)
    card = tmp_path / "model" / "model.json"
    card.write_text(card.read_text().replace('"b"', '"b",\n    "c"'))
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path)
    assert "tensor fc.weight has shape 2x64, CifarResNet needs 3x64" in caught.value.what


def test_a_run_without_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        load_model(tmp_path)
    assert "holds no trained model" in caught.value.what


def stored(run: Path) -> None:
    model, origin = create_model("resnet8", 2)
    save_model(
        run,
        model,
        name="resnet8",
        classes=("a", "b"),
        preprocess=default_preprocess("resnet8"),
        origin=origin,
        options={},
    )
