from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Dict, Literal, Optional, Tuple, Union  # noqa: UP035 - what 3.8 code writes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgexfer.core.codec import decode, encode
from edgexfer.core.errors import InputError


@dataclass(frozen=True)
class Inner:
    name: str
    ratio: float = 0.5


@dataclass(frozen=True)
class Outer:
    count: int
    inner: Inner
    many: Tuple[Inner, ...] = ()  # noqa: UP006
    pair: Tuple[int, str] = (1, "a")  # noqa: UP006
    by_name: Dict[str, Inner] = field(default_factory=dict)  # noqa: UP006
    maybe: Optional[int] = None  # noqa: UP045
    either: Union[int, str] = 0  # noqa: UP007
    kind: Literal["x", "y"] = "x"
    free: Any = None
    flag: bool = False


GOOD: dict[str, Any] = {"count": 1, "inner": {"name": "n"}}
INNERS = st.builds(Inner, st.text(), st.floats(allow_nan=False, allow_infinity=False))


@given(
    st.builds(
        Outer,
        count=st.integers(),
        inner=INNERS,
        many=st.lists(INNERS).map(tuple),
        pair=st.tuples(st.integers(), st.text()),
        by_name=st.dictionaries(st.text(), INNERS),
        maybe=st.none() | st.integers(),
        either=st.integers() | st.text(),
        kind=st.sampled_from(["x", "y"]),
        free=st.none() | st.lists(st.integers()),
        flag=st.booleans(),
    )
)
def test_what_was_encoded_comes_back(value: Outer) -> None:
    assert decode(Outer, json.loads(json.dumps(encode(value))), "f") == value


def test_defaults_fill_what_is_not_there() -> None:
    assert decode(Outer, GOOD, "f") == Outer(1, Inner("n"))


def test_a_whole_number_is_a_float_where_one_is_asked() -> None:
    found = decode(Inner, {"name": "n", "ratio": 2}, "f").ratio
    assert isinstance(found, float)


@pytest.mark.parametrize(
    ("change", "what", "fix"),
    [
        ({"cuont": 1}, "f: unknown key cuont", "did you mean 'count'?"),
        ({"inner": {"nam": "n"}}, "f: unknown key inner.nam", "did you mean 'name'?"),
        ({"inner": {}}, "f: key inner.name is missing", "make the file again"),
        ({"count": "1"}, "f: count is '1', expected int", "make the file again"),
        ({"count": True}, "f: count is True, expected int", "make the file again"),
        ({"count": 1.0}, "f: count is 1.0, expected int", "make the file again"),
        ({"flag": 1}, "f: flag is 1, expected bool", "make the file again"),
        ({"inner": []}, "f: inner is [], expected Inner", "make the file again"),
        ({"inner": {"name": "n", "ratio": True}}, "inner.ratio is True, expected float", ""),
        (
            {"inner": {"name": "n", "ratio": 10**400}},
            "f: inner.ratio is 1000",
            "make the file again",
        ),
        ({"many": {}}, "f: many is {}, expected", ""),
        ({"many": [{"name": 3}]}, "f: many[0].name is 3, expected str", ""),
        ({"pair": [1]}, "f: pair is [1], expected", ""),
        ({"pair": [1, 2]}, "f: pair[1] is 2, expected str", ""),
        ({"by_name": []}, "f: by_name is [], expected", ""),
        ({"by_name": {"k": {"name": None}}}, "f: by_name.k.name is None, expected str", ""),
        ({"maybe": "x"}, "f: maybe is 'x', expected int", ""),
        ({"either": 1.5}, "f: either is 1.5, expected", ""),
        ({"kind": "z"}, "f: kind is 'z', expected", ""),
        ({"count": "y" * 99}, "f: count is '" + "y" * 36 + "..., expected int", ""),
    ],
)
def test_a_fault_names_the_key(change: dict[str, Any], what: str, fix: str) -> None:
    with pytest.raises(InputError) as caught:
        decode(Outer, {**GOOD, **change}, "f")
    assert what in caught.value.what
    assert fix in caught.value.fix


@pytest.mark.parametrize("value", [None, 3, [], "x"])
def test_a_document_of_another_kind_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="f: the document is"):
        decode(Outer, value, "f")


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x), max_leaves=5))
def test_any_json_is_decoded_or_refused(value: Any) -> None:
    for key in ("count", "inner", "many", "pair", "by_name", "maybe", "either", "kind", "flag"):
        try:
            decode(Outer, {**GOOD, key: value}, "f")
        except InputError as error:
            assert key in error.what


@dataclass(frozen=True)
class Modern:
    ratio: float | None
    inner: Inner | None = None


@pytest.mark.parametrize("modern", [Modern(None), Modern(1.5), Modern(2.0, Inner("n"))])
def test_unions_may_be_written_with_a_bar(modern: Modern) -> None:
    assert decode(Modern, encode(modern), "f.json") == modern


def test_a_wrong_member_of_such_a_union_is_refused() -> None:
    with pytest.raises(InputError, match=r"f\.json: ratio is 'much'"):
        decode(Modern, {"ratio": "much"}, "f.json")
