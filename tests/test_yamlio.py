from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge
from hypothesis import given
from hypothesis import strategies as st

from edgexfer.core.errors import InputError, ProfileError, RecipeError
from edgexfer.yamlio import dump_yaml, key_lines, parse_value, read_yaml, validate


def read(tmp_path: Path, content: str | bytes) -> Any:
    data = content.encode() if isinstance(content, str) else content
    (tmp_path / "f.yaml").write_bytes(data)
    return read_yaml(tmp_path / "f.yaml", RecipeError)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("22:22", "22:22"),
        ("010", 10),
        ("0o10", 8),
        ("1e3", 1000.0),
        ("1e-3", 0.001),
        ("~", None),
        ("true", True),
        ("[1, a]", [1, "a"]),
        ("<script>", "<script>"),
        ("", None),
    ],
)
def test_values_are_read_as_yaml_1_2(text: str, value: Any) -> None:
    found = parse_value(text, "--set x", RecipeError)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("content", "what", "fix"),
    [
        ("a: 1\nb: 2\na: 3\n", 'f.yaml:3: found duplicate key "a"', "mend that line"),
        ("a: 1\n\tb: 2\n", "f.yaml:2: ", "mend that line"),
        ("a: [1\n", "f.yaml:2: ", "mend that line"),
        ("a: &x 1\nb: *x\n", "f.yaml:1: anchors and aliases are not allowed", "write it out"),
        ("a: 1\nb: !!python/object:os.system x\n", "f.yaml:2: tags are not allowed", "plain value"),
        ("a: !secret x\n", "f.yaml:1: ", ""),
        ("- 1\n- 2\n", "f.yaml: holds no keys", "write `key: value` lines"),
        ("just text\n", "f.yaml: holds no keys", "edgexfer init"),
        ("", "f.yaml: holds no keys", "edgexfer init"),
        ("a: " + "[" * 40 + "]" * 40, "f.yaml:1: nested deeper than 32", "flatten it"),
        ("a: " + "[" * 3000, "f.yaml:1: nested deeper than 32", "flatten it"),
        ("a: " + "x" * (1 << 20), "f.yaml: is larger than 1 MiB", "a few kB"),
        (b"a: \xff\n", "f.yaml: is not UTF-8 text", "save it as UTF-8"),
        ("a: 1\n---\nb: 2\n", "f.yaml", ""),
    ],
)
def test_bad_yaml_is_refused_with_line_and_mend(
    tmp_path: Path, content: str | bytes, what: str, fix: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, content)
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert "\n" not in caught.value.what


def test_an_alias_bomb_ends_at_its_first_anchor(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{n}: &{n} [{', '.join(['*' + p] * 9)}]" for p, n in zip("abcdef", "bcdefg", strict=True)
    ]
    with pytest.raises(RecipeError, match=r"f\.yaml:1: anchors and aliases"):
        read(tmp_path, "\n".join(lines))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"none\.yaml: no such file") as caught:
        read_yaml(tmp_path / "none.yaml", ProfileError)
    assert caught.value.fix == "check the path"
    with pytest.raises(RecipeError, match="cannot be read"):
        read_yaml(tmp_path, RecipeError)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    place = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    place.write_bytes(content)
    try:
        value = read_yaml(place, RecipeError)
    except RecipeError as error:
        assert error.fix
        assert "\n" not in error.what
    else:
        assert isinstance(value, dict)


@given(st.text(max_size=60))
def test_any_text_as_one_value_is_read_or_refused(text: str) -> None:
    try:
        parse_value(text, "--set x", RecipeError)
    except RecipeError as error:
        assert error.what.startswith("--set x")


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Co", "Cn"]), max_size=20
    )
    | st.sampled_from(
        ["no", "on", "22:22", "010", "1e3", "2024-01-01", "~", "null", "", " a ", "#"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abc", min_size=1), PLAIN, min_size=1))
def test_what_is_dumped_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]
) -> None:
    place = tmp_path_factory.getbasetemp() / "dump.yaml"
    place.write_text(dump_yaml(value), encoding="utf-8")
    assert read_yaml(place, RecipeError) == value


def test_keys_keep_their_order_and_have_lines(tmp_path: Path) -> None:
    place = tmp_path / "f.yaml"
    place.write_text("b: 1\na:\n  - x: 2\n    y: 3\n  - 4\n")
    assert list(read_yaml(place, RecipeError)) == ["b", "a"]
    lines = key_lines(place)
    assert lines["b",] == 1
    assert lines["a",] == 2
    assert lines["a", 0, "y"] == 4
    assert lines["a", 1] == 5
    assert dump_yaml({"b": 1, "a": 2}) == "b: 1\na: 2\n"


@dataclass(frozen=True)
class Part:
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic reads it, nobody writes it

    name: str
    kind: Literal["x", "y"] = "x"


@dataclass(frozen=True)
class Whole:
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    count: Annotated[int, Ge(1)]
    part: Part
    parts: tuple[Part, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def test_good_values_become_the_dataclass() -> None:
    value = {"count": 2, "part": {"name": "a"}, "parts": [{"name": "b", "kind": "y"}]}
    found = validate(Whole, value, Path("f"), RecipeError)
    assert found == Whole(2, Part("a"), (Part("b", "y"),))


@pytest.mark.parametrize(
    ("change", "what", "fix"),
    [
        ({"cuont": 1}, "unknown key cuont", "did you mean 'count'?"),
        ({"part": {"name": "a", "knid": "x"}}, "unknown key part.knid", "did you mean 'kind'?"),
        ({"parts": [{"nam": "a"}]}, "unknown key parts.0.nam", "did you mean 'name'?"),
        ({"part": {}}, "key part.name is missing", "add part.name"),
        ({"count": "2"}, "count is '2', expected a valid integer", "give a value of that type"),
        ({"count": 0}, "count is 0, expected greater than or equal to 1", ""),
        ({"count": True}, "count is True, expected a valid integer", ""),
        ({"part": {"name": "a", "kind": "z"}}, "part.kind is 'z', expected 'x' or 'y'", ""),
        ({"count": float("inf")}, "inf is not a finite number", "give a finite number"),
    ],
)
def test_a_fault_has_its_key_and_its_mend(change: dict[str, Any], what: str, fix: str) -> None:
    value = {"count": 2, "part": {"name": "a"}, **change}
    with pytest.raises(RecipeError) as caught:
        validate(Whole, value, Path("f"), RecipeError)
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_all_faults_are_told_at_once_with_their_lines() -> None:
    value = {"count": 0, "part": {"kind": "z"}, **{f"k{n}": 1 for n in range(5)}}
    with pytest.raises(InputError) as caught:
        validate(Whole, value, Path("f"), RecipeError, {("count",): 3})
    assert "count (line 3) is 0" in caught.value.what
    assert caught.value.what.endswith("; and 3 more")
