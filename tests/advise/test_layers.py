"""Probes on layers whose worth is known, and what is recommended of them."""

from __future__ import annotations

import numpy as np
import pytest

from edgexfer.advise.features import HEAD
from edgexfer.advise.layers import probe_hits, probe_layers
from edgexfer.advise.transferability import Float64, Labels

LABELS: Labels = np.arange(150, dtype=np.int64) % 3


def layer(apart: float, seed: int) -> Float64:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(3, 6))
    return apart * centres[LABELS] + rng.normal(size=(150, 6))


def test_where_the_last_layer_is_best_the_whole_backbone_stands_still() -> None:
    depth = probe_layers(
        {"layer1": layer(0.0, 1), "layer2": layer(0.3, 2), HEAD: layer(2, 3)}, LABELS
    )
    assert (depth.best, depth.until, depth.likely) == (HEAD, HEAD, (HEAD,))
    assert not depth.last_is_worse
    assert depth.verdict.startswith("Freeze the whole backbone: every other")


def test_where_an_earlier_stage_is_better_what_is_behind_it_is_trained() -> None:
    depth = probe_layers(
        {"layer1": layer(0.2, 1), "layer2": layer(2, 2), HEAD: layer(0.2, 3)}, LABELS
    )
    assert (depth.best, depth.until) == ("layer2", "layer2")
    assert depth.last_is_worse
    assert depth.probes[2].worse


def test_of_layers_that_cannot_be_told_apart_the_deepest_is_taken_and_all_are_named() -> None:
    depth = probe_layers({"layer1": layer(0.8, 1), HEAD: layer(0.8, 2)}, LABELS)
    assert depth.until == HEAD
    assert "do not tell apart layer1, head" in depth.verdict


def test_features_of_noise_know_nothing() -> None:
    depth = probe_layers({"layer1": layer(0, 1), HEAD: layer(0, 2)}, LABELS)
    assert depth.chance_pct == pytest.approx(100 / 3)
    assert depth.knows_nothing
    assert depth.verdict == "No layer is shown to know more than the size of the classes."


def test_a_stage_whose_features_are_those_of_the_head_is_shown_once() -> None:
    same = layer(1, 1)
    depth = probe_layers({"layer3": same + 1e-7, HEAD: same}, LABELS)
    assert [probe.layer for probe in depth.probes] == [HEAD]


def test_no_image_is_judged_by_a_classifier_that_saw_it() -> None:
    # More features than images: on its own images a linear classifier would be always right.
    noise = np.random.default_rng(0).normal(size=(60, 200))
    labels = np.arange(60, dtype=np.int64) % 2
    assert probe_hits(noise, labels).mean() < 0.75


def test_a_class_of_two_images_gets_two_folds() -> None:
    labels = np.array([0] * 20 + [1] * 2, np.int64)
    features = np.random.default_rng(0).normal(size=(22, 3)) + 9 * labels[:, None]
    assert probe_hits(features, labels).mean() > 0.9


def test_the_only_image_of_a_class_is_wrong_and_the_others_are_as_without_it() -> None:
    labels = np.array([0] * 20 + [1] * 20 + [2], np.int64)
    features = np.random.default_rng(0).normal(size=(41, 3)) + 9 * labels[:, None]
    found = probe_hits(features, labels)
    assert not found[-1]
    assert found[:-1].tolist() == probe_hits(features[:-1], labels[:-1]).tolist()
    assert found.sum() > 36
    assert not probe_hits(features[19:21], labels[19:21]).any()
