from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from edgexfer import recipe as recipe_module
from edgexfer.core.errors import RecipeError
from edgexfer.recipe import (
    BenchSection,
    DataSection,
    Recipe,
    TrainSection,
    check_section,
    dump_recipe,
    load_recipe,
    recipe_schema,
)

LEAST = "name: digits\ndata:\n  path: digits\nstudent:\n  model:\n    name: resnet8\n"


def write(tmp_path: Path, text: str = LEAST) -> Path:
    place = tmp_path / "recipe.yaml"
    place.write_text(text, encoding="utf-8")
    return place


def test_the_least_recipe_has_the_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path))
    assert recipe.name == "digits"
    assert recipe.teacher is None
    assert recipe.student.train == TrainSection()
    assert recipe.bench == BenchSection()


def test_a_dumped_recipe_is_the_same_recipe(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, LEAST + "    size: 32\n"), ["student.train.lr=1e-3"])
    text = dump_recipe(recipe)
    assert load_recipe(write(tmp_path, text)) == recipe
    assert "label_smoothing" in text


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("student.train.epochs=3", lambda r: r.student.train.epochs == 3),
        ("student.train.lr=1e-4", lambda r: r.student.train.lr == 1e-4),
        ("name=no", lambda r: r.name == "no"),
        ("data.limit=null", lambda r: r.data.limit is None),
        ("export.targets=[a, b]", lambda r: r.export.targets == ("a", "b")),
        ("teacher.model.name=resnet20", lambda r: r.teacher.model.name == "resnet20"),
        ("data.path=a=b", lambda r: r.data.path == "a=b"),
    ],
)
def test_an_override_sets_one_key(tmp_path: Path, override: str, expected: Any) -> None:
    assert expected(load_recipe(write(tmp_path), [override]))


@pytest.mark.parametrize("override", ["student", "=3", "a..b=3", ".a=3"])
def test_an_override_without_a_key_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(RecipeError, match="is not key=value") as caught:
        load_recipe(write(tmp_path), [override])
    assert caught.value.fix == "write --set student.train.epochs=3"


@pytest.mark.parametrize(
    ("override", "what", "fix"),
    [
        ("student.train.epcohs=3", "unknown key student.train.epcohs (--set)", "'epochs'"),
        ("student.train.epochs=0", "student.train.epochs (--set) is 0, expected", ""),
        ("student.train.epochs=abc", "student.train.epochs (--set) is 'abc', expected", ""),
        ("student.temperature=0", "student.temperature (--set) is 0", ""),
        (
            "student.train.augment=flop",
            "student.train.augment (--set) is 'flop', expected 'none'",
            "",
        ),
        ("student.train.precision=int8", "student.train.precision (--set) is 'int8', expected", ""),
        ("data.val=0.6", "data.val (--set) is 0.6, expected less than or equal to 0.5", ""),
        ("data.limit=yes", "data.limit (--set) is 'yes', expected", ""),
        ("bench.seconds=.inf", "inf is not a finite number", "give a finite number"),
        ("data.path=[", "--set data.path:1: ", "mend that line"),
        ("teacher.strategy=full", "key teacher.model is missing", "add teacher.model"),
    ],
)
def test_a_wrong_value_names_its_key(tmp_path: Path, override: str, what: str, fix: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path), [override])
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_a_fault_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"unknown key student\.tempreature \(line 7\)") as caught:
        load_recipe(write(tmp_path, LEAST + "  tempreature: 4\n"))
    assert "'temperature'" in caught.value.fix


def test_sections_from_code_are_checked_like_recipes() -> None:
    section = TrainSection(epochs=2)
    assert check_section(section) == section
    with pytest.raises(RecipeError, match=r"^train: epochs is 0") as caught:
        check_section(TrainSection(epochs=0))
    assert caught.value.fix == "give a value of that type"
    with pytest.raises(RecipeError, match="data: val is 'a'"):
        check_section(DataSection("digits", val="a"))  # type: ignore[arg-type]


def sections() -> list[Any]:
    own = [v for v in vars(recipe_module).values() if isinstance(v, type)]
    found = [v for v in own if is_dataclass(v) and v.__module__ == recipe_module.__name__]
    assert len(found) == 9
    return found


@pytest.mark.parametrize("section", sections(), ids=lambda s: s.__name__)
def test_every_field_is_told_of(section: Any) -> None:
    for field in fields(section):
        assert f"\n        {field.name}: " in (section.__doc__ or ""), field.name


def test_the_schema_asks_for_what_the_code_asks_for() -> None:
    schema = json.loads(recipe_schema())
    assert set(schema["properties"]) == {f.name for f in fields(Recipe)}
    assert schema["required"] == ["name", "data", "student"]
