"""An audit names the group that is served worse and the one that pays, and no other."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from edgexfer.core.errors import DataError, EdgexferError, InputError, RunError
from edgexfer.export.audit import Audit, GroupScore, compare_groups, divide, over_limit, to_text
from edgexfer.export.evaluate import Answer, Answers

N = 600
SITES = ("north", "south", "east")


def images() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return keys such as ``test/cat/south/0001.jpg``, and labels; sites and classes cross."""
    labels = tuple(("cat", "dog")[i % 2] for i in range(N))
    keys = tuple(f"test/{label}/{SITES[i % 3]}/{i:04d}.jpg" for i, label in enumerate(labels))
    return keys, labels


def answers(*shares: dict[str, float], seed: int = 0) -> Answers:
    """Return answers that are right at each site with these chances, one model after another."""
    keys, labels = images()
    chance = random.Random(seed)
    found = [
        Answer(f"model{m}", tuple(chance.random() < share[key.split("/")[2]] for key in keys))
        for m, share in enumerate(shares)
    ]
    return Answers(keys, labels, ("cat", "dog"), tuple(found))


FAIR = dict.fromkeys(SITES, 0.9)
UNFAIR = {**FAIR, "south": 0.6}


def scores(found: Audit, subject: int, by: str) -> dict[str, GroupScore]:
    return {s.group: s for s in found.subjects[subject].groups if s.by == by}


def test_the_group_that_is_served_worse_is_the_first_and_the_only_one() -> None:
    found = compare_groups([(Path("run"), answers(UNFAIR))], ["folder:1"])
    (subject,) = found.subjects
    sites = [s for s in subject.groups if s.by == "folder:1"]
    assert sites[0].group == "south"
    assert [s.group for s in sites if s.gap_low_pt > 0] == ["south"]
    assert sum(s.n for s in sites) == sum(s.n for s in subject.groups if s.by == "class") == N
    others = 100 * sum(s.correct for s in sites[1:]) / sum(s.n for s in sites[1:])
    assert sites[0].gap_pt == pytest.approx(others - sites[0].top1_pct)
    assert found.intervals == 5


def test_who_pays_for_the_compression_is_named_image_by_image() -> None:
    asked = answers(FAIR, UNFAIR)
    found = compare_groups([(Path("bundle"), asked)], ["folder:1"])
    before, after = (answer.right or () for answer in asked.answers)
    lost = [k for k, a, b in zip(asked.keys, before, after, strict=True) if a and not b]
    assert list(found.subjects[1].lost) == lost
    assert found.subjects[0].groups[0].drop is None
    drops = {name: s.drop for name, s in scores(found, 1, "folder:1").items()}
    assert drops["south"] is not None and drops["south"].low_pt > 0
    assert drops["north"] is not None and drops["north"].low_pt < 0
    assert sum(d.lost for d in drops.values() if d) == len(lost)


def test_intervals_of_many_groups_hold_together() -> None:
    """Of 200 audits of a fair model at most 5 % may find some group behind."""
    alarms = 0
    for seed in range(200):
        found = compare_groups([(Path("run"), answers(FAIR, seed=seed))], ["folder:1"])
        alarms += any(s.gap_low_pt > 0 for s in found.subjects[0].groups)
    assert alarms <= 10


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ((50.0, None), []),
        ((10.0, None), ["south", "over the limit of 10"]),
        ((None, 10.0), ["south", "loses", "over the limit of 10"]),
    ],
)
def test_a_limit_names_the_group(
    limits: tuple[float | None, float | None], words: list[str]
) -> None:
    found = compare_groups([(Path("bundle"), answers(FAIR, UNFAIR))], ["folder:1"])
    lines = [line for line in over_limit(found, *limits) if "over" in line]
    assert len(lines) == bool(words)
    assert all(word in lines[0] for word in words)


def test_what_few_images_leave_open_is_no_pass() -> None:
    found = compare_groups([(Path("bundle"), answers(FAIR, FAIR))], ["folder:1"])
    lines = over_limit(found, None, 5.0)
    assert lines and all("which leaves open the limit of 5" in line for line in lines)
    assert any("images of it would tell" in line for line in lines)


def test_a_model_that_cannot_run_is_a_line_and_misses_every_limit() -> None:
    keys, labels = images()
    both = (*answers(FAIR).answers, Answer("npu", None, "no NPU here"))
    found = compare_groups([(Path("bundle"), Answers(keys, labels, ("cat", "dog"), both))])
    assert "bundle/npu: not run: no NPU here" in to_text(found)
    assert any("cannot run here: no NPU" in line for line in over_limit(found, 100.0, None))


def test_a_table_divides_by_its_column(tmp_path: Path) -> None:
    found = answers(FAIR)
    table = tmp_path / "sites.csv"
    rows = [f"{key},{'old' if i % 4 else 'new'}" for i, key in enumerate(found.keys)]
    table.write_text("\n".join(["image,camera", *rows]))
    name, groups = divide(found, f"{table}:camera")
    assert name == "camera"
    assert [groups.count("new"), groups.count("old")] == [N // 4, 3 * N // 4]


@pytest.mark.parametrize(
    ("spec", "text", "kind", "what", "fix"),
    [
        ("sites.csv:camera", "image,site\na,b\n", InputError, "no column 'camera'", "site"),
        ("sites.csv:site", "site\nb\n", InputError, "no column 'image'", "site"),
        ("sites.csv:site", "image,site\na\n", InputError, "sites.csv:2: the row is cut", "mend"),
        ("sites.csv:site", "image,site\na,b\na,c\n", InputError, "a is 'c', but was 'b'", "one"),
        ("sites.csv:site", "image,site\n\na,b\n\na\n", InputError, "sites.csv:5: the row", "mend"),
        ("sites.csv:site", "image,site\na,b\n", DataError, "no row for 600 of 600", "column"),
        ("none.csv:site", "", InputError, "none.csv: cannot be read", "UTF-8"),
        ("site", "", InputError, "--by site: is not a division", "folder:1"),
        ("folder:0", "", InputError, "is not a level", "folder:1"),
        ("folder:2", "", DataError, "has no folder at level 2", "another level"),
    ],
)
def test_a_division_that_cannot_be_is_refused(
    tmp_path: Path, spec: str, text: str, kind: type[EdgexferError], what: str, fix: str
) -> None:
    (tmp_path / "sites.csv").write_text(text)
    spec = str(tmp_path / spec) if ".csv" in spec else spec
    with pytest.raises(kind) as caught:
        divide(answers(FAIR), spec)
    assert what in caught.value.what
    assert fix in caught.value.fix


WELL, ILL = (True, True, True), (True, True, False)


def two_tasks() -> Answers:
    """Three pictures, two tasks, a label missing; the second model errs in the task ``site``."""
    return Answers(
        ("test/x/1.jpg", "test/x/2.jpg", "test/y/3.jpg"),
        ("kind=cat, site=in", "kind=dog", "kind=dog, site=out"),
        (),
        (
            Answer("a", (True, False, True), right_in={"kind": (True, False, True), "site": WELL}),
            Answer("b", (True, False, False), right_in={"kind": (True, False, True), "site": ILL}),
        ),
        {"kind": ("cat", "dog", "dog"), "site": ("in", None, "out")},
    )


def test_each_of_several_tasks_is_audited_on_the_images_that_have_its_label() -> None:
    found = compare_groups([(Path("bundle"), two_tasks())], ["folder:1"])
    told = [(s.title, s.n, s.top1_pct, s.lost, s.won) for s in found.subjects]
    assert told == [
        ("bundle/a, task kind", 3, pytest.approx(200 / 3), (), ()),
        ("bundle/b, task kind", 3, pytest.approx(200 / 3), (), ()),
        ("bundle/a, task site", 2, 100.0, (), ()),
        ("bundle/b, task site", 2, 50.0, ("test/y/3.jpg",), ()),
    ]
    site = {(s.by, s.group): (s.n, s.correct) for s in found.subjects[3].groups}
    assert site == {
        **{("class", "in"): (1, 1), ("class", "out"): (1, 0)},
        **{("folder:1", "x"): (1, 1), ("folder:1", "y"): (1, 0)},
    }
    assert (found.n, found.intervals) == (3, 8)
    assert "bundle/b, task site: 50.00 % top-1, n=2; 1 images lost, 0 won" in to_text(found)
    lines = over_limit(found, None, 10.0)
    assert any(line.startswith("bundle/b, task site, class 'out': loses") for line in lines)


def test_a_level_that_data_of_several_tasks_lacks_is_refused() -> None:
    with pytest.raises(DataError, match="has no folder at level 2 below the data") as caught:
        divide(two_tasks(), "folder:2")
    assert "FILE.csv:COLUMN" in caught.value.fix


def test_other_images_and_a_reference_that_cannot_run_are_refused() -> None:
    first = answers(FAIR)
    fewer = Answers(first.keys[1:], first.labels[1:], first.classes, first.answers)
    with pytest.raises(RunError, match="two: is tested on other images than one") as caught:
        compare_groups([(Path("one"), first), (Path("two"), fewer)])
    assert caught.value.fix == "add --data DATA"
    absent = Answers(first.keys, first.labels, first.classes, (Answer("npu", None, "no NPU"),))
    with pytest.raises(RunError, match="one: cannot run here"):
        compare_groups([(Path("one"), absent)])


def test_a_drop_of_one_model_alone_is_no_pass() -> None:
    found = compare_groups([(Path("run"), answers(FAIR))])
    assert over_limit(found, None, 5.0) == [
        "nothing was compared, so no drop is known: name the reference before it"
    ]
    assert over_limit(found, 100.0, None) == []
