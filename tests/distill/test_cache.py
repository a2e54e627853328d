"""The teacher cache: training from it is training with the teacher, to the bit."""

from __future__ import annotations

import resource
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edgexfer.core.rundir import read_events
from edgexfer.data.dataset import Dataset, open_dataset
from edgexfer.data.feed import TrainFeed
from edgexfer.distill.cache import CachedTeacher
from edgexfer.distill.cache_plan import CachePlan
from edgexfer.training.objective import Views
from tests.distill.cached import AskedTeacher, make_feed, plan, student, train
from tests.pictures import write_folder

pytestmark = pytest.mark.torch

# 72 images in batches of 16: four steps, and a rest of eight that an epoch leaves out.
SEEN = 64


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.set_num_threads(1)
    place = tmp_path / "cache"
    monkeypatch.setenv("EDGEXFER_CACHE", str(place))
    return place


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    place = write_folder(tmp_path_factory.mktemp("data") / "pictures")
    return open_dataset(str(place), val=0, test=0)


def files(found: CachePlan) -> list[str]:
    return sorted(p.name for p in found.folder.glob("*.rows"))


def warnings(run: Path) -> list[str]:
    return [e["warning"] for e in read_events(run) if e["event"] == "teacher_cache"]


KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "views": ({}, {}),
    "mixup and cutmix": ({"mixup": 0.8, "cutmix": 1.0}, {}),
    "micro-batches": ({"accumulate": 3}, {}),
    "top k": ({}, {"cache_top_k": 2}),
    "random crops": ({"augment": "crop"}, {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_training_from_the_cache_is_training_online_to_the_bit(
    kind: str, dataset: Dataset, tmp_path: Path
) -> None:
    changes, options = KINDS[kind]
    section = student(train=changes, **options)
    online, cached = AskedTeacher(), AskedTeacher()
    off = replace(section, teacher_cache="off")
    wanted, _ = train(tmp_path / "online", dataset, off, online)
    found, kept = train(tmp_path / "cached", dataset, section, cached)
    assert found == wanted
    assert (online.asked, kept.read) == (4 * SEEN, 2 * SEEN)
    assert files(kept.plan) == ["views-00000.rows", "views-00001.rows"]
    assert kept.plan.file(0).stat().st_size == kept.plan.epoch_bytes + 32

    # A second training is answered by the files alone.
    never = AskedTeacher()
    again, _ = train(tmp_path / "again", dataset, section, never)
    assert (again, never.asked) == (wanted, 0)


@pytest.mark.parametrize("kind", ["views", "mixup and cutmix"])
@pytest.mark.parametrize("fail_at", [3, 7, 12])
def test_a_training_that_was_interrupted_ends_with_the_same_bits(
    kind: str, fail_at: int, dataset: Dataset, tmp_path: Path
) -> None:
    section = student(train=KINDS[kind][0])
    off = replace(section, teacher_cache="off")
    wanted, _ = train(tmp_path / "online", dataset, off, AskedTeacher())
    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "cached", dataset, section, AskedTeacher(), fail_at=fail_at)
    found, kept = train(tmp_path / "cached", dataset, section, AskedTeacher())
    assert found == wanted
    assert files(kept.plan) == ["views-00000.rows", "views-00001.rows"]


def test_a_file_is_the_same_whichever_steps_the_training_did_itself(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = []
    for name, fail_at in (("whole", None), ("broken", 3)):
        monkeypatch.setenv("EDGEXFER_CACHE", str(tmp_path / name))
        if fail_at:
            with pytest.raises(ZeroDivisionError):
                train(tmp_path / f"run-{name}", dataset, student(), AskedTeacher(), fail_at=fail_at)
        _, kept = train(tmp_path / f"run-{name}", dataset, student(), AskedTeacher())
        contents.append([kept.plan.file(e).read_bytes() for e in range(2)])
    assert contents[0] == contents[1]


def test_another_student_reads_what_the_first_one_kept(dataset: Dataset, tmp_path: Path) -> None:
    train(tmp_path / "first", dataset, student(train={"view_seed": 5}), AskedTeacher())
    other = student(train={"view_seed": 5, "seed": 3, "batch_size": 12, "views": 2, "lr": 1e-3})
    teacher, online = AskedTeacher(), AskedTeacher()
    found, kept = train(tmp_path / "second", dataset, other, teacher)
    assert (teacher.asked, kept.read) == (0, 4 * 72)
    off = replace(other, teacher_cache="off")
    assert found == train(tmp_path / "online", dataset, off, online)[0]


def test_a_rehearsal_keeps_nothing(dataset: Dataset) -> None:
    section = student()
    feed, found = make_feed(dataset, section), plan(dataset, section)
    cached = CachedTeacher(AskedTeacher(), found, feed)
    for batch in feed.epoch(0):
        cached(batch.images.float(), Views.of(batch, feed.steps_per_epoch, rehearsal=True))
    assert files(found) == []
    for batch in feed.epoch(0):
        cached(batch.images.float(), Views.of(batch, feed.steps_per_epoch))
    assert files(found) == ["views-00000.rows"]


@pytest.mark.parametrize("spoil", ["truncated", "altered"])
def test_a_damaged_file_is_told_and_computed_again(
    spoil: str, dataset: Dataset, tmp_path: Path
) -> None:
    wanted, kept = train(tmp_path / "first", dataset, student(), AskedTeacher())
    place = kept.plan.file(1)
    whole = place.read_bytes()
    place.write_bytes(whole[:-40] if spoil == "truncated" else bytes(8) + whole[8:])
    teacher = AskedTeacher()
    found, _ = train(tmp_path / "second", dataset, student(), teacher)
    assert found == wanted
    # The epoch, and its rest, padded to a batch.
    assert teacher.asked == SEEN + 16
    [warning] = warnings(tmp_path / "second")
    assert warning.startswith(f"{place}: ") and warning.endswith("; it is computed again")
    assert place.read_bytes() == whole


def see(cached: CachedTeacher, feed: TrainFeed, epochs: Iterable[int]) -> None:
    """Ask about all batches of some epochs."""
    for epoch in epochs:
        for batch in feed.epoch(epoch):
            cached(batch.images.float(), Views.of(batch, feed.steps_per_epoch))


def test_a_full_disk_ends_the_cache_and_not_the_training(dataset: Dataset) -> None:
    section = student()
    feed, found = make_feed(dataset, section), plan(dataset, section)
    events: list[dict[str, Any]] = []
    cached = CachedTeacher(AskedTeacher(), found, feed, events.append)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (found.epoch_bytes - 1, before[1]))
    try:
        see(cached, feed, range(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    [event] = events
    assert (event["event"], event["step"]) == ("teacher_cache", 3)
    assert "no room left to write" in event["warning"]
    assert event["warning"].endswith("; the teacher's answers are no longer kept")
    assert [p.name for p in found.folder.iterdir()] == ["meta.json"]
    # The rest of the one epoch that was to be kept was asked about as well.
    assert (cached.read, cached.computed) == (0, 3 * SEEN + 16)


def test_a_cache_that_cannot_be_written_is_given_up(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = student()
    feed = make_feed(dataset, section)
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGEXFER_CACHE", str(tmp_path / "file"))
    events: list[dict[str, Any]] = []
    cached = CachedTeacher(AskedTeacher(), plan(dataset, section), feed, events.append)
    see(cached, feed, range(1))
    assert len(events) == 1 and str(tmp_path / "file") in events[0]["warning"]
    assert cached.computed == SEEN


def test_several_processes_read_and_do_not_write(dataset: Dataset, tmp_path: Path) -> None:
    section = student()
    _, kept = train(tmp_path / "run", dataset, section, AskedTeacher())
    kept.plan.file(1).unlink()
    shared, feed = plan(dataset, section, world=2), make_feed(dataset, section, rank=1, world=2)
    cached = CachedTeacher(AskedTeacher(), shared, feed)
    see(cached, feed, range(4))
    assert (cached.read, cached.computed) == (SEEN, SEEN)
    assert files(shared) == ["views-00000.rows"]


def test_what_a_training_uses_is_not_swept(dataset: Dataset) -> None:
    section = student()
    feed, found = make_feed(dataset, section), plan(dataset, section)
    first = CachedTeacher(AskedTeacher(), found, feed)
    see(first, feed, range(1))

    def another() -> CachePlan:
        other = student(train={"view_seed": 9}, cache_gb=1.5 * found.bytes / 1e9)
        tight = plan(dataset, other)
        CachedTeacher(AskedTeacher(), tight, make_feed(dataset, other))
        return tight

    another()
    assert files(found) == ["views-00000.rows"]
    del first
    assert another().folder.is_dir() and not found.folder.exists()


def test_of_two_trainings_side_by_side_the_first_file_stays(dataset: Dataset) -> None:
    section = student()
    feed, found = make_feed(dataset, section), plan(dataset, section)
    pair = [CachedTeacher(AskedTeacher(), found, feed) for _ in range(2)]
    for batch in feed.epoch(0):
        for cached in pair:
            cached(batch.images.float(), Views.of(batch, feed.steps_per_epoch))
            if files(found):
                made = found.file(0).stat().st_ino
    assert files(found) == ["views-00000.rows"] and found.file(0).stat().st_ino == made
    for cached in pair:
        see(cached, feed, [2])
        assert cached.read == SEEN
