"""Classes are matched by name, and by a file where the names differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgexfer.core.errors import ModelError
from edgexfer.models.classes import match_classes, read_class_map

MODEL = ("ant", "bee", "cow")


@pytest.mark.parametrize(
    ("data", "renamed", "order"),
    [
        (("cow", "ant"), {}, [2, 0]),
        (("dog", "ant"), {"dog": "bee"}, [1, 0]),
        # The name of another model's class: this one knows the class by its own.
        (("cow", "ant"), {"cow": "vache"}, [2, 0]),
        # Two names that change places.
        (("ant", "bee"), {"ant": "bee", "bee": "ant"}, [1, 0]),
    ],
)
def test_each_class_finds_its_output(
    data: tuple[str, ...], renamed: dict[str, str], order: list[int]
) -> None:
    assert match_classes(MODEL, data, "model", renamed=renamed) == order


def test_what_the_model_lacks_is_named_with_the_mend_of_the_caller() -> None:
    data = ("ant", *(f"class {i}" for i in range(7)))
    with pytest.raises(ModelError, match=r"^m: .* 7 .*'class 0', .*'class 4', \.\.\.$") as caught:
        match_classes(MODEL, data, "m", fix="ask another model")
    assert caught.value.fix == "ask another model"
    with pytest.raises(ModelError) as caught:
        match_classes(MODEL, data, "m")
    assert "train the model on this data first" in caught.value.fix


def test_two_classes_cannot_share_an_output() -> None:
    with pytest.raises(ModelError, match="'ant' and 'dog' are both the model's class 'ant'"):
        match_classes(MODEL, ("ant", "dog"), "m", renamed={"dog": "ant"})


def test_a_class_map_is_read_for_all_models_at_once(tmp_path: Path) -> None:
    place = tmp_path / "map.yaml"
    place.write_text("dog: bee\nno: vache  # a word, as in YAML 1.2\n", encoding="utf-8")
    found = read_class_map(place, ("dog", "no", "ant"), [MODEL, ("vache",)])
    assert found == {"dog": "bee", "no": "vache"}
    with pytest.raises(ModelError, match=r"the model has no class 'vache' \(line 2\)"):
        read_class_map(place, ("dog", "no", "ant"), [MODEL])


def test_a_class_map_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"map\.yaml: no such file"):
        read_class_map(tmp_path / "map.yaml", MODEL, [MODEL])
