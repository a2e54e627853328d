"""Penalties that keep a model near its source: l2sp, delta, bss, each against float64."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from edgexfer.core.errors import ModelError
from edgexfer.models.normalise import PixelModel
from edgexfer.recipe import DataSection
from edgexfer.training.distributed import World
from edgexfer.training.objective import Views
from edgexfer.transfer import bss
from edgexfer.transfer.finetune import finetune
from edgexfer.transfer.plan import Plan, get_strategy
from tests.transfer.tiny import TRAIN, from_weights, moved, subject

pytestmark = pytest.mark.torch

VIEWS = Views(torch.arange(8), 0, 0, 1)


def prepared(
    data: DataSection, weights: Path, strategy: str, **options: Any
) -> tuple[Plan, PixelModel]:
    """A strategy's plan, and the model after it has moved a bit."""
    section = from_weights(weights, strategy, TRAIN, **options)
    given = subject(section, data)
    plan = get_strategy(section).prepare(given)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in given.built.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return plan, PixelModel(given.built.model, given.built.preprocess)


def batch() -> tuple[Tensor, Tensor]:
    pixels = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 255
    return pixels, F.one_hot(torch.arange(8) % 3, 3).float()


def loss_of(plan: Plan, model: PixelModel) -> tuple[float, dict[str, float]]:
    assert plan.objective is not None
    loss, parts = plan.objective(model, *batch(), VIEWS)
    torch.autograd.backward(loss)
    return float(loss.detach()), {name: float(part) for name, part in parts.items()}


def plain(model: PixelModel) -> float:
    """Cross entropy in float64."""
    pixels, targets = batch()
    with torch.no_grad():
        return float(F.cross_entropy(model(pixels).double(), targets.double()))


def test_l2sp_is_half_the_squared_way_and_half_the_squared_head(
    data: DataSection, weights: Path
) -> None:
    plan, model = prepared(data, weights, "l2sp", weight=0.3, head_weight=0.7)
    loss, parts = loss_of(plan, model)
    start = load_file(weights)
    way = size = 0.0
    for name, parameter in model.model.named_parameters():
        value = parameter.detach().double().numpy()
        if name.startswith("fc."):
            size += (value**2).sum() / 2
        else:
            way += ((value - start[name].double().numpy()) ** 2).sum() / 2
    assert parts["pull"] == pytest.approx(way, rel=1e-4)
    assert parts["head"] == pytest.approx(size, rel=1e-4)
    assert parts["hard"] == pytest.approx(plain(model), rel=1e-4)
    assert loss == pytest.approx(parts["hard"] + 0.3 * way + 0.7 * size, rel=1e-4)
    assert all(p.grad is not None for p in model.parameters())


def test_a_firmer_pull_keeps_the_weights_nearer(
    tmp_path: Path, data: DataSection, weights: Path
) -> None:
    ways = []
    start = load_file(weights)
    for weight in (0.0, 10.0):
        place = tmp_path / str(weight)
        finetune(data, from_weights(weights, "l2sp", TRAIN, weight=weight), place)
        end = load_file(place / "model" / "weights.safetensors")
        names = [n for n in start if n.endswith("conv1.weight")]
        ways.append(sum(float((end[n] - start[n]).square().sum()) for n in names))
    assert ways[1] < 0.5 * ways[0]


@pytest.mark.parametrize("strategy", ["l2sp", "delta", "bss", "cotuning"])
def test_what_a_strategy_keeps_beside_the_model_is_on_the_models_device(
    data: DataSection, weights: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device ``meta`` refuses tensors of others as a GPU does, and is on every machine."""
    meta = torch.device("meta")
    place = f"edgexfer.transfer.{strategy}.world"
    monkeypatch.setattr(place, lambda: World(device=meta), raising=False)
    plan, model = prepared(data, weights, strategy)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # unknown to meta
    if plan.auxiliary is not None:  # the loop does so
        plan.auxiliary.to(meta)
    assert plan.objective is not None
    pixels, targets = batch()
    loss, _ = plan.objective(model.to(meta), pixels.to(meta), targets.to(meta), VIEWS)
    assert loss.device == meta


@pytest.mark.parametrize("strategy", ["l2sp", "delta"])
def test_steps_that_are_only_timed_leave_the_first_one_as_it_is(
    tmp_path: Path,
    data: DataSection,
    weights: Path,
    strategy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A race trains copies of the model; the penalty looks at the model itself."""
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/g++")
    hashes = set()
    for compiled in ("off", "auto"):
        train = replace(TRAIN, epochs=1, optimizer="sgd", compile=compiled)
        section = from_weights(weights, strategy, train, head_weight=1.0)
        info = finetune(data, section, tmp_path / compiled)
        hashes.add(info.result["weights_sha256"])
    assert info.lineage["compile"]["step_ms"], "nothing was timed"
    assert len(hashes) == 1


@pytest.mark.parametrize("strategy", ["l2sp", "delta"])
def test_weight_decay_has_no_say_where_a_penalty_stands_in_its_place(
    tmp_path: Path, data: DataSection, weights: Path, strategy: str
) -> None:
    hashes = set()
    for decay in (0.0, 0.5):
        section = from_weights(weights, strategy, replace(TRAIN, weight_decay=decay))
        info = finetune(data, section, tmp_path / str(decay))
        hashes.add(info.result["weights_sha256"])
    assert len(hashes) == 1


def test_delta_is_half_the_squared_distance_of_the_maps(data: DataSection, weights: Path) -> None:
    plan, model = prepared(
        data, weights, "delta", weight=0.2, head_weight=0.5, layers=[2, "layer3"]
    )
    given = subject(from_weights(weights, "full"), data)
    source = PixelModel(given.built.model.eval(), given.built.preprocess)
    pixels, _ = batch()
    maps: dict[str, list[Any]] = {}
    handles: list[Any] = []
    for net in (source, model):
        for name in ("layer2", "layer3"):
            layer: nn.Module = net.model.get_submodule(name)

            def note(_: nn.Module, __: Any, out: Tensor, name: str = name) -> None:
                maps.setdefault(name, []).append(out.detach().double().numpy())

            handles.append(layer.register_forward_hook(note))
        with torch.no_grad():
            net(pixels)
    for handle in handles:
        handle.remove()
    apart = sum(((b - a) ** 2).sum() / 2 / 8 for a, b in maps.values())
    loss, parts = loss_of(plan, model)
    head = sum(
        (p.detach().double().numpy() ** 2).sum() / 2
        for p in model.model.get_submodule("fc").parameters()
    )
    assert apart > 0.01
    assert parts["apart"] == pytest.approx(apart, rel=1e-4)
    assert loss == pytest.approx(parts["hard"] + 0.2 * apart + 0.5 * head, rel=1e-4)
    grads = [p.grad for p in model.model.get_submodule("layer1").parameters()]
    assert all(g is not None and bool(g.any()) for g in grads)


def test_delta_s_source_stands_still_and_is_not_deployed(
    tmp_path: Path, data: DataSection, weights: Path
) -> None:
    info = finetune(data, from_weights(weights, "delta"), tmp_path / "run")
    assert moved(tmp_path / "run", weights) == set(load_file(weights))
    assert info.result["test"]["n"] == 10


@pytest.mark.parametrize(("shape", "k"), [((8, 64), 1), ((8, 64), 3), ((20, 5), 2), ((3, 4), 9)])
def test_bss_is_the_sum_of_the_smallest_squared_singular_values(
    shape: tuple[int, int], k: int
) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = bss.smallest(features, k)
    wanted = np.sort(np.linalg.svd(features.detach().double().numpy(), compute_uv=False))[:k]
    assert float(found.detach()) == pytest.approx((wanted**2).sum(), rel=1e-4)
    torch.autograd.backward(found)
    # The gradient of σ² is 2 σ u v', whose squares sum to 4 σ².
    assert features.grad is not None
    assert float(features.grad.square().sum()) == pytest.approx(4 * (wanted**2).sum(), rel=1e-3)


def test_bss_looks_at_what_goes_into_the_head(data: DataSection, weights: Path) -> None:
    plan, model = prepared(data, weights, "bss", weight=0.5, values=2)
    loss, parts = loss_of(plan, model)
    caught: list[Any] = []
    handle = model.model.fc.register_forward_pre_hook(  # type: ignore[union-attr]
        lambda _, x: caught.append(x[0].detach().double().numpy())
    )
    with torch.no_grad():
        model(batch()[0])
    handle.remove()
    values = np.linalg.svd(caught[0], compute_uv=False)[-2:]
    assert parts["bss"] == pytest.approx((values**2).sum(), rel=1e-3)
    assert loss == pytest.approx(parts["hard"] + 0.5 * parts["bss"], rel=1e-5)


def test_bss_trains(tmp_path: Path, data: DataSection, weights: Path) -> None:
    info = finetune(data, from_weights(weights, "bss"), tmp_path / "run")
    assert moved(tmp_path / "run", weights) == set(load_file(weights))
    assert info.status == "done"


def test_a_layer_that_is_not_there_cannot_be_kept(
    tmp_path: Path, data: DataSection, weights: Path
) -> None:
    with pytest.raises(ModelError, match="no layer 'layr2'") as caught:
        finetune(data, from_weights(weights, "delta", TRAIN, layers=["layr2"]), tmp_path / "run")
    assert "layer2" in caught.value.fix
