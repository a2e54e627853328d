"""The Python API: its names, that they cost nothing, and that rooms and verbs share them."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

import edgexfer
from edgexfer.core.errors import DataError


def test_every_public_name_resolves() -> None:
    for name in edgexfer.__all__:
        assert getattr(edgexfer, name) is not None
    assert sorted(edgexfer.__all__) == list(edgexfer.__all__)
    assert set(edgexfer.__all__) < set(dir(edgexfer))


def test_the_import_is_light() -> None:
    code = (
        "import sys, edgexfer\n"
        "heavy = {'numpy', 'torch', 'pydantic', 'onnx', 'click'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_room_of_a_verbs_name_is_still_the_verb() -> None:
    importlib.import_module("edgexfer.distill.losses")

    assert edgexfer.distill.losses.kd.__name__ == "kd"  # type: ignore[attr-defined]
    assert list(inspect.signature(edgexfer.distill).parameters)[:2] == ["data", "teacher"]
    with pytest.raises(DataError, match="nowhere"):
        edgexfer.distill("nowhere", "teacher", "resnet8", "out")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fine_tune'"):
        _ = edgexfer.fine_tune
