"""Opening data sets: layouts, class map, splits, fingerprint, and everything that is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgexfer.core.errors import BackendError, DataError
from edgexfer.data.dataset import Dataset, open_dataset, open_pictures
from tests.data.conftest import MakeTree, picture


def counts(dataset: Dataset) -> dict[str, int]:
    return {name: len(split) for name, split in dataset.splits.items()}


def test_a_flat_folder_is_split(make_tree: MakeTree) -> None:
    found = open_dataset(str(make_tree("cat", "dog", n=100)))
    assert found.classes == ("cat", "dog")
    assert sum(counts(found).values()) == 200
    assert 20 <= counts(found)["test"] <= 60
    assert 5 <= counts(found)["val"] <= 30
    keys = [key for split in found.splits.values() for key in split.keys]
    assert len(set(keys)) == 200
    train = found.splits["train"]
    for key, label in zip(train.keys, train.labels, strict=True):
        assert key.startswith(found.classes[label] + "/")
    assert train.labels.dtype == np.int64
    assert train.read(0) == (Path(found.spec) / train.keys[0]).read_bytes()


def test_splits_that_are_there_are_used(make_tree: MakeTree) -> None:
    folders = [f"{split}/{name}" for split in ("train", "validation", "test") for name in "ab"]
    found = open_dataset(str(make_tree(*folders, n=4)))
    assert counts(found) == {"train": 8, "val": 8, "test": 8}
    assert found.splits["val"].keys[0] == "validation/a/000.jpg"


def test_splits_that_are_missing_come_out_of_train(make_tree: MakeTree) -> None:
    found = open_dataset(str(make_tree("train/a", "train/b", "test/a", "test/b", n=50)))
    assert counts(found)["test"] == 100
    assert counts(found)["train"] + counts(found)["val"] == 100
    assert counts(found)["val"] >= 2
    assert all(key.startswith("train/") for key in found.splits["val"].keys)


def test_a_share_of_nothing_leaves_an_empty_split(make_tree: MakeTree) -> None:
    found = open_dataset(str(make_tree("a", "b")), val=0, test=0)
    assert counts(found) == {"train": 20, "val": 0, "test": 0}


def test_class_names_are_plain_text(make_tree: MakeTree) -> None:
    names = ("no", "<script>", "1e3", "café au lait", "{{7*7}}")
    found = open_dataset(str(make_tree(*names, n=2)), val=0, test=0)
    assert found.classes == tuple(sorted(names))


def test_one_class_map_for_all_splits(make_tree: MakeTree) -> None:
    place = make_tree("train/a", "train/b", "train/c", "test/b", "test/c", n=4)
    found = open_dataset(str(place), val=0)
    assert found.classes == ("a", "b", "c")
    assert set(found.splits["test"].labels.tolist()) == {1, 2}


def test_one_folder_around_it_all_is_looked_through(make_tree: MakeTree) -> None:
    place = make_tree("photos/a", "photos/b")
    assert open_dataset(str(place)).classes == ("a", "b")
    split = make_tree("photos/train/a", "photos/train/b", root="other")
    assert open_dataset(str(split)).classes == ("a", "b")


def test_images_in_folders_below_a_class_belong_to_it(make_tree: MakeTree) -> None:
    found = open_dataset(str(make_tree("a/one", "a/two", "b")), val=0, test=0)
    assert found.classes == ("a", "b")
    assert np.bincount(found.splits["train"].labels).tolist() == [20, 10]


def test_a_link_back_to_a_folder_above_ends(make_tree: MakeTree) -> None:
    place = make_tree("a", "b", n=3)
    (place / "a" / "again").symlink_to(place, target_is_directory=True)
    (place / "a" / "self").symlink_to(place / "a", target_is_directory=True)
    keys = open_dataset(str(place), val=0, test=0).splits["train"].keys
    assert set(keys) == {f"{name}/00{i}.jpg" for name in "ab" for i in range(3)}


def test_what_looks_like_an_image_counts_and_what_does_not_is_left(make_tree: MakeTree) -> None:
    place = make_tree("a", "b", n=3)
    (place / "a" / "folder.jpg").mkdir()
    os.mkfifo(place / "a" / "pipe.png")
    (place / "a" / "dangling.jpg").symlink_to("nowhere")
    (place / "a" / "phone.heic").write_bytes(b"x")
    (place / "a" / "notes.txt").write_text("x")
    (place / "a" / ".hidden.jpg").write_bytes(b"x")
    keys = open_dataset(str(place), val=0, test=0).splits["train"].keys
    added = {"a/folder.jpg", "a/pipe.png", "a/dangling.jpg", "a/phone.heic"}
    assert set(keys) == {f"{c}/00{i}.jpg" for c in "ab" for i in range(3)} | added


def test_the_fingerprint_is_of_content_classes_and_splits(
    make_tree: MakeTree, tmp_path: Path
) -> None:
    place = make_tree("a", "b")
    first = open_dataset(str(place)).fingerprint
    copy = shutil.copytree(place, tmp_path / "elsewhere")
    assert open_dataset(str(copy)).fingerprint == first
    assert open_dataset(str(place), split_seed=1).fingerprint != first
    assert open_dataset(str(place), limit=4).fingerprint != first
    (copy / "a").rename(copy / "c")
    assert open_dataset(str(copy)).fingerprint != first
    image = place / "a" / "000.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    assert open_dataset(str(place)).fingerprint != first


def test_a_limit_keeps_an_even_sample_of_each_split(make_tree: MakeTree) -> None:
    found = open_dataset(str(make_tree("a", "b", "c", n=60)), limit=6)
    assert counts(found) == {"train": 6, "val": 6, "test": 6}
    assert np.bincount(found.splits["train"].labels).tolist() == [2, 2, 2]


def test_digits() -> None:
    found = open_dataset("digits")
    assert found.classes == tuple("0123456789")
    assert sum(counts(found).values()) == 1797
    image = found.splits["train"].read(0)
    assert isinstance(image, np.ndarray)
    assert image.shape == (8, 8, 3)
    assert image.dtype == np.uint8
    values = np.unique([np.asarray(found.splits["val"].read(i)) for i in range(20)])
    assert set(values) <= {round(v * 255 / 16) for v in range(17)}
    assert values.max() == 255


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of six images without classes, at several depths."""
    place = tmp_path / "pictures"
    for i, folder in enumerate(["", "", "x", "x", "x/y", "a"]):
        (place / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(5000 + i)).save(place / folder / f"{i}.png")
    (place / "notes.txt").write_text("x")
    return place


def test_unlabelled_images_are_a_split_of_their_own(make_tree: MakeTree, pictures: Path) -> None:
    place = str(make_tree("a", "b"))
    plain, found = open_dataset(place), open_dataset(place, unlabelled=str(pictures))
    more = found.splits["unlabelled"]
    assert more.labels.tolist() == [-1] * 6 and found.notes == ()
    assert set(more.keys) == {
        f".unlabelled/{name}" for name in ("0.png", "1.png", "x/2.png", "x/3.png", "x/y/4.png")
    } | {".unlabelled/a/5.png"}
    assert more.read(0) == (pictures / more.keys[0].removeprefix(".unlabelled/")).read_bytes()
    assert (found.classes, list(plain.splits)) == (plain.classes, ["train", "val", "test"])
    for name in plain.splits:
        assert found.splits[name].keys == plain.splits[name].keys
    # The fingerprint is of their content and paths below the folder, not of where it lies.
    assert found.fingerprint != plain.fingerprint
    moved = pictures.rename(pictures.with_name("elsewhere"))
    assert open_dataset(place, unlabelled=str(moved)).fingerprint == found.fingerprint
    shutil.copy(moved / "0.png", moved / "1.png")
    assert open_dataset(place, unlabelled=str(moved)).fingerprint != found.fingerprint


def test_a_limit_on_train_leaves_val_and_test_and_grows_by_inclusion(make_tree: MakeTree) -> None:
    place = str(make_tree("a", "b", "c", n=60))
    whole, few = open_dataset(place), open_dataset(place, train_limit=9)
    some = open_dataset(place, train_limit=30)
    assert few.splits["test"].keys == whole.splits["test"].keys
    assert few.splits["val"].keys == whole.splits["val"].keys
    assert np.bincount(few.splits["train"].labels).tolist() == [3, 3, 3]
    assert set(few.splits["train"].keys) < set(some.splits["train"].keys)
    assert set(some.splits["train"].keys) < set(whole.splits["train"].keys)


def test_a_limit_holds_for_unlabelled_images_too(make_tree: MakeTree, pictures: Path) -> None:
    found = open_dataset(str(make_tree("a", "b")), limit=4, unlabelled=str(pictures))
    assert counts(found)["unlabelled"] == len(found.contents["unlabelled"]) == 4


def test_unlabelled_images_can_stand_beside_arrays(pictures: Path) -> None:
    found = open_dataset("digits", limit=20, unlabelled=str(pictures))
    assert counts(found) == {"train": 20, "val": 20, "test": 20, "unlabelled": 6}


def test_copies_of_images_that_are_measured_on_are_left_out(
    make_tree: MakeTree, pictures: Path
) -> None:
    place = make_tree("a", "b")
    splits = open_dataset(str(place)).splits
    for name in ("train", "val", "test"):
        shutil.copy(place / splits[name].keys[0], pictures / f"copy of {name}.jpg")
    (pictures / "broken.jpg").symlink_to("nowhere")
    (place / splits["val"].keys[1]).unlink()
    (place / splits["val"].keys[1]).symlink_to("nowhere")
    found = open_dataset(str(place), unlabelled=str(pictures))
    keys = set(found.splits["unlabelled"].keys)
    assert keys >= {".unlabelled/copy of train.jpg", ".unlabelled/broken.jpg"} and len(keys) == 8
    assert found.notes == ("2 unlabelled images left out: copies of val or test images",)


UNUSABLE: dict[str, tuple[Callable[[Path, Path], object], str, str]] = {
    "missing": (lambda _, p: p / "nowhere", "nowhere: no such folder (data.unlabelled)", "name a"),
    "file": (lambda _, p: p / "notes.txt", "notes.txt: is a file, not a folder", "name a folder"),
    "no images": (lambda _, p: empty_folder(p), "data.unlabelled holds no images", "add images"),
    "itself": (lambda d, _: d, "shares images with the labelled folder", "beside it"),
    "inside": (lambda d, _: d / "a", "shares images with the labelled folder", "beside it"),
    "around": (lambda d, _: d.parent, "shares images with the labelled folder", "beside it"),
    "copies": (lambda d, p: only_copies(d, p), "every image of data.unlabelled is a copy", "name"),
}


def empty_folder(place: Path) -> Path:
    (place / "empty").mkdir()
    return place / "empty"


def only_copies(data: Path, place: Path) -> Path:
    folder = empty_folder(place)
    for key in open_dataset(str(data)).splits["test"].keys:
        shutil.copy(data / key, folder / key.replace("/", "-"))
    return folder


@pytest.mark.parametrize("case", UNUSABLE)
def test_unlabelled_images_that_cannot_be_used_are_refused(
    case: str, make_tree: MakeTree, pictures: Path
) -> None:
    spoil, what, fix = UNUSABLE[case]
    data = make_tree("a", "b")
    named = str(spoil(data, pictures))
    with pytest.raises(DataError) as caught:
        open_dataset(str(data), unlabelled=named)
    assert caught.value.what.startswith(f"{named}: ") and what in caught.value.what
    assert fix in caught.value.fix


def remove(place: Path) -> None:
    shutil.rmtree(place)


def remove_all(place: Path) -> None:
    for folder in place.iterdir():
        remove(folder)


def empty(place: Path) -> None:
    for image in place.iterdir():
        image.unlink()


def loose(place: Path) -> None:
    shutil.move(place / "a" / "000.jpg", place / "000.jpg")


def thin(place: Path) -> None:
    for image in sorted(place.iterdir())[1:]:
        image.unlink()


FLAT, SPLIT = ("a", "b"), ("train/a", "train/b", "test/a", "test/b")
REFUSED: dict[str, tuple[tuple[str, ...], Callable[[Path], object], str, str]] = {
    "missing": (FLAT, remove, "{}: no such folder or archive", "name a folder"),
    "empty root": (
        FLAT,
        remove_all,
        "holds no class folders",
        "DATA/",
    ),
    "empty class": (FLAT, lambda p: empty(p / "b"), "{}/b: holds no images", "delete it"),
    "one class": (FLAT, lambda p: remove(p / "b"), "only the class 'a'", "at least two classes"),
    "one image": (FLAT, lambda p: thin(p / "b"), "class 'b' has 1 training image", "at least 2"),
    "loose images": (FLAT, loose, "{}/000.jpg: lies in no class folder", "DATA/CLASS"),
    "only in test": (
        SPLIT,
        lambda p: remove(p / "train/b"),
        "class 'b' has images in val or test",
        "add",
    ),
    "no train": (SPLIT, lambda p: remove(p / "train"), "holds test, but no train", "lay it out"),
    "case": ((*FLAT, "B"), lambda _: None, "classes 'B' and 'b' differ only in case", "rename"),
    "case over splits": (
        (*SPLIT, "test/A"),
        lambda _: None,
        "'A' and 'a' differ only in case",
        "rename",
    ),
    "empty test": (
        SPLIT,
        lambda p: remove_all(p / "test"),
        "{}: its test split holds no images",
        "images of train take its place",
    ),
    "beside train": ((*SPLIT, "cat"), lambda _: None, "{}/cat: lies beside train/", "lay it out"),
    "val twice": ((*SPLIT, "val/a", "valid/a"), lambda _: None, "holds a split twice", "keep one"),
    "sets": (("x/train/a", "x/train/b", "y/train/a"), lambda _: None, "(x, y) hold train/", "{}/x"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_cannot_be_used_is_refused(case: str, make_tree: MakeTree) -> None:
    folders, spoil, what, fix = REFUSED[case]
    place = make_tree(*folders, n=3)
    spoil(place)
    with pytest.raises(DataError) as caught:
        open_dataset(str(place))
    assert what.format(place) in caught.value.what
    assert fix.format(place) in caught.value.fix
    assert str(place) in caught.value.what


def test_a_split_without_a_label_is_refused(make_tree: MakeTree, tmp_path: Path) -> None:
    place = make_tree(*SPLIT, n=3)
    table = tmp_path / "labels.csv"
    rows = [f"train/{c}/00{i}.jpg,{c}" for c in "ab" for i in range(3)]
    table.write_text("\n".join(["image,kind", *rows]))
    with pytest.raises(
        DataError, match=r"its test split holds no image that .* has a label"
    ) as found:
        open_dataset(str(place), labels=str(table))
    assert "delete its folder" in found.value.fix


def test_no_case_of_refusal_is_lost() -> None:
    assert len(REFUSED) == 14


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"val": 0.6}, "data.val is 0.6"),
        ({"test": -0.1}, "data.test is -0.1"),
        ({"limit": 1}, "2 classes"),
        ({"train_limit": 1}, "2 classes"),
    ],
)
def test_settings_out_of_range(options: dict[str, float], what: str, make_tree: MakeTree) -> None:
    place = str(make_tree("a", "b"))
    with pytest.raises(DataError) as caught:
        open_dataset(place, **options)  # type: ignore[arg-type]
    assert what in caught.value.what
    assert caught.value.fix.startswith("give")


def test_a_file_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b")
    with pytest.raises(DataError, match=r"x\.csv: is neither a folder nor a \.tar"):
        open_dataset(str(tmp_path / "x.csv"))


def test_unknown_names_of_libraries() -> None:
    with pytest.raises(DataError, match="torchvision:CIFAR11: no such data set") as caught:
        open_dataset("torchvision:CIFAR11")
    assert "'CIFAR10'" in caught.value.fix


def test_the_hub_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(BackendError, match="hf:owner/name: needs the library `datasets`") as caught:
        open_dataset("hf:owner/name")
    assert caught.value.fix == "pip install 'edgexfer[hf]'"


def test_pictures_are_found_at_any_depth_and_have_no_label(make_tree: MakeTree) -> None:
    place = make_tree("a/one", "b", n=3)
    found = open_pictures(str(place))
    assert found.classes == ()
    assert found.splits["train"].labels.tolist() == [-1] * 6
    assert found.splits["train"].keys[0] == "a/one/000.jpg"
    some = open_pictures(str(place), limit=2)
    assert set(some.splits["train"].keys) < set(found.splits["train"].keys)
    assert len(some.splits["train"]) == 2 and some.fingerprint != found.fingerprint


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Path.exists, "no such folder"),
        (Path.touch, "is a file"),
        (Path.mkdir, "holds no images"),
    ],
    ids=("missing", "file", "empty"),
)
def test_no_pictures(make: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    make(tmp_path / "camera")
    with pytest.raises(DataError, match=words) as caught:
        open_pictures(str(tmp_path / "camera"))
    assert "camera" in caught.value.what and "folder" in caught.value.fix
