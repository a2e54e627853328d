from __future__ import annotations

import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgexfer.core import errors
from edgexfer.core.errors import EdgexferError, first_line, nearest


def tree() -> list[type[EdgexferError]]:
    found = [EdgexferError]
    for cls in found:
        found += cls.__subclasses__()
    return [cls for cls in found if cls.__module__ == "edgexfer.core.errors"]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    assert sorted(drawn) == sorted(cls.__name__ for cls in tree() if cls is not EdgexferError)
    assert len(drawn) == 15


def test_the_exit_codes_are_those_of_the_docstring() -> None:
    drawn = dict(re.findall(r"[├└]── (\w+) +(\d+) ", errors.__doc__ or ""))
    codes = {cls.__name__: str(cls.exit_code) for cls in tree() if cls.__name__ in drawn}
    assert codes == drawn
    for cls in tree():
        parent = cls.__bases__[0]
        if parent.__name__ in drawn:
            assert cls.exit_code == getattr(parent, "exit_code", None)


@pytest.mark.parametrize("cls", tree())
def test_an_error_keeps_both_lines_and_survives_a_process(cls: type[EdgexferError]) -> None:
    error = cls("photos/: is empty", "name a folder with images")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert (again.what, again.fix, str(again)) == (error.what, error.fix, "photos/: is empty")


def test_nearest_offers_the_likely_names_else_all() -> None:
    assert nearest("epoch", ["epochs", "lr"]) == "did you mean 'epochs'?"
    assert nearest("zzz", ["b", "a"]) == "known: a, b"
    assert nearest("zzz", [f"n{i:02d}" for i in range(20)]).endswith("n11, ...")
    assert nearest("zzz", []) == "none is known here"


@given(st.lists(st.sampled_from("abcdefgh"), min_size=4, unique=True).map("".join), st.data())
def test_a_name_with_one_letter_missing_is_found_again(name: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(name) - 1))
    offered = nearest(name[:at] + name[at + 1 :], [name])
    assert offered == f"did you mean {name!r}?"


def test_of_a_long_text_one_line_is_taken() -> None:
    error = RuntimeError("\n  what failed \n  in its middle\n\n   why\n ")
    assert first_line(error) == "what failed"
    assert first_line(error, last=True) == "why"
    assert first_line(error, 4) == "what"
    assert first_line(KeyError(), last=True) == "KeyError"
