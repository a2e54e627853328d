"""The whole advice, from pictures and runs to a recipe that loads, and what is shown beside it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from edgexfer.advise.advice import Wishes, advise, recipe_text
from edgexfer.advise.features import open_source
from edgexfer.advise.sheet import write_sheet
from edgexfer.cli import run
from edgexfer.core.errors import InputError
from edgexfer.data.dataset import Split
from edgexfer.recipe import DataSection, TrainSection, load_recipe
from edgexfer.remote.fleet import Fleet
from edgexfer.training.stage import open_data
from edgexfer.transfer.finetune import finetune
from tests.pictures import write_folder, write_table

pytestmark = pytest.mark.torch


def test_the_seeing_model_is_chosen_and_the_recipe_loads(
    data: DataSection, seeing: Path, blind: Path, tmp_path: Path
) -> None:
    wishes = Wishes(sources=(str(blind), str(seeing)), images=40)
    found = advise(data, wishes)
    assert found.chosen == str(seeing)
    assert found.decided, found.decision
    assert found.images == (40, 52)
    assert found.depth is not None
    assert not found.depth.knows_nothing
    place = tmp_path / "recipe.yaml"
    place.write_text(recipe_text(found))
    recipe = load_recipe(place)
    assert recipe == found.recipe
    assert recipe.teacher is not None
    assert recipe.teacher.strategy == found.choice.strategy
    assert recipe.teacher.model.weights == str(seeing / "model" / "weights.safetensors")
    assert recipe.teacher.model.size == recipe.student.model.size == 16
    assert place.read_text().startswith(f"# {seeing}: logme tells it apart")


def test_of_several_tasks_the_named_one_is_looked_at(
    seeing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = write_folder(tmp_path / "pictures", 24)
    data = DataSection(str(pictures), labels=str(write_table(pictures, tmp_path / "labels.csv")))
    known = int((open_data(data).splits["train"].labels[:, 1] >= 0).sum())
    found = advise(data, Wishes(sources=(str(seeing),), images=100, task="warm"))
    assert found.classes == 2 and found.images == (known, known)
    assert any(note.startswith("Looked at is the task warm alone") for note in found.notes)
    # The recipe trains both tasks, and its strategy can.
    recipe = found.recipe
    assert recipe.data.labels == data.labels and recipe.teacher is not None
    train = TrainSection(epochs=1, batch_size=16, augment="none", compile="off")
    run_info = finetune(data, dataclasses.replace(recipe.teacher, train=train), tmp_path / "run")
    assert [task["name"] for task in run_info.result["test"]["tasks"]] == ["colour", "warm"]
    # Of a model of several tasks no one head has an opinion.
    assert not open_source(str(tmp_path / "run")).has_head

    words = ["advise", "--data", data.path, "--labels", str(data.labels), "--task", "warm"]
    assert run(words) == 0
    assert "2 classes" in capsys.readouterr().out


def test_a_blind_model_is_guarded(data: DataSection, blind: Path) -> None:
    found = advise(data, Wishes(sources=(str(blind),), images=40))
    assert found.depth is not None
    assert found.depth.knows_nothing
    assert found.choice.guard
    assert found.recipe.teacher is not None
    assert (found.recipe.teacher.strategy, found.recipe.teacher.guard) == ("full", True)


def test_without_a_source_it_starts_from_scratch(data: DataSection) -> None:
    found = advise(data, Wishes())
    assert (found.choice.strategy, found.chosen, found.rankings) == ("scratch", None, ())
    assert found.recipe.student.model.size == 16
    assert found.notes == ("Name sources with --source or --models to have them compared.",)


@pytest.mark.parametrize(
    ("wishes", "what", "fix"),
    [
        (Wishes(sources=("a", "a")), "a is named twice", "name it once"),
        (Wishes(source_pictures="x"), "--source-data is given", "add --source or --models"),
        (Wishes(students=("resnet8",)), "--students is given", "add --target"),
        (Wishes(fleet=Fleet()), "--on is given", "add --target"),
        (Wishes(target="jetson", fleet=Fleet()), "not with tensorrt", "leave out"),
    ],
)
def test_wishes_that_contradict_each_other(
    data: DataSection, wishes: Wishes, what: str, fix: str
) -> None:
    with pytest.raises(InputError, match=what) as caught:
        advise(data, wishes)
    assert fix in caught.value.fix


def test_too_few_images_to_look_at_are_refused(data: DataSection, seeing: Path) -> None:
    with pytest.raises(InputError, match="--images 5: are too few for 3 classes") as caught:
        advise(data, Wishes(sources=(str(seeing),), images=5))
    assert caught.value.fix == "give at least 6, two of each class"


def test_the_verb_prints_tables_and_writes_recipe_drawing_and_page(
    data: DataSection, seeing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = {"grey": (120, 120, 120), "black": (10, 10, 10)}
    strange = write_folder(tmp_path / "strange", 15, foreign)
    out = tmp_path / "made" / "recipe.yaml"
    argv = ["advise", "--data", data.path, "--source", str(seeing), "--images", "40"]
    assert run([*argv, "--source-data", str(strange), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "logme" in text
    assert "Proxy A-distance" in text
    assert f"Next: edgexfer run {out}" in text
    assert load_recipe(out).teacher is not None
    assert "<svg" in (out.parent / "recipe-layers.svg").read_text()
    page = (out.parent / "recipe-foreign.html").read_text()
    assert page.count("<img ") == 40
    assert run([*argv, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["chosen"] == str(seeing)
    assert document["rankings"][0]["score"] == "logme"
    assert document["written"] == []


def test_without_out_the_recipe_is_printed(
    data: DataSection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["advise", "--data", data.path]) == 0
    place = tmp_path / "printed.yaml"
    place.write_text(capsys.readouterr().out.partition("The recipe:\n\n")[2])
    assert load_recipe(place).data == dataclasses.replace(data)


def test_names_on_the_page_are_text_and_unreadable_pictures_are_left_out(tmp_path: Path) -> None:
    names = ("<script>alert(1)</script>.png", 'a" onerror="x.png', "cut.png")
    image = np.full((20, 10, 3), 90, np.uint8)

    def read(key: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | bytes:
        return b"no picture" if key == "cut.png" else image

    split = Split("train", names, np.zeros(3, np.int64), read)
    out = tmp_path / "page.html"
    kept = write_sheet(split, [(name, 0.5) for name in names], "1 < 2", out)
    assert kept == names[:2]
    page = out.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert 'onerror="' not in page
    assert "1 &lt; 2" in page
    assert not re.findall(r'src="(?!data:image/png;base64,)', page)
