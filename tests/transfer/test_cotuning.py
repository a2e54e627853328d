"""Co-tuning: the relationship of classes and the loss against float64, and what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from edgexfer.core.errors import ModelError
from edgexfer.models.create import create_model
from edgexfer.recipe import DataSection
from edgexfer.training.stage import open_data
from edgexfer.transfer.cotuning import SourceHead
from edgexfer.transfer.finetune import finetune
from edgexfer.transfer.pretrain import pretrain
from tests.transfer.contrast_worker import SECTION
from tests.transfer.test_penalties import batch, loss_of, plain, prepared
from tests.transfer.tiny import from_weights, moved

pytestmark = pytest.mark.torch


def softmax(logits: Any) -> Any:
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def test_the_relationship_is_the_mean_of_what_the_source_says(
    data: DataSection, weights: Path
) -> None:
    plan, model = prepared(data, weights, "cotuning")
    train = open_data(data).splits["train"]
    pictures = np.stack([np.asarray(Image.open(Path(data.path) / key)) for key in train.keys])
    mean, std = np.array(model.preprocess.mean), np.array(model.preprocess.std)
    images = torch.from_numpy(((pictures / 255 - mean) / std).transpose(0, 3, 1, 2))
    source = create_model("resnet8", 5, weights=weights)[0].double().eval()
    with torch.no_grad():
        shares = softmax(source(images).numpy())
    wanted = [shares[train.labels == c].mean(0) for c in range(3)]
    assert isinstance(plan.auxiliary, SourceHead)
    np.testing.assert_allclose(plan.auxiliary.relation, wanted, atol=1e-5)
    assert float(np.ptp(wanted, axis=0).max()) > 0.01, "the source tells no colour from another"


def test_the_loss_is_that_of_both_heads(data: DataSection, weights: Path) -> None:
    plan, model = prepared(data, weights, "cotuning", weight=0.7)
    loss, parts = loss_of(plan, model)
    caught: list[Any] = []
    head = model.model.get_submodule("fc")
    handle = head.register_forward_pre_hook(lambda _, x: caught.append(x[0].detach().double()))
    pixels, targets = batch()
    with torch.no_grad():
        model(pixels)
    handle.remove()
    kept = load_file(weights)
    logits = caught[0].numpy() @ kept["fc.weight"].double().numpy().T
    said = np.log(softmax(logits + kept["fc.bias"].double().numpy()))
    assert isinstance(plan.auxiliary, SourceHead)
    relation = plan.auxiliary.relation.double().numpy()
    source = -np.mean([said[i] @ relation[c] for i, c in enumerate(targets.argmax(1))])
    assert parts["hard"] == pytest.approx(plain(model), rel=1e-4)
    assert parts["source"] == pytest.approx(source, rel=1e-4)
    assert loss == pytest.approx(parts["hard"] + 0.7 * source, rel=1e-4)
    for module in (plan.auxiliary.head, model.model.get_submodule("layer1")):
        assert all(p.grad is not None and bool(p.grad.any()) for p in module.parameters())


def test_the_source_head_is_not_deployed(tmp_path: Path, data: DataSection, weights: Path) -> None:
    finetune(data, from_weights(weights, "cotuning"), tmp_path / "run")
    assert moved(tmp_path / "run", weights) == set(load_file(weights))
    head = load_file(tmp_path / "run" / "model" / "weights.safetensors")["fc.weight"]
    assert tuple(head.shape) == (3, 64)


def test_weights_without_a_head_are_refused(
    tmp_path: Path, data: DataSection, weights: Path
) -> None:
    headless = tmp_path / "headless.safetensors"
    save_file({n: t for n, t in load_file(weights).items() if not n.startswith("fc.")}, headless)
    pretrain(data, SECTION, tmp_path / "pretrained")
    for place in (headless, tmp_path / "pretrained"):
        with pytest.raises(ModelError, match="resnet8 have no head of their own") as caught:
            finetune(data, from_weights(place, "cotuning"), tmp_path / f"from-{place.name}")
        assert "trained on labels" in caught.value.fix


def test_a_head_may_be_a_convolution() -> None:
    options = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8), "stem_chs": 8}
    source = create_model("resnetv2_50", 5, options=options, seed=1)[0].eval()
    head = SourceHead(source, source, torch.ones(3, 5) / 5)
    assert isinstance(head.head, nn.Conv2d)
    torch.testing.assert_close(source(torch.ones(2, 3, 32, 32)), head())
