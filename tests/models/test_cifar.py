"""edgexfer's own networks: the literature's sizes, timm's conventions, and a way into ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from edgexfer.models.cifarnet import CifarNet, shuffle_channels
from edgexfer.models.create import ARCHITECTURES, create_model, default_preprocess
from edgexfer.models.freeze import freeze
from edgexfer.models.head import head_parameters, set_head, stages
from edgexfer.models.onnx import OPSET, check_onnx, export_onnx

pytestmark = pytest.mark.torch

# Parameters with 100 classes, as the networks of the benchmark's own repository have them
# (github.com/HobbitLong/RepDistiller), and as the literature rounds them: in millions.
PARAMETERS = {
    "resnet8": (83_892, 0.08),
    "resnet14": (181_108, 0.18),
    "resnet20": (278_324, 0.28),
    "resnet32": (472_756, 0.47),
    "resnet44": (667_188, 0.67),
    "resnet56": (861_620, 0.86),
    "resnet110": (1_736_564, 1.74),
    "resnet8x4": (1_233_540, 1.23),
    "resnet32x4": (7_433_860, 7.43),
    "resnet50_cifar": (23_705_252, 23.71),
    "wrn_16_2": (703_284, 0.70),
    "wrn_40_1": (569_780, 0.57),
    "wrn_40_2": (2_255_156, 2.26),
    "vgg8": (3_965_028, 3.97),
    "vgg13_cifar": (9_462_180, 9.46),
    "shufflenetv1": (949_258, 0.95),
    "shufflenetv2": (1_355_528, 1.36),
    "mobilenetv2_half": (812_836, 0.81),
}
# One of each family, with its last stage and what stands between that and the head.
FAMILIES = {
    "resnet8": ("layer3", ()),
    "resnet50_cifar": ("layer4", ()),
    "wrn_16_2": ("layer3", ("norm.",)),
    "vgg8": ("layer5", ()),
    "shufflenetv1": ("layer3", ()),
    "shufflenetv2": ("layer3", ("last.", "norm.")),
    "mobilenetv2_half": ("layer7", ("last.", "norm.")),
}


@pytest.fixture(scope="module")
def models() -> dict[str, CifarNet]:
    return {name: make(name) for name in FAMILIES}


def make(name: str, classes: int = 100) -> CifarNet:
    model, _ = create_model(name, classes)
    assert isinstance(model, CifarNet)
    return model.eval()


def test_every_own_name_is_listed_and_none_is_timms() -> None:
    assert set(ARCHITECTURES) == set(PARAMETERS)
    assert not [name for name in ARCHITECTURES if timm.is_model(name)]


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_have_the_parameters_of_the_literature(name: str) -> None:
    model = make(name)
    count = sum(p.numel() for p in model.parameters())
    assert (count, round(count / 1e6, 2)) == PARAMETERS[name]
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 100)
    preprocess = default_preprocess(name)
    assert (preprocess.size, preprocess.resize, preprocess.mode) == ((32, 32), 32, "shortest")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [32, 64])
def test_stages_give_what_they_say(models: dict[str, CifarNet], name: str, size: int) -> None:
    model = models[name]
    shapes: list[tuple[int, ...]] = []

    def note(_module: nn.Module, _args: object, output: Tensor) -> None:
        shapes.append(tuple(output.shape))

    hooked = [model.get_submodule(info["module"]) for info in model.feature_info]
    handles = [module.register_forward_hook(note) for module in hooked]
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        features = model.forward_features(images)
        logits = model.forward_head(features)
        torch.testing.assert_close(logits, model(images))
    for handle in handles:
        handle.remove()
    sides = [size // info["reduction"] for info in model.feature_info]
    told = [(2, i["num_chs"], s, s) for i, s in zip(model.feature_info, sides, strict=True)]
    assert shapes == told * 2
    assert model.feature_info[-1]["module"] == FAMILIES[name][0]
    assert features.shape[1] == model.num_features


@pytest.mark.parametrize("name", FAMILIES)
def test_heads_can_be_found_and_made_anew(name: str) -> None:
    model = make(name)
    assert set(head_parameters(model)) == {"fc.weight", "fc.bias"}
    set_head(model, 7, seed=1)
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize("name", FAMILIES)
def test_freezing_spares_the_last_stage_and_all_behind_it(name: str) -> None:
    model = make(name)
    found = [parameter for stage in stages(model) for parameter in stage]
    assert sorted(found) == sorted(n for n, _ in model.named_parameters())
    last, behind = FAMILIES[name]
    freeze(model, None)
    moving = {n for n, p in model.named_parameters() if p.requires_grad}
    expected = (f"{last}.", *behind, "fc.")
    assert moving == {n for n, _ in model.named_parameters() if n.startswith(expected)}


@pytest.mark.ort
@pytest.mark.parametrize("name", FAMILIES)
def test_onnx_runtime_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    import onnxruntime

    model = make(name, 10)
    torch.manual_seed(0)
    images = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        # Statistics of real activations, without which those of an untrained net explode.
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        model.train()(images)
        expected = model.eval()(images).numpy()
    place = export_onnx(model, (32, 32), tmp_path / "model.onnx")
    assert check_onnx(place, OPSET) == OPSET
    session = onnxruntime.InferenceSession(place, providers=["CPUExecutionProvider"])
    for batch in (4, 1):
        found = session.run(None, {"images": images[:batch].numpy()})[0]
        np.testing.assert_allclose(found, expected[:batch], rtol=1e-3, atol=1e-4)


def test_a_shuffle_deals_the_groups_out_in_turn() -> None:
    channels = torch.arange(6.0).view(1, 6, 1, 1).expand(2, 6, 2, 3)
    found = shuffle_channels(channels, 3)
    assert found.shape == (2, 6, 2, 3)
    assert found[0, :, 0, 0].tolist() == [0, 2, 4, 1, 3, 5]
    assert torch.equal(shuffle_channels(channels, 1), channels)
