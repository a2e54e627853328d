"""The audit: counts add up, faults are named, duplicates are found and told apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgexfer.core.codec import encode
from edgexfer.core.errors import DataError
from edgexfer.data.audit import audit, to_text
from edgexfer.data.similar import describe, similar_groups
from tests.data.conftest import MakeTree, picture

SPLIT = ("train/a", "train/b", "test/a", "test/b")


def test_a_clean_folder(make_tree: MakeTree) -> None:
    found = audit(str(make_tree(*SPLIT)), val=0)
    assert found.clean
    assert found.classes == ("a", "b")
    assert [(s.name, s.total, s.used) for s in found.splits] == [
        ("train", 20, 20),
        ("val", 0, 0),
        ("test", 20, 20),
    ]
    assert found.formats == {"JPEG": 40}
    assert found.heights is not None
    assert (found.heights.least, found.heights.median, found.heights.most) == (24, 24, 24)
    assert not found.duplicates
    assert not found.unreadable
    assert not found.misnamed
    assert to_text(found).endswith("\nclean")


def test_what_each_image_became_adds_up(make_tree: MakeTree) -> None:
    place = make_tree(*SPLIT)
    train = place / "train" / "a"
    Image.fromarray(picture(1)).convert("L").save(train / "grey.png")
    Image.fromarray(picture(2)).convert("CMYK").save(train / "cmyk.jpg")
    Image.fromarray(picture(3)).save(train / "really.png", "BMP")
    (train / "text.jpg").write_text("no image")
    (train / "cut.jpg").write_bytes((train / "000.jpg").read_bytes()[:400])
    found = audit(str(place), val=0)
    one = found.splits[0]
    assert one.total == one.used + one.normalised + one.quarantined == 25
    assert (one.used, one.normalised, one.quarantined) == (21, 2, 2)
    assert found.changes == {"cmyk without profile": 1, "grey": 1}
    assert [(f.split, f.key) for f in found.unreadable] == [
        ("train", "train/a/cut.jpg"),
        ("train", "train/a/text.jpg"),
    ]
    assert [(f.key, f.reason) for f in found.misnamed] == [
        ("train/a/really.png", "is BMP, named as PNG")
    ]
    assert found.formats == {"BMP": 1, "JPEG": 41, "PNG": 1}
    assert not found.clean
    text = to_text(found)
    for part in ("text.jpg: is no JPEG", "cut.jpg: is damaged", "really.png is BMP", "not clean"):
        assert part in text


def test_a_leak_from_train_to_test_is_found(make_tree: MakeTree) -> None:
    place = make_tree(*SPLIT)
    shutil.copy(place / "train" / "a" / "003.jpg", place / "test" / "a" / "copy.jpg")
    found = audit(str(place), val=0)
    (group,) = found.duplicates
    assert group.kind == "exact"
    assert group.keys == ("train/a/003.jpg", "test/a/copy.jpg")
    assert (group.across_splits, group.across_classes) == (True, False)
    assert not found.clean
    assert "exact duplicates across splits: 1" in to_text(found)


def test_equal_pixels_in_other_formats_are_exact(make_tree: MakeTree) -> None:
    place = make_tree(*SPLIT)
    Image.open(place / "train" / "a" / "003.jpg").save(place / "test" / "a" / "copy.png")
    (group,) = audit(str(place), val=0).duplicates
    assert group.kind == "exact"


def test_one_image_with_two_labels_is_not_clean(make_tree: MakeTree) -> None:
    place = make_tree(*SPLIT)
    shutil.copy(place / "train" / "a" / "003.jpg", place / "train" / "b" / "copy.jpg")
    found = audit(str(place), val=0)
    (group,) = found.duplicates
    assert (group.across_splits, group.across_classes) == (False, True)
    assert not found.clean
    assert "exact duplicates with different labels: 1" in to_text(found)


def test_near_copies_are_marked_and_tolerated(make_tree: MakeTree) -> None:
    place = make_tree(*SPLIT, size=(64, 64))
    image = Image.open(place / "train" / "a" / "003.jpg")
    image.resize((50, 50)).save(place / "test" / "a" / "smaller.jpg", quality=60)
    found = audit(str(place), val=0)
    (group,) = found.duplicates
    assert (group.kind, group.across_splits) == ("near", True)
    assert group.keys == ("train/a/003.jpg", "test/a/smaller.jpg")
    assert found.clean
    assert "near duplicates across splits: 1" in to_text(found)


def test_imbalance_is_told(make_tree: MakeTree) -> None:
    place = make_tree("a", "b", n=30)
    for image in sorted((place / "b").iterdir())[3:]:
        image.unlink()
    found = audit(str(place), val=0, test=0)
    assert found.imbalance == 10.0
    assert "imbalance: the largest class has 10 times the smallest" in to_text(found)


def test_it_is_plain_json(make_tree: MakeTree) -> None:
    found = audit(str(make_tree(*SPLIT)), val=0)
    value = json.loads(json.dumps(encode(found)))
    assert value["schema"] == "edgexfer.audit/1"
    assert value["splits"][0]["per_class"] == {"a": 10, "b": 10}


def test_digits_have_no_files_and_are_counted_all_the_same() -> None:
    found = audit("digits")
    assert found.formats == {"array": 1797}
    assert sum(s.used for s in found.splits) == 1797


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_images_have_no_groups(n: int) -> None:
    assert similar_groups(np.zeros(n, np.uint64), np.zeros((n, 16, 16, 3), np.uint8)) == []


def test_groups_are_those_that_comparing_all_pairs_gives() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 300, dtype=np.uint64)
    hashes = np.concatenate([base, base, base[:50]])
    for i in range(300, 650):
        for bit in rng.choice(64, rng.integers(0, 7), replace=False):
            hashes[i] ^= np.uint64(1 << int(bit))
    thumbnails = np.repeat(rng.integers(0, 256, (1, 16, 16, 3), dtype=np.uint8), 650, axis=0)
    leader = list(range(650))
    for i in range(650):
        for j in range(i):
            if int(hashes[i] ^ hashes[j]).bit_count() <= 4:
                old, new = leader[i], leader[j]
                leader = [new if k == old else k for k in leader]
    groups = {frozenset(i for i in range(650) if leader[i] == k) for k in leader}
    expected = {g for g in groups if len(g) > 1}
    assert {frozenset(g) for g in similar_groups(hashes, thumbnails)} == expected
    assert len(expected) > 150


def test_alike_hashes_of_other_pictures_are_told_apart() -> None:
    hashes = np.zeros(2, np.uint64)
    thumbnails = np.stack([describe(picture(1))[1], describe(picture(2))[1]])
    assert similar_groups(hashes, thumbnails) == []


def test_what_white_pages_cost_is_linear() -> None:
    n = 20_000
    white = np.full((n, 16, 16, 3), 255, np.uint8)
    assert [len(g) for g in similar_groups(np.zeros(n, np.uint64), white)] == [n]


def test_an_archive_of_four_data_sets_names_them_and_each_can_be_checked(
    shared_data: Path,
) -> None:
    with pytest.raises(DataError, match=r"\(art_painting, cartoon, photo, sketch\)") as caught:
        audit(str(shared_data / "pacs.tar"))
    named = Path(caught.value.fix.removeprefix("name one of them, such as "))
    found = audit(str(named.parent / "photo"))
    assert sum(s.total for s in found.splits) == sum(s.used for s in found.splits) == 812
    assert found.formats == {"JPEG": 812}
    assert found.clean
