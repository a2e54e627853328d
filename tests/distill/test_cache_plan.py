"""What decides whether answers are kept, and whose they are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgexfer.core.errors import DiskError, EdgexferError, MachineError, RecipeError, RunError
from edgexfer.data.dataset import Dataset, open_dataset
from edgexfer.distill import cache_plan
from edgexfer.distill.cache import CachedTeacher
from edgexfer.distill.cache_plan import plan_cache
from tests.distill.cached import AskedTeacher, make_feed, plan, student
from tests.pictures import write_folder

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache"
    monkeypatch.setenv("EDGEXFER_CACHE", str(place))
    return place


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("data")
    more = write_folder(root / "more", 2, {"orange": (230, 150, 30)})
    place = write_folder(root / "pictures")
    return open_dataset(str(place), val=0, test=0, unlabelled=str(more))


def fill(dataset: Dataset, section: Any = None, *epochs: int) -> None:
    """Put files of answers where the plan expects them."""
    found = plan(dataset, section or student())
    CachedTeacher(AskedTeacher(), found, make_feed(dataset, section or student()))
    for epoch in epochs:
        found.file(epoch).touch()


def test_the_plan_is_one_line_with_its_size(dataset: Dataset, cache: Path) -> None:
    found = plan(dataset, student())
    assert (found.use, found.why, found.bytes) == (True, "the same views come again", 2 * 72 * 6)
    assert found.text == (
        f"teacher cache: 2 epochs of views x 72 images x 3 classes, 864 bytes in {found.folder}"
    )
    assert found.folder.parent == cache / "teacher"
    some = plan(dataset, student(cache_top_k=1))
    assert "x 1 of 3 classes, 1.2 kB in" in some.text
    same = plan(dataset, student(train={"augment": "none", "views": None}))
    assert "1 epoch of views x" in same.text
    fill(dataset, None, 1)
    assert plan(dataset, student()).text == f"{found.text}, 1 of 2 are there"


@pytest.mark.parametrize(
    ("section", "shared", "use", "why"),
    [
        (student(teacher_cache="off"), True, False, "student.teacher_cache is off"),
        (student(train={"views": None}), False, False, "no view comes again (see train.views)"),
        (student(train={"views": 4}), False, False, "no view comes again (see train.views)"),
        (student(train={"views": None}), True, True, "other runs see the same views"),
        (student(train={"views": 4}, teacher_cache="on"), False, True, "student.teacher_cache is"),
        (student(train={"views": None, "augment": "none"}), False, True, "the same views come"),
        (student(cache_gb=1e-8), False, False, "take 864 bytes, student.cache_gb allows 10 bytes"),
    ],
)
def test_answers_are_kept_where_they_are_read_again(
    section: Any, shared: bool, use: bool, why: str, dataset: Dataset
) -> None:
    found = plan(dataset, section, shared=shared)
    assert found.use == use and why in found.why
    assert found.text.startswith("teacher cache: none, ") != use


def test_answers_that_are_there_are_read(dataset: Dataset) -> None:
    once = student(train={"views": None})
    assert not plan(dataset, once).use
    fill(dataset, None, 0)
    assert plan(dataset, once).why == "answers to the same views are there"


Refusal = tuple[Any, dict[str, int], type[EdgexferError], str, str]
REFUSED: dict[str, Refusal] = {
    "budget": (
        student(cache_gb=1e-7),
        {},
        RecipeError,
        "the answers take 864 bytes, student.cache_gb allows 100 bytes",
        "raise student.cache_gb",
    ),
    "disk": (
        student(),
        {"free_bytes": 1500},
        DiskError,
        "teacher has 1.5 kB free, twice 864 bytes are wanted",
        "EDGEXFER_CACHE",
    ),
    "memory": (
        student(),
        {"free_memory": 500},
        MachineError,
        "an epoch's answers take 432 bytes, 500 bytes of memory are free",
        "student.cache_top_k",
    ),
    "processes": (
        student(),
        {"world": 2},
        RecipeError,
        "2 processes only read it, and 1 of 2 epochs of views are there",
        "distil with one process",
    ),
    "processes that mix": (
        student(train={"mixup": 0.5}),
        {"world": 2},
        RecipeError,
        "each of 2 processes mixes images of its own",
        "distil with one process",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_cache_that_is_to_be_on_and_cannot_is_refused(
    case: str, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    section, machine, error, what, fix = REFUSED[case]
    world = machine.get("world", 1)
    if world > 1:
        fill(dataset, section, 0)
    for name in machine.keys() - {"world"}:
        monkeypatch.setattr(cache_plan, name, lambda *_, value=machine[name]: value)
    with pytest.raises(error) as caught:
        plan(dataset, replace(section, teacher_cache="on"), world=world)
    assert caught.value.what.startswith("student.teacher_cache is on, but ")
    assert what in caught.value.what and fix in caught.value.fix
    # What is there can be read by several; in all other cases "auto" does without.
    assert plan(dataset, section, world=world).use == (case == "processes")


def test_several_processes_without_answers_do_without(dataset: Dataset) -> None:
    assert "0 of 2 epochs of views are there" in plan(dataset, student(), world=2).text


SAME: dict[str, dict[str, Any]] = {
    "schedule": {"lr": 0.5, "epochs": 30, "views": 7},
    "seed": {"seed": 9},
    "batch": {"batch_size": 8},
}
OTHER: dict[str, dict[str, Any]] = {
    "augment": {"augment": "shift"},
    "view seed": {"view_seed": 1},
    "mixup": {"mixup": 0.1},
}


def test_the_folder_is_decided_by_what_decides_the_answers(dataset: Dataset) -> None:
    seeded = {"view_seed": 0}
    base = plan(dataset, student(train=seeded)).folder
    for name, changes in SAME.items():
        assert plan(dataset, student(train={**seeded, **changes})).folder == base, name
    for name, changes in OTHER.items():
        assert plan(dataset, student(train={**seeded, **changes})).folder != base, name
    # Mixed images also depend on who stands beside whom.
    mixed = {**seeded, "cutmix": 1.0}
    folders = {plan(dataset, student(train={**mixed, **c})).folder for c in SAME.values()}
    assert len(folders) == 3
    section = student(train=seeded)
    others = [
        plan(dataset, section, split="train+unlabelled").folder,
        plan(dataset, student(train=seeded, cache_top_k=2)).folder,
        plan_folder(dataset, "another", "torch-fp32", dataset.classes),
        plan_folder(dataset, "teacher", "openvino-bf16", dataset.classes),
        plan_folder(dataset, "teacher", "torch-fp32", dataset.classes[::-1]),
        base,
    ]
    assert len(set(others)) == len(others)
    assert plan_folder(dataset, "teacher", "torch-fp32", dataset.classes) == base


def plan_folder(dataset: Dataset, teacher: str, engine: str, classes: tuple[str, ...]) -> Path:
    section = student(train={"view_seed": 0})
    return plan_cache(section, teacher, engine, classes, make_feed(dataset, section)).folder


def test_the_answers_of_another_teacher_are_refused(dataset: Dataset) -> None:
    fill(dataset, None, 0)
    found = plan(dataset, student())
    meta = json.loads((found.folder / "meta.json").read_text())
    meta["teacher"], meta["views"]["augment"] = "another", "crop"
    (found.folder / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(RunError) as caught:
        plan(dataset, student())
    assert caught.value.what == f"{found.folder}: was made with another teacher, views.augment"
    assert "delete the folder" in caught.value.fix
    assert not plan(dataset, student(teacher_cache="off")).use


@pytest.mark.parametrize("spoil", ["", "{", None])
def test_answers_of_nobody_are_refused(spoil: str | None, dataset: Dataset) -> None:
    fill(dataset, None, 0)
    found = plan(dataset, student())
    place = found.folder / "meta.json"
    place.unlink() if spoil is None else place.write_text(spoil)
    with pytest.raises(RunError, match=r"meta\.json: .*, so nobody knows whose answers") as caught:
        plan(dataset, student())
    assert "delete the folder" in caught.value.fix
    found.file(0).unlink()
    assert plan(dataset, student()).use
