"""Few-shot: prototypes by brute force, the protocol's draws, and a head that deploys."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from edgexfer.core.errors import DataError, RecipeError
from edgexfer.core.stats import wilson
from edgexfer.models.store import load_model
from edgexfer.recipe import DataSection, ModelSection
from edgexfer.training.evaluate import predict_logits
from edgexfer.training.stage import images_of, open_data
from edgexfer.transfer.backbone import unit, unit_features
from edgexfer.transfer.fewshot import Protocol, accuracy, episodes, few_shot, interval
from edgexfer.transfer.finetune import finetune
from edgexfer.transfer.prototype import prototypes
from tests.transfer.tiny import from_weights, moved

pytestmark = pytest.mark.torch


def nearest_mean(known: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> list[int]:
    """Say for each vector which class's mean direction is nearest, one distance at a time."""
    means = []
    for c in range(int(labels.max()) + 1):
        mean = sum(k for k, label in zip(known, labels, strict=True) if label == c)
        means.append(mean / np.sqrt((mean**2).sum()))
    return [int(np.argmin([((a - m) ** 2).sum() for m in means])) for a in asked]


def clouds(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of length 1 about five centres that overlap."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(5, 6))
    labels = np.arange(n) % 5
    return unit((centres[labels] + 1.5 * chance.normal(size=(n, 6))).astype(np.float32)), labels


def test_the_head_is_a_nearest_mean_classifier_whatever_the_length_of_a_feature() -> None:
    (known, labels), (asked, _) = clouds(1, 60), clouds(2, 200)
    weight, bias = prototypes(known, labels, 5)
    wanted = nearest_mean(known.astype(np.float64), labels, asked.astype(np.float64))
    assert len(set(wanted)) == 5
    lengths = np.random.default_rng(3).uniform(0.1, 50, (200, 1)).astype(np.float32)
    for features in (asked, asked * lengths):
        assert (features @ weight.T + bias).argmax(1).tolist() == wanted
    np.testing.assert_allclose(bias, -((weight / 2) ** 2).sum(1), rtol=1e-6)


def test_the_accuracy_of_an_episode_is_that_of_brute_force() -> None:
    (known, trained), (unknown, asked) = clouds(1, 100), clouds(2, 150)
    protocol = Protocol(shots=(1, 5), episodes=20, ways=3)
    seen = []
    for episode in episodes(trained, asked, protocol, 3):
        assert episode.support.shape == (3, 5) and len(episode.queries) == 45
        chosen = trained[episode.support[:, 0]]
        assert len(set(chosen)) == 3
        assert (trained[episode.support] == chosen[:, None]).all()
        assert (asked[episode.queries] == chosen[episode.wanted]).all()
        for shots in protocol.shots:
            support = episode.support[:, :shots].ravel()
            said = nearest_mean(
                known[support], np.repeat([0, 1, 2], shots), unknown[episode.queries]
            )
            right = np.mean(np.array(said) == episode.wanted)
            assert accuracy(episode, known, unknown, shots) == pytest.approx(right)
            seen.append(right)
    assert 0.2 < min(seen) < max(seen) <= 1
    drawn = [next(episodes(trained, asked, replace(protocol, seed=n), 3)).support for n in (0, 1)]
    assert not np.array_equal(drawn[0], drawn[1])


def test_the_table_has_an_interval_for_each_shot(data: DataSection, weights: Path) -> None:
    model = ModelSection("resnet8", size=16, weights=str(weights))
    protocol = Protocol(shots=(1, 4), episodes=10)
    one, four = few_shot(data, model, protocol)
    assert (one.shots, four.shots, one.ways, one.episodes) == (1, 4, 3, 10)
    for row in (one, four):
        # Ten test images that are all told apart, in every draw, show no certainty.
        assert row.top1_pct == row.high_pct == 100
        assert row.low_pct == pytest.approx(100 * wilson(10, 10)[0])
    assert few_shot(data, model, protocol) == (one, four)


def test_the_interval_is_that_of_the_mean_over_episodes() -> None:
    low, high = interval(np.array([0.5, 0.75, 1.0]), 40)
    half = 4.302653 * 0.25 / 3**0.5  # Student's t with two degrees of freedom
    assert (low, high) == pytest.approx((100 * (0.75 - half), 100))


def test_the_strategy_writes_the_head_alone_and_it_says_the_nearest_mean(
    data: DataSection, weights: Path, tmp_path: Path
) -> None:
    section = from_weights(weights, "prototype")
    info = finetune(data, section, tmp_path / "run")
    assert moved(tmp_path / "run", weights) == {"fc.weight", "fc.bias"}
    assert info.result["fit"]["steps"] == 0
    model, card = load_model(tmp_path / "run")
    dataset = open_data(data)
    train, test = (images_of(data, dataset, s, card.preprocess) for s in ("train", "test"))
    known, asked = (unit_features(model, card.preprocess, i) for i in (train, test))
    wanted = nearest_mean(known.astype(np.float64), train.labels.numpy(), asked)
    assert predict_logits(model, card.preprocess, test).argmax(1).tolist() == wanted
    bias = load_file(tmp_path / "run" / "model" / "weights.safetensors")["fc.bias"]
    np.testing.assert_allclose(bias.numpy(), -1, rtol=1e-5)


@pytest.mark.parametrize(
    ("protocol", "error", "words", "fix"),
    [
        (Protocol(shots=()), RecipeError, "--shots", "1,5,10"),
        (Protocol(shots=(0, 5)), RecipeError, "--shots 0, 5", "1,5,10"),
        (Protocol(episodes=1), RecipeError, "--episodes 1", "at least 2"),
        (Protocol(shots=(1,), ways=4), RecipeError, "--ways 4: the data has 3", "2 to 3"),
        (Protocol(shots=(500,)), DataError, "training images, 500 are drawn", "fewer --shots"),
    ],
    ids=("none", "zero", "episodes", "ways", "many"),
)
def test_what_cannot_be_drawn(
    data: DataSection,
    weights: Path,
    protocol: Protocol,
    error: type[RecipeError | DataError],
    words: str,
    fix: str,
) -> None:
    model = ModelSection("resnet8", size=16, weights=str(weights))
    with pytest.raises(error, match=words) as caught:
        few_shot(data, model, protocol)
    assert fix in caught.value.fix


def test_random_features_are_refused(data: DataSection) -> None:
    with pytest.raises(RecipeError, match="random weights say nothing") as caught:
        few_shot(data, ModelSection("resnet8"), Protocol())
    assert "--weights" in caught.value.fix


def test_several_tasks_are_refused(tabled: DataSection, weights: Path) -> None:
    model = ModelSection("resnet8", size=16, weights=str(weights))
    with pytest.raises(RecipeError, match=r"data\.labels has 2 tasks") as caught:
        few_shot(tabled, model, Protocol(shots=(1,)))
    assert "leave out --labels" in caught.value.fix


@pytest.mark.parametrize("strategy", ["prototype", "cotuning"])
def test_a_class_of_which_no_image_can_be_read_is_refused(
    tmp_path: Path, data: DataSection, weights: Path, strategy: str
) -> None:
    """Its mean would be one of nothing, and every answer not a number."""
    place = shutil.copytree(data.path, tmp_path / "pictures")
    one_each = replace(data, path=str(place), train_limit=3, allow_quarantined=True)
    spoilt = next(k for k in open_data(one_each).splits["train"].keys if k.startswith("green"))
    (place / spoilt).write_bytes(b"no picture")
    with pytest.raises(DataError, match="no training image of class 'green' can be") as caught:
        finetune(one_each, from_weights(weights, strategy), tmp_path / "run")
    assert "data check" in caught.value.fix
