"""Models by name: own and timm's, seeded, from files, with errors that help."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgexfer.core.errors import MachineError, ModelError, RunError
from edgexfer.core.files import sha256_file
from edgexfer.models.create import complete_options, create_model, default_preprocess
from edgexfer.models.store import save_model

pytestmark = pytest.mark.torch


def same(first: nn.Module, second: nn.Module) -> bool:
    others = second.state_dict()
    return all(torch.equal(t, others[n]) for n, t in first.state_dict().items())


def test_without_weights_the_origin_is_scratch() -> None:
    assert create_model("resnet8", 3)[1] == "scratch"


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv3_small_050"])
def test_the_seed_alone_decides_and_the_global_generator_stays(name: str) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first, _ = create_model(name, 5, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(8)
    assert same(first, create_model(name, 5, seed=3)[0])
    assert not same(first, create_model(name, 5, seed=4)[0])


@pytest.mark.parametrize(
    ("name", "what", "fix"),
    [
        ("mobilenetv4_conv_smal", "model 'mobilenetv4_conv_smal' is unknown", "_conv_small'"),
        ("resnet8x5", "model 'resnet8x5' is unknown", "'resnet8x4'"),
        ("hf-hub:timm/resnet18", "is unknown", "known"),
        ("resnet18.a1_in2k", "resnet18 has no weights tag 'a1_in2k'", "'a1_in1k'"),
        ("", "model '' is unknown", "known"),
    ],
)
def test_an_unknown_name_offers_the_nearest(name: str, what: str, fix: str) -> None:
    for call in (lambda: create_model(name, 10), lambda: default_preprocess(name)):
        with pytest.raises(ModelError) as caught:
            call()
        assert what in caught.value.what and fix in caught.value.fix


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(ModelError) as caught:
        create_model("mobilenetv3_small_050", 10, options={"wide": 2})
    assert "refuses its options {'wide': 2}" in caught.value.what
    with pytest.raises(ModelError) as caught:
        create_model("resnet20", 10, options={"wide": 2})
    assert "takes no options, but got wide" in caught.value.what


def test_options_reach_the_architecture() -> None:
    model, _ = create_model("resnet18", 10, options={"zero_init_last": False})
    assert bool((model.get_parameter("layer1.0.bn2.weight") != 0).all())


def test_pretrained_weights_of_own_models_do_not_exist() -> None:
    with pytest.raises(ModelError) as caught:
        create_model("resnet20", 10, pretrained=True)
    assert "no pre-trained weights" in caught.value.what and "--weights" in caught.value.fix


def test_without_network_the_mend_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MachineError) as caught:
        create_model("mobilenetv3_small_050", 10, pretrained=True)
    assert "cannot be fetched from timm's hub" in caught.value.what
    assert "\n" not in caught.value.what and "--weights" in caught.value.fix


def test_an_unknown_hub_is_not_asked_again_and_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub.constants as constants

    def unknown(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    start = time.monotonic()
    with pytest.raises(MachineError):
        create_model("mobilenetv3_small_050", 10, pretrained=True)
    assert time.monotonic() - start < 5
    assert constants.HF_HUB_OFFLINE is False


def test_weights_and_pretrained_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        create_model("resnet18", 10, pretrained=True, weights=tmp_path / "w.safetensors")
    assert "both --pretrained and --weights" in caught.value.what


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_from_a_file(tmp_path: Path, suffix: str) -> None:
    source, _ = create_model("resnet8", 10, seed=1)
    place = write(tmp_path / f"w{suffix}", source.state_dict())
    model, origin = create_model("resnet8", 10, weights=place)
    assert same(model, source)
    assert origin == f"file:{sha256_file(place)}"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    model, origin = create_model("resnet8", 5, seed=1)
    preprocess = default_preprocess("resnet8")
    save_model(
        tmp_path / "run",
        model,
        name="resnet8",
        classes=tuple("abcde"),
        preprocess=preprocess,
        origin=origin,
        options={},
    )
    return tmp_path / "run"


def test_weights_come_from_a_run(run: Path) -> None:
    model, origin = create_model("resnet8", 5, weights=run, seed=2)
    assert same(model, create_model("resnet8", 5, seed=1)[0])
    assert origin == f"file:{sha256_file(run / 'model' / 'weights.safetensors')}"


def test_a_run_of_another_architecture_is_refused(run: Path) -> None:
    with pytest.raises(ModelError) as caught:
        create_model("resnet20", 5, weights=run)
    assert caught.value.what == (
        f"{run}: is a run of resnet8, but resnet20 is to start from its weights"
    )
    assert caught.value.fix == "name resnet8 as the model, or a run of resnet20"


def test_a_folder_without_a_model_is_refused_as_weights(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no trained model") as caught:
        create_model("resnet8", 5, weights=tmp_path)
    assert "finished" in caught.value.fix


def test_a_run_whose_weights_were_changed_is_refused(run: Path) -> None:
    write(run / "model" / "weights.safetensors", create_model("resnet8", 5)[0].state_dict())
    with pytest.raises(ModelError, match="differs from what was trained"):
        create_model("resnet8", 5, weights=run)


def test_a_head_of_other_classes_is_made_anew(tmp_path: Path) -> None:
    source, _ = create_model("resnet8", 100, seed=1)
    place = write(tmp_path / "w.safetensors", source.state_dict())
    model, _ = create_model("resnet8", 10, weights=place, seed=2)
    fresh, _ = create_model("resnet8", 10, seed=2)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert torch.equal(model.get_parameter("fc.weight"), fresh.get_parameter("fc.weight"))
    assert torch.equal(model.get_parameter("conv1.weight"), source.get_parameter("conv1.weight"))


@pytest.mark.parametrize("key", ["state_dict", "state_dict_ema", "model", "model_ema"])
def test_a_training_scripts_checkpoint_is_unwrapped(tmp_path: Path, key: str) -> None:
    source, _ = create_model("resnet8", 10, seed=1)
    prefixed = {f"module._orig_mod.{n}": t for n, t in source.state_dict().items()}
    place = tmp_path / "w.pth"
    torch.save({"epoch": 3, "arch": "resnet8", key: prefixed}, place)
    assert same(create_model("resnet8", 10, weights=place)[0], source)


def test_own_resnets_are_fed_at_32_pixels() -> None:
    preprocess = default_preprocess("resnet20")
    assert (preprocess.size, preprocess.resize, preprocess.mode) == ((32, 32), 32, "shortest")


def test_timm_models_are_fed_as_timm_says() -> None:
    preprocess = default_preprocess("mobilenetv3_small_100")
    assert preprocess.size == (224, 224) and preprocess.resize == 256
    assert preprocess.interpolation == "bicubic" and preprocess.mean == (0.485, 0.456, 0.406)
    smaller = default_preprocess("mobilenetv3_small_100", 96)
    assert smaller.size == (96, 96) and smaller.resize == 109
    assert default_preprocess("vit_tiny_patch16_224", None, {"img_size": 64}).size == (64, 64)


def test_a_size_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        default_preprocess("resnet20", 0)
    assert "size 0 is not positive" in caught.value.what


def test_a_transformer_gets_its_size_as_an_option() -> None:
    options = complete_options("vit_tiny_patch16_224", {"depth": 2}, 64)
    assert options == {"depth": 2, "img_size": 64}
    model, _ = create_model("vit_tiny_patch16_224", 4, options=options)
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 4)
    assert complete_options("mobilenetv3_small_100", {}, 64) == {}
    assert complete_options("vit_tiny_patch16_224", {"img_size": 32}, 64) == {"img_size": 32}


def write(place: Path, tensors: dict[str, Any]) -> Path:
    if place.suffix == ".safetensors":
        save_file({n: t.contiguous() for n, t in tensors.items() if isinstance(t, Tensor)}, place)
    else:
        torch.save(tensors, place)
    return place
