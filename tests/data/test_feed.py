"""The feed: every view is a function of (seed, epoch, sample), whatever else changes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edgexfer.core.errors import DataError
from edgexfer.core.preprocess import Preprocess
from edgexfer.data import store
from edgexfer.data.augment import AUGMENTS
from edgexfer.data.dataset import Dataset, open_dataset
from edgexfer.data.feed import Batch, TrainFeed
from tests.data.conftest import MakeTree, picture

SMALL = Preprocess((16, 16), 18)


@pytest.fixture
def dataset(make_tree: MakeTree) -> Dataset:
    return open_dataset(str(make_tree("a", "b", "c", n=16, size=(24, 30))), val=0, test=0)


def feed(dataset: Dataset, **options: Any) -> TrainFeed:
    return TrainFeed(dataset, SMALL, **{"batch_size": 8, "augment": "flip", "seed": 3, **options})


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x.images, y.images)
        and torch.equal(x.labels, y.labels)
        and torch.equal(x.index, y.index)
        and (x.step, x.epoch) == (y.step, y.epoch)
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("cache", ["ram", "none"])
def test_resuming_in_the_middle_gives_the_same_bits(
    dataset: Dataset, augment: str, cache: str
) -> None:
    whole = list(feed(dataset, augment=augment, cache=cache, workers=1).epoch(2))
    rest = list(feed(dataset, augment=augment, cache=cache, workers=3).epoch(2, start_step=4))
    assert [b.step for b in whole] == list(range(6))
    assert same(whole[4:], rest)


@pytest.mark.parametrize("augment", AUGMENTS)
def test_memory_and_disk_give_the_same_bits_as_decoding_anew(
    dataset: Dataset, augment: str, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    anew = list(feed(dataset, augment=augment, cache="none").epoch(0))
    memory = list(feed(dataset, augment=augment, cache="ram").epoch(0))
    assert not (cache / "decoded").exists()
    monkeypatch.setattr(store, "_SHARED_FROM", 0)
    mapped = [list(feed(dataset, augment=augment, cache="ram").epoch(0)) for _ in range(2)]
    assert len(list((cache / "decoded").glob("[!.]*"))) == 1
    assert same(anew, memory)
    assert same(anew, mapped[0])
    assert same(anew, mapped[1])


@pytest.mark.parametrize("augment", ["flip", "crop", "randaugment"])
def test_a_view_does_not_depend_on_the_batch_that_it_came_in(
    dataset: Dataset, augment: str
) -> None:
    def views(batch_size: int) -> dict[int, torch.Tensor]:
        batches = feed(dataset, augment=augment, batch_size=batch_size).epoch(1)
        return {int(i): v for b in batches for i, v in zip(b.index, b.images, strict=True)}

    large, small = views(24), views(6)
    assert large.keys() == small.keys() == set(range(48))
    assert all(torch.equal(large[i], small[i]) for i in large)


@pytest.mark.parametrize("augment", ["flip", "crop"])
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_together_are_the_single_process(dataset: Dataset, world: int, augment: str) -> None:
    alone = list(feed(dataset, augment=augment).epoch(1))
    ranks = [
        list(feed(dataset, augment=augment, rank=r, world=world).epoch(1)) for r in range(world)
    ]
    for step, batch in enumerate(alone):
        for r in range(world):
            assert torch.equal(ranks[r][step].images, batch.images[r::world])
            assert torch.equal(ranks[r][step].index, batch.index[r::world])


def test_epochs_seeds_and_samples_differ(dataset: Dataset) -> None:
    one = feed(dataset)
    first, second = next(one.epoch(0)), next(one.epoch(1))
    other = next(feed(dataset, seed=4).epoch(0))
    assert not torch.equal(first.index, second.index)
    assert not torch.equal(first.index, other.index)


def test_the_index_leads_to_key_and_label(dataset: Dataset) -> None:
    one = feed(dataset, augment="none")
    seen = []
    for batch in one.epoch(0):
        for i, label in zip(batch.index.tolist(), batch.labels.tolist(), strict=True):
            assert one.keys[i].startswith(dataset.classes[label] + "/")
            assert one.labels[i] == label
            seen.append(i)
        assert batch.images.shape == (8, 3, 16, 16)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert sorted(seen) == list(range(48))


def test_a_rest_is_left_out_unless_it_is_all(dataset: Dataset) -> None:
    assert feed(dataset, batch_size=32).steps_per_epoch == 1
    # Of 48 images 45 can be shared evenly by 5 processes.
    whole = list(feed(dataset, batch_size=500, world=5, rank=4).epoch(0))
    assert [len(b.labels) for b in whole] == [9]


def test_closing_early_leaves_no_thread(dataset: Dataset) -> None:
    before = threading.active_count()
    batches = feed(dataset, workers=3, cache="none").epoch(0)
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_an_error_in_a_thread_is_raised_where_the_batch_is_due(
    dataset: Dataset, make_tree: MakeTree
) -> None:
    one = feed(dataset, cache="none")
    (Path(dataset.spec) / "a" / "003.jpg").write_bytes(b"gone bad")
    before = threading.active_count()
    with pytest.raises(DataError, match=r"a/003\.jpg: is no JPEG"):
        list(one.epoch(0))
    assert threading.active_count() == before


def spoil(dataset: Dataset, split: str, n: int) -> Dataset:
    root = Path(dataset.spec)
    for key in dataset.splits[split].keys[:n]:
        (root / key).write_bytes(b"no image")
    return open_dataset(dataset.spec, val=0, test=0)


@pytest.mark.parametrize("cache", ["ram", "none"])
@pytest.mark.parametrize("augment", ["flip", "crop"])
def test_unreadable_images_stop_unless_they_are_allowed(
    dataset: Dataset, cache: str, augment: str
) -> None:
    spoiled = spoil(dataset, "train", 2)
    with pytest.raises(DataError) as caught:
        feed(spoiled, cache=cache, augment=augment)
    assert caught.value.what.startswith("a/000.jpg: is no JPEG")
    assert "2 of 48 train images cannot be used" in caught.value.what
    assert f"edgexfer data check {dataset.spec}" in caught.value.fix
    assert "data.allow_quarantined: true" in caught.value.fix
    going_on = feed(spoiled, cache=cache, augment=augment, allow_quarantined=True)
    assert [bad.key for bad in going_on.quarantined] == ["a/000.jpg", "a/001.jpg"]
    assert len(going_on.keys) == 46
    assert "a/000.jpg" not in going_on.keys
    seen = [int(i) for b in going_on.epoch(0) for i in b.index]
    assert len(set(seen)) == 40
    assert max(seen) < 46


def test_one_of_a_thousand_is_tolerated() -> None:
    from edgexfer.data.quarantine import Bad, check_quarantine

    bad = [Bad(0, "a/1.jpg", "a/1.jpg: is empty")]
    check_quarantine("x", "train", 1000, bad, allowed=False)
    for split, total in (("train", 999), ("val", 1000), ("test", 100_000)):
        with pytest.raises(DataError, match=r"a/1\.jpg: is empty; 1 of"):
            check_quarantine("x", split, total, bad, allowed=False)
        check_quarantine("x", split, total, bad, allowed=True)
    with pytest.raises(DataError, match="1 of 1 train images"):
        check_quarantine("x", "train", 1, bad, allowed=True)


@pytest.mark.parametrize(
    ("options", "what", "fix"),
    [
        ({"augment": "flop"}, "train.augment is 'flop'", "'flip'"),
        ({"batch_size": 9, "world": 2}, "batch_size is 9, shared by 2 processes", "multiple of 2"),
        ({"batch_size": 0}, "batch_size is 0", "positive"),
        ({"batch_size": 99, "world": 99}, "48 training images for 99 processes", "fewer processes"),
        ({"cache": "rom"}, "data.cache is 'rom'", "'ram'"),
        ({"views": 0}, "train.views is 0", "at least 1"),
        ({"split": "val"}, "a feed of split 'val'", "train+unlabelled"),
        ({"split": "train+unlabelled"}, "has no unlabelled images", "set data.unlabelled"),
    ],
)
def test_wrong_options_are_refused(
    dataset: Dataset, options: dict[str, Any], what: str, fix: str
) -> None:
    with pytest.raises(DataError) as caught:
        feed(dataset, **options)
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_digits_can_be_fed() -> None:
    digits = open_dataset("digits", limit=50)
    one = TrainFeed(digits, Preprocess((32, 32), 32), batch_size=10, augment="shift")
    assert sum(len(b.labels) for b in one.epoch(0)) == 50
    assert np.bincount(one.labels).tolist() == [5] * 10


def by_index(batches: list[Batch]) -> dict[int, torch.Tensor]:
    return {int(i): v for b in batches for i, v in zip(b.index, b.images, strict=True)}


@pytest.mark.parametrize("augment", ["shift", "flip", "crop", "randaugment"])
def test_views_come_again_in_another_order(dataset: Dataset, augment: str) -> None:
    one = feed(dataset, augment=augment, views=2)
    epochs = [list(one.epoch(e)) for e in range(4)]
    assert [e[0].view_epoch for e in epochs] == [0, 1, 0, 1]
    assert [e[0].epoch for e in epochs] == [0, 1, 2, 3]
    first, other, again = (by_index(epochs[e]) for e in (0, 1, 2))
    assert all(torch.equal(first[i], again[i]) for i in first)
    assert sum(torch.equal(first[i], other[i]) for i in first) < len(first) / 2
    assert [b.index.tolist() for b in epochs[0]] != [b.index.tolist() for b in epochs[2]]


def test_what_is_mixed_comes_again_in_the_same_order(dataset: Dataset) -> None:
    one = feed(dataset, views=2, mixes=True)
    epochs = [list(one.epoch(e)) for e in range(3)]
    assert [b.index.tolist() for b in epochs[0]] == [b.index.tolist() for b in epochs[2]]
    assert [b.index.tolist() for b in epochs[0]] != [b.index.tolist() for b in epochs[1]]
    assert all(torch.equal(a.images, b.images) for a, b in zip(epochs[0], epochs[2], strict=True))


def test_a_view_seed_decides_the_views_alone(dataset: Dataset) -> None:
    plain = list(feed(dataset, seed=3).epoch(1))
    other = list(feed(dataset, seed=4, view_seed=3).epoch(1))
    zero = list(feed(dataset, seed=4, view_seed=0).epoch(1))
    a, b, c = by_index(plain), by_index(other), by_index(zero)
    assert all(torch.equal(a[i], b[i]) for i in a)
    assert not all(torch.equal(a[i], c[i]) for i in a)
    assert [x.index.tolist() for x in plain] != [x.index.tolist() for x in other]


def test_without_augmentation_all_epochs_have_the_same_views(dataset: Dataset) -> None:
    assert [feed(dataset, augment="none").view_epoch(e) for e in range(3)] == [0, 0, 0]
    assert [feed(dataset, augment="none", mixes=True).view_epoch(e) for e in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("cache", ["ram", "none"])
def test_a_view_can_be_asked_for_on_its_own(dataset: Dataset, augment: str, cache: str) -> None:
    one = feed(dataset, augment=augment, cache=cache, views=2)
    for batch in one.epoch(3, start_step=4):
        assert torch.equal(one.view(batch.index.numpy(), batch.view_epoch), batch.images)
        alone = one.view(batch.index.numpy()[2:3], batch.view_epoch)
        assert torch.equal(alone, batch.images[2:3])
        assert alone.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def more(dataset: Dataset, make_tree: MakeTree, tmp_path: Path) -> Dataset:
    place = tmp_path / "unlabelled" / "deep" / "below"
    place.mkdir(parents=True)
    for i in range(10):
        Image.fromarray(picture(9000 + i, 30, 24)).save(place / f"{i}.png")
    return open_dataset(dataset.spec, val=0, test=0, unlabelled=str(tmp_path / "unlabelled"))


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("cache", ["ram", "none"])
def test_unlabelled_images_are_fed_beside_the_others(
    more: Dataset, augment: str, cache: str
) -> None:
    both = feed(more, split="train+unlabelled", augment=augment, cache=cache)
    train = feed(more, augment=augment, cache=cache)
    assert len(both.keys) == 58 and both.keys[:48] == train.keys
    assert both.labels.tolist() == [*train.labels.tolist(), *[-1] * 10]
    whole = list(both.epoch(1))
    assert all(torch.equal(b.labels, torch.from_numpy(both.labels[b.index])) for b in whole)
    assert same(list(both.epoch(1, start_step=3)), whole[3:])
    # A labelled image's views do not depend on whether there are unlabelled ones.
    index = np.array([50, 3, 57, 20])
    mixed, plain = both.view(index, 1), train.view(index[[1, 3]], 1)
    assert torch.equal(mixed[[1, 3]], plain)
    alone = both.view(index[[2]], 1)
    assert torch.equal(mixed[[2]], alone) and alone.float().std() > 1


def test_unlabelled_images_that_cannot_be_read_are_left_out(more: Dataset, tmp_path: Path) -> None:
    (tmp_path / "unlabelled" / "deep" / "below" / "3.png").write_bytes(b"no image")
    spoiled = open_dataset(more.spec, val=0, test=0, unlabelled=str(tmp_path / "unlabelled"))
    with pytest.raises(DataError, match=r"3\.png: is no .*; 1 of 10 unlabelled images") as e:
        feed(spoiled, split="train+unlabelled")
    assert e.value.fix == "mend the files, or set data.allow_quarantined: true"
    one = feed(spoiled, split="train+unlabelled", allow_quarantined=True)
    assert len(one.keys) == 57 and one.quarantined[0].key == ".unlabelled/deep/below/3.png"


@pytest.mark.parametrize(
    ("changes", "same_views"),
    [
        ({"batch_size": 16, "seed": 5, "view_seed": 3, "views": 7, "workers": 1}, True),
        ({"view_seed": 4}, False),
        ({"augment": "shift"}, False),
    ],
)
def test_the_identity_names_what_decides_a_view(
    dataset: Dataset, changes: dict[str, Any], same_views: bool
) -> None:
    assert (feed(dataset).identity() == feed(dataset, **changes).identity()) == same_views


def test_half_of_each_balanced_batch_has_no_label(more: Dataset) -> None:
    one = feed(more, split="train+unlabelled", balanced=True)
    assert one.steps_per_epoch == 12  # 48 labelled images, 4 in each batch
    epochs = [list(one.epoch(e)) for e in range(5)]
    for batches in epochs:
        assert all((b.labels < 0).tolist() == [False, True] * 4 for b in batches)
        labelled = [int(i) for b in batches for i in b.index if i < 48]
        assert sorted(labelled) == list(range(48))
    assert same(list(one.epoch(3, start_step=5)), epochs[3][5:])
    # Ten at a time, through the borders of steps and epochs, each in an order of its own.
    walked = [int(i) for batches in epochs for b in batches for i in b.index if i >= 48]
    rounds = [walked[i : i + 10] for i in range(0, 240, 10)]
    assert all(sorted(r) == list(range(48, 58)) for r in rounds)
    assert len({tuple(r) for r in rounds}) == 24


@pytest.mark.parametrize("world", [2, 4])
def test_each_process_has_half_of_its_share_without_label(more: Dataset, world: int) -> None:
    def order(**options: Any) -> list[Batch]:
        return list(feed(more, split="train+unlabelled", balanced=True, **options).epoch(2))

    alone = order()
    ranks = [order(rank=r, world=world) for r in range(world)]
    for step, batch in enumerate(alone):
        shares = [rank[step] for rank in ranks]
        assert all((s.labels < 0).tolist() == [False, True] * (4 // world) for s in shares)
        together = sorted(int(i) for s in shares for i in s.index)
        assert together == sorted(batch.index.tolist())


def test_a_small_balanced_set_gives_one_short_batch(more: Dataset) -> None:
    options = {"split": "train+unlabelled", "balanced": True, "batch_size": 500, "world": 5}
    (batch,) = feed(more, **options, rank=4).epoch(0)
    assert (batch.labels < 0).tolist() == [False, True] * 9


@pytest.mark.parametrize(
    ("options", "what", "fix"),
    [
        ({"batch_size": 9}, "batch_size is 9, shared by 1 processes, half of it", "multiple of 2"),
        ({"batch_size": 6, "world": 2}, "is 6, shared by 2 processes, half", "multiple of 4"),
        ({"split": "train"}, "no unlabelled image can be used", "another folder"),
        ({"batch_size": 100, "world": 50}, "48 training images for 50 processes", "fewer"),
    ],
)
def test_what_cannot_be_balanced_is_refused(
    more: Dataset, options: dict[str, Any], what: str, fix: str
) -> None:
    with pytest.raises(DataError) as caught:
        feed(more, **{"split": "train+unlabelled", "balanced": True, **options})
    assert what in caught.value.what
    assert fix in caught.value.fix
