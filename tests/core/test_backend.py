from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from edgexfer.core.backend import BACKENDS, Plan, check_plan, get_backend, install_hint
from edgexfer.core.errors import BackendError


def test_every_backend_file_is_known(root: Path) -> None:
    files = {p.stem for p in (root / "edgexfer" / "backends").glob("*.py")} - {"__init__"}
    assert {name for name in files if not name.startswith("_")} <= set(BACKENDS)


def test_a_backend_is_a_module_with_the_protocols_names() -> None:
    module = get_backend("null")
    assert module.NAME == "null"
    assert isinstance(module.OPTIONS, dict)
    for name in ("unavailable", "versions", "compile", "load"):
        assert inspect.isfunction(getattr(module, name))


def test_an_unknown_backend_brings_the_nearest() -> None:
    with pytest.raises(BackendError, match="backend 'onxruntime' is unknown") as caught:
        get_backend("onxruntime")
    assert caught.value.fix == "did you mean 'onnxruntime'?"


def test_a_missing_runtime_says_why_and_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    module = get_backend("null")
    monkeypatch.setattr(module, "unavailable", lambda: "numpy is too old")
    with pytest.raises(BackendError, match="backend null: numpy is too old") as caught:
        get_backend("null")
    assert caught.value.fix == install_hint("null") == "pip install numpy"


def test_a_plan_that_cannot_be_followed_is_refused() -> None:
    check_plan("x", Plan("fp32", options={"a": 1}), ("fp32",), {"a": "does"})
    with pytest.raises(BackendError, match="backend x: cannot run precision 'int8'") as caught:
        check_plan("x", Plan("int8"), ("fp32", "fp16"), {})
    assert caught.value.fix == "use fp32 or fp16, or a target with another backend"
    with pytest.raises(BackendError, match="backend x: has no option 'streems'") as caught:
        check_plan("x", Plan(options={"streems": 1}), ("fp32",), {"streams": "how many"})
    assert caught.value.fix == "did you mean 'streams'?"
