"""Adapting to images without labels: each loss by its formula, resumes, and what is refused."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

import edgexfer
from edgexfer.cli import run
from edgexfer.core.errors import DataError, EdgexferError, RecipeError
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.rundir import read_run
from edgexfer.data.augment import COLUMNS, ROWS, STRONG
from edgexfer.data.counter import uniform
from edgexfer.data.randaugment import FILL, randaugment
from edgexfer.data.strong import strong
from edgexfer.models.create import create_model
from edgexfer.models.features import HeadInput, feature_size
from edgexfer.models.normalise import PixelModel
from edgexfer.recipe import DataSection
from edgexfer.training.objective import Views
from edgexfer.training.stage import Built, open_data
from edgexfer.transfer import coral, dann, mmd, pseudo, reconstruction
from edgexfer.transfer.adaptation import one_class_in_answers, one_class_in_folders, ramp
from edgexfer.transfer.finetune import finetune
from edgexfer.transfer.plan import Plan, Subject
from tests.pictures import write_folder
from tests.transfer.adapt_worker import STRATEGIES, interrupted, section, train

pytestmark = pytest.mark.torch

Float = np.ndarray[Any, np.dtype[np.float64]]
CLEAN = multiprocessing.get_context("forkserver")
CLEAN.set_forkserver_preload(["tests.transfer.adapt_worker", "torch._dynamo", "torch._inductor"])
# Of six images the second, fifth and sixth are the target's.
TARGETS = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]).float()
OF_SOURCE, OF_TARGET = [0, 2, 3], [1, 4, 5]
HALFWAY = Views(torch.arange(6), 1, 0, 10)


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> DataSection:
    """Pictures of three colours, and others of two of them, and darker, without labels."""
    place = tmp_path_factory.mktemp("data")
    write_folder(place / "source", 16)
    write_folder(place / "target", 12, {"a": (20, 50, 170), "c": (170, 20, 10)})
    return DataSection(str(place / "source"), unlabelled=str(place / "target"))


class Net(nn.Module):
    """Four features of an image, drawn once, and a head; what is trained is plain to see."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.stem = nn.Linear(3 * 8 * 8, 4)
        self.fc = nn.Linear(4, 3)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.stem(x.flatten(1)).tanh())
        return logits


def planned(strategy: Any, domains: DataSection, **options: Any) -> tuple[Plan, PixelModel]:
    """What a strategy makes of ``Net``, and the net as the loop hands it over."""
    net, preprocess = Net(), Preprocess((8, 8), 8)
    name = strategy.__name__.rpartition(".")[2]
    built = Built(net, "net", preprocess, "random", {})
    wanted = section(name)
    subject = Subject(built, wanted, strategy.Options(**options), domains, open_data(domains))
    return strategy.prepare(subject), PixelModel(net, preprocess)


def forward(model: PixelModel, pixels: Tensor) -> tuple[Float, Float]:
    """Features and logits in float64, from the weights alone."""
    net: Any = model.model
    x = model.normalise(pixels).double().flatten(1).numpy()
    w = {n: p.detach().double().numpy() for n, p in net.named_parameters()}
    features = np.tanh(x @ w["stem.weight"].T + w["stem.bias"])
    return features, features @ w["fc.weight"].T + w["fc.bias"]


def hard_of(logits: Float) -> float:
    return float(-log_softmax(logits[OF_SOURCE], axis=1)[np.arange(3), np.arange(3)].mean())


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 255


def loss_of(plan: Plan, model: nn.Module, pixels: Tensor) -> tuple[Tensor, dict[str, float]]:
    assert plan.objective is not None and plan.balanced and plan.split == "train+unlabelled"
    loss, parts = plan.objective(model, pixels, TARGETS, HALFWAY)
    return loss, {name: float(part) for name, part in parts.items()}


# λ after one of two epochs.
LAMBDA = 2 / (1 + np.exp(-5.0)) - 1


def test_the_ramp_rises_from_0_to_1() -> None:
    assert ramp(replace(HALFWAY, epoch=0), 2, 10) == 0
    assert ramp(HALFWAY, 2, 10) == pytest.approx(LAMBDA)
    assert ramp(replace(HALFWAY, epoch=1, step=9), 2, 10) == pytest.approx(0.9998, abs=1e-4)


def kernel_of(a: Float, b: Float, widths: list[float]) -> Float:
    distance = ((a[:, None] - b[None]) ** 2).sum(-1)
    mean: Float = np.mean([np.exp(-distance / width) for width in widths], axis=0)
    return mean


@pytest.mark.parametrize(("kernels", "exponents"), [(1, [0]), (4, [-2, -1, 0, 1])])
def test_mmd_is_its_formula(domains: DataSection, kernels: int, exponents: list[int]) -> None:
    plan, model = planned(mmd, domains, weight=0.3, kernels=kernels)
    pixels = rand(6, 3, 8, 8)
    loss, parts = loss_of(plan, model, pixels)
    features, logits = forward(model, pixels)
    s, t = features[OF_SOURCE], features[OF_TARGET]
    distance = ((features[:, None] - features[None]) ** 2).sum(-1)[~np.eye(6, dtype=bool)]
    # torch's median of an even number is the lower of the two in the middle.
    widths = [2.0**i * np.sort(distance)[14] for i in exponents]
    ss, tt, st = kernel_of(s, s, widths), kernel_of(t, t, widths), kernel_of(s, t, widths)
    wanted = (ss.sum() - 3) / 6 + (tt.sum() - 3) / 6 - 2 * st.mean()
    assert parts["mmd"] == pytest.approx(wanted, rel=1e-4)
    assert parts["hard"] == pytest.approx(hard_of(logits), rel=1e-5)
    assert float(loss.detach()) == pytest.approx(hard_of(logits) + 0.3 * LAMBDA * wanted, rel=1e-5)


def test_coral_is_its_formula(domains: DataSection) -> None:
    plan, model = planned(coral, domains, weight=7.0)
    pixels = rand(6, 3, 8, 8)
    loss, parts = loss_of(plan, model, pixels)
    features, logits = forward(model, pixels)
    covariances = [np.cov(features[rows], rowvar=False) for rows in (OF_SOURCE, OF_TARGET)]
    wanted = ((covariances[0] - covariances[1]) ** 2).sum() / (4 * 4**2)
    assert parts["coral"] == pytest.approx(wanted, rel=1e-4)
    assert float(loss.detach()) == pytest.approx(hard_of(logits) + 7 * LAMBDA * wanted, rel=1e-5)


@pytest.mark.parametrize("distance", [lambda s, t: mmd.mmd(s, t, 5), coral.coral])
def test_equal_samples_are_near_and_moved_ones_apart(distance: Any) -> None:
    chance = torch.Generator().manual_seed(1)
    source, alike = (torch.randn(200, 6, generator=chance) for _ in range(2))
    near, far = float(distance(source, alike)), float(distance(source, 3 * alike + 1))
    assert abs(near) < 0.02 * far
    # One image has no distribution; its gradient is 0, not missing.
    one = torch.ones(1, 6, requires_grad=True)
    torch.autograd.backward(distance(one, source))
    assert one.grad is not None and not one.grad.any()


def test_the_domain_head_learns_and_the_features_unlearn(domains: DataSection) -> None:
    plan, model = planned(dann, domains, weight=0.5, hidden=5)
    pixels = rand(6, 3, 8, 8)
    loss, parts = loss_of(plan, model, pixels)
    features, logits = forward(model, pixels)
    head: Any = plan.auxiliary
    net: Any = model.model
    layers = [m for m in head.net if isinstance(m, nn.Linear)]
    x = torch.from_numpy(features).requires_grad_()
    h = x
    for layer in layers[:2]:
        h = (h @ layer.weight.double().T + layer.bias.double()).clamp(min=0)
    domain = (h @ layers[2].weight.double().T + layers[2].bias.double())[:, 0]
    sign = torch.tensor([1.0, -1, 1, 1, -1, -1]).double()
    bce = torch.log1p(torch.exp(sign * domain)).mean()
    assert parts["domain"] == pytest.approx(float(bce.detach()), rel=1e-5)
    assert float(loss.detach()) == pytest.approx(
        hard_of(logits) + 0.5 * float(bce.detach()), rel=1e-5
    )
    # Backwards: the domain head's gradient as it is, the features' turned round and scaled.
    (for_features,) = torch.autograd.grad(bce, x, retain_graph=True)
    (for_head,) = torch.autograd.grad(bce, layers[2].bias, retain_graph=True)
    torch.autograd.backward(loss)
    torch.testing.assert_close(layers[2].bias.grad, 0.5 * for_head.float())
    p = softmax(logits, axis=1)
    error = np.zeros((6, 3))
    error[OF_SOURCE] = (p[OF_SOURCE] - np.eye(3)) / 3
    turned = error @ net.fc.weight.detach().double().numpy() - 0.5 * LAMBDA * for_features.numpy()
    bias = (turned * (1 - features**2)).sum(0)
    np.testing.assert_allclose(net.stem.bias.grad.numpy(), bias, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("align", "threshold"), [(False, 0.4), (True, 0.4), (True, 1.0)])
def test_only_sure_answers_teach(domains: DataSection, align: bool, threshold: float) -> None:
    plan, model = planned(pseudo, domains, weight=2.0, threshold=threshold, align=align)
    alignment: Any = plan.auxiliary
    pixels = rand(6, 3, 8, 8).round()
    shares = np.array([0.5, 0.25, 0.25])
    alignment.answered.copy_(torch.from_numpy(shares))
    labels = open_data(domains).splits["train"].labels
    priors = np.bincount(labels) / len(labels)
    loss, parts = loss_of(plan, model, pixels)
    _, logits = forward(model, pixels)
    p = softmax(logits[OF_TARGET], axis=1)
    q = p * priors / shares if align else p
    q = q / q.sum(1, keepdims=True)
    harder = strong(pixels[OF_TARGET], torch.tensor(OF_TARGET), 0, 1)
    said = log_softmax(forward(model, harder)[1], axis=1)
    each = -said[np.arange(3), q.argmax(1)] * (q.max(1) >= threshold)
    assert parts["sure"] == pytest.approx((q.max(1) >= threshold).mean())
    assert threshold == 1 or parts["sure"] > 0
    assert parts["pseudo"] == pytest.approx(each.mean(), rel=1e-4)
    assert float(loss.detach()) == pytest.approx(hard_of(logits) + 2 * each.mean(), rel=1e-5)
    kept = shares + 0.01 * (p.mean(0) - shares) if align else shares
    np.testing.assert_allclose(alignment.answered.numpy(), kept, rtol=1e-5)
    # A step that is only timed leaves nothing behind.
    assert plan.objective is not None
    plan.objective(model, pixels, TARGETS, replace(HALFWAY, rehearsal=True))
    np.testing.assert_allclose(alignment.answered.numpy(), kept, rtol=1e-5)


def test_a_strong_view_is_a_function_of_seed_epoch_and_sample() -> None:
    pixels, index = rand(4, 3, 16, 12).round(), torch.tensor([7, 1, 30, 4])
    views = strong(pixels, index, 5, 2)
    alone = strong(pixels[2:3], index[2:3], 5, 2)
    assert torch.equal(views[2:3], alone) and views.shape == pixels.shape
    others = (strong(pixels, index, 6, 2), strong(pixels, index, 5, 3), pixels)
    assert not any(torch.equal(views[i], other[i]) for other in others for i in range(4))
    # Within the square the mean colour, outside what RandAugment gives.
    words = (5, 2, STRONG)
    outside = randaugment(pixels.byte(), index.numpy(), words).float().numpy()
    tops = np.floor(uniform(index.numpy(), *words, ROWS) * 16) - 2
    lefts = np.floor(uniform(index.numpy(), *words, COLUMNS) * 12) - 2
    for i in range(4):
        top, left = int(tops[i]), int(lefts[i])
        rows, columns = slice(max(top, 0), top + 5), slice(max(left, 0), left + 5)
        outside[i, :, rows, columns] = np.array(FILL)[:, None, None]
    np.testing.assert_array_equal(views.numpy(), outside)


def test_target_images_alone_are_reconstructed(domains: DataSection) -> None:
    plan, model = planned(reconstruction, domains, balance=0.6)
    decoder: Any = plan.auxiliary
    pixels = rand(6, 3, 8, 8)
    loss, parts = loss_of(plan, model, pixels)
    features, logits = forward(model, pixels)
    with torch.no_grad():
        drawn = decoder.net(torch.from_numpy(features[OF_TARGET]).float()).double().numpy()
    image = model.normalise(pixels).double().numpy()[OF_TARGET]
    # An image of 8 pixels is enlarged to 32: each pixel stands for four by four.
    wanted = image.repeat(4, axis=2).repeat(4, axis=3)
    away = ((drawn - wanted) ** 2).mean()
    assert drawn.shape == (3, 3, 32, 32)
    assert parts["reconstruction"] == pytest.approx(away, rel=1e-4)
    assert float(loss.detach()) == pytest.approx(0.6 * hard_of(logits) + 0.4 * away, rel=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_images_without_labels_say_nothing_of_the_classes(
    domains: DataSection, strategy: str
) -> None:
    """The head's bias hears from cross entropy alone, but for labels that the model gives."""
    module = {"mmd": mmd, "coral": coral, "dann": dann, "reconstruction": reconstruction}
    plan, model = planned(module.get(strategy, pseudo), domains)
    net: Any = model.model
    pixels = rand(6, 3, 8, 8)
    assert plan.objective is not None
    loss, parts = plan.objective(model, pixels, TARGETS, HALFWAY)
    parts_hard = parts["hard"]
    torch.autograd.backward(loss)
    p = softmax(forward(model, pixels)[1][OF_SOURCE], axis=1)
    share = 0.7 if strategy == "reconstruction" else 1.0
    if strategy == "pseudo":
        assert float(parts["sure"]) == 0
    np.testing.assert_allclose(
        net.fc.bias.grad.numpy(), share * (p - np.eye(3)).mean(0), rtol=1e-4, atol=1e-6
    )
    other = pixels.clone()
    other[OF_TARGET] = 255 - other[OF_TARGET]
    assert plan.objective(model, other, TARGETS, HALFWAY)[1]["hard"] == parts_hard


@pytest.mark.parametrize("name", ["resnet8", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_the_features_are_what_the_head_is_given(name: str) -> None:
    options = {"img_size": 32} if name.startswith("vit") else {}
    model, _ = create_model(name, 3, options=options)
    model.eval()
    features = HeadInput(model)
    logits = model(rand(2, 3, 32, 32))
    head: Any = model.get_classifier()  # type: ignore[operator]
    found = features()
    assert found.shape == (2, feature_size(model))
    torch.testing.assert_close(head(found), logits)
    features.close()
    model(rand(2, 3, 32, 32))
    with pytest.raises(IndexError):
        features()


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, domains: DataSection
) -> dict[str, dict[str, Any]]:
    """The results of trainings that nobody disturbs."""
    place = tmp_path_factory.mktemp("whole")
    return {name: train(name, domains, place / name) for name in STRATEGIES}


def test_each_strategy_is_one_of_its_own_and_counts_what_it_saw(
    whole: dict[str, dict[str, Any]],
) -> None:
    for name, result in whole.items():
        assert result["unlabelled_images"] == 24, name
    assert len({result["weights_sha256"] for result in whole.values()}) == len(STRATEGIES)


def test_a_training_that_is_stopped_ends_with_the_same_bits(
    tmp_path: Path, domains: DataSection, whole: dict[str, dict[str, Any]]
) -> None:
    child = CLEAN.Process(target=interrupted, args=(domains, tmp_path))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    for name in STRATEGIES:
        assert read_run(tmp_path / name).status == "interrupted"
        result = train(name, domains, tmp_path / name)
        assert result["fit"]["resumed_from"] == 3
        assert result["weights_sha256"] == whole[name]["weights_sha256"], name


@pytest.mark.slow
def test_two_processes_adapt(
    tmp_path: Path, domains: DataSection, whole: dict[str, dict[str, Any]]
) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    worker = [
        "-m",
        "tests.transfer.adapt_worker",
        domains.path,
        str(domains.unlabelled),
        str(tmp_path),
    ]
    done = subprocess.run(
        [*command, *worker],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in STRATEGIES:
        info = read_run(tmp_path / name)
        assert info.status == "done" and info.result["unlabelled_images"] == 24, name
        # Each process took half of each batch: so many steps as one would.
        assert info.result["fit"]["steps"] == whole[name]["fit"]["steps"], name


@pytest.mark.parametrize(
    ("changes", "kind", "what", "fix"),
    [
        ({"unlabelled": None}, RecipeError, "strategy mmd adapts", "--unlabelled FOLDER"),
        ({"unlabelled": "nowhere"}, DataError, "nowhere: no such folder", "leave it out"),
        ({"mixup": 0.2}, RecipeError, "mixup and cutmix mix", "train.mixup"),
        ({"batch_size": 5}, DataError, "half of it without labels", "multiple of 2"),
        ({"kernels": 0}, RecipeError, "kernels", ""),
    ],
)
def test_what_cannot_be_adapted_is_refused(
    tmp_path: Path,
    domains: DataSection,
    changes: dict[str, Any],
    kind: type[EdgexferError],
    what: str,
    fix: str,
) -> None:
    named = {"unlabelled": domains.unlabelled, **changes}
    place = replace(domains, unlabelled=named.pop("unlabelled"))
    with pytest.raises(kind) as caught:
        finetune(place, section("mmd", **named), tmp_path / "run")
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_a_strategy_that_does_not_adapt_says_so(
    tmp_path: Path, domains: DataSection, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = section("scratch", epochs=1, augment="none")
    finetune(domains, plain, tmp_path / "run")
    line = f"strategy scratch does not look at {domains.unlabelled}: no labels"
    assert capsys.readouterr().err.count(line) == 1


def test_a_folder_of_one_class_is_warned_of(
    tmp_path: Path, domains: DataSection, capsys: pytest.CaptureFixture[str]
) -> None:
    target = write_folder(tmp_path / "target", 12, {"red": (170, 20, 10)})
    typed = ["finetune", "--data", domains.path, "--unlabelled", str(target), "--out"]
    typed += [str(tmp_path / "run"), "--model", "resnet8", "--size", "16", "--strategy", "mmd"]
    typed += ["--epochs", "1", "--batch-size", "16", "--augment", "none", "--precision", "fp32"]
    assert run([*typed, "--compile", "off"]) == 0
    line = f"warning: every image of {target} lies in a folder of class 'red'; adapting takes"
    assert capsys.readouterr().err.count(line) == 2, "before the training, and after it"
    (warning,) = read_run(tmp_path / "run").result["warnings"]
    assert "as mixed as the source's" in warning


def test_answers_of_one_class_are_warned_of(domains: DataSection) -> None:
    net = Net()
    built = Built(net, "net", Preprocess((8, 8), 8), "random", {})
    found = Subject(built, section("pseudo"), pseudo.Options(), domains, open_data(domains))
    assert one_class_in_folders(found) == ()
    with torch.no_grad():
        net.fc.weight.mul_(100)
        assert one_class_in_answers(found) == ()
        net.fc.bias[1] = 1e4
    (warning,) = one_class_in_answers(found)
    assert f"all 24 images of {domains.unlabelled} into class 'green'" in warning


def test_the_command_line_and_a_recipe_reach_a_strategy(
    tmp_path: Path, domains: DataSection, whole: dict[str, dict[str, Any]]
) -> None:
    typed = ["finetune", "--data", domains.path, "--unlabelled", str(domains.unlabelled)]
    typed += ["--model", "resnet8", "--size", "16", "--strategy", "pseudo"]
    typed += ["--option", "threshold=0.5", "--epochs", "2", "--batch-size", "16", "--lr", "0.01"]
    typed += ["--warmup", "0", "--augment", "flip", "--precision", "fp32", "--compile", "off"]
    assert run([*typed, "--out", str(tmp_path / "typed")]) == 0
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: adapted\n"
        f"data: {{path: {domains.path}, unlabelled: {domains.unlabelled}}}\n"
        "teacher:\n"
        "  model: {name: resnet8, size: 16}\n"
        "  strategy: pseudo\n"
        "  strategy_options: {threshold: 0.5}\n"
        "  train: {epochs: 2, batch_size: 16, lr: 0.01, warmup: 0, augment: flip,\n"
        "          precision: fp32, compile: off}\n"
        "student: {model: {name: resnet8, size: 16}}\n"
    )
    written = edgexfer.load_recipe(recipe)
    assert written.teacher is not None
    info = edgexfer.finetune(written.data, written.teacher, tmp_path / "written")
    found = read_run(tmp_path / "typed")
    for result in (info.result, found.result):
        assert result["weights_sha256"] == whole["pseudo"]["weights_sha256"]


def test_parts_of_a_step_weigh_its_images_without_labels_alike() -> None:
    """Four of eight images have no label, three of them in the first of two halves."""
    chance = torch.Generator().manual_seed(0)
    logits, answers = torch.randn(2, 4, 3, generator=chance)
    drawn, wanted = torch.rand(2, 4, 3, 5, 5, generator=chance)
    halves = [slice(0, 3), slice(3, 4)]
    four, two = torch.tensor(4.0), torch.tensor(2.0)
    whole = pseudo.taught(logits, answers.softmax(1), 0.0, four)[0]
    parts = [pseudo.taught(logits[h], answers[h].softmax(1), 0.0, two)[0] for h in halves]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)
    whole = reconstruction.apart(drawn, wanted, four)
    torch.testing.assert_close(whole, (drawn - wanted).square().mean())
    parts = [reconstruction.apart(drawn[h], wanted[h], two) for h in halves]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)
