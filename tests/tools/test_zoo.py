"""``tools/zoo.py`` and ``tools/bench_quant.py``: how they judge, and that they go all the way."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pictures import write_folder

TARGET = "x86-onnxruntime"


def run(root: Path, tool: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a tool from the source tree, whether edgexfer is installed or not."""
    command = [sys.executable, str(root / "tools" / f"{tool}.py"), *argv]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def zoo(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(root / "tools"))
    return importlib.import_module("zoo")


@pytest.fixture
def bench_quant(zoo: Any) -> Any:
    return importlib.import_module("bench_quant")


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ((-0.5, -1.0, 0.1), "less"),
        ((0.0, -0.3, 0.3), "equal"),
        ((0.2, -0.1, 0.5), "tie"),
        ((0.6, 0.2, 1.0), "more"),
        (None, "refused"),
    ],
)
def test_a_loss_is_more_only_where_its_interval_excludes_0(
    bench_quant: Any, more: tuple[float, float, float] | None, verdict: str
) -> None:
    loss = bench_quant.Loss(TARGET, 1000, 60.0, None if more is None else 1.0, 1.0, more)
    assert loss.verdict == verdict


def test_costs_are_compared_within_their_round(bench_quant: Any) -> None:
    # A machine that was three times as slow in the last round says nothing about the tools.
    cost = bench_quant.Cost(TARGET, {"bare": (1.0, 2.0, 6.0), "made": (1.1, 2.2, 6.6)})
    assert cost.times("made") == pytest.approx(1.1)


def test_int8_that_auto_did_not_choose_is_not_held_against_it(bench_quant: Any) -> None:
    timed = {
        "fp32": bench_quant.Timed("fp32", (1000.0, 1005.0, 1010.0), 4),
        "int8": bench_quant.Timed("int8", (1300.0, 1305.0, 1310.0), 1),
    }
    judged = {
        chosen: bench_quant.judged(TARGET, chosen, dict(timed)) for chosen in ("fp32", "int8")
    }
    assert judged["fp32"].slower_than == ()
    assert judged["int8"].slower_than == ("fp32",)
    assert judged["int8"].int8_times["fp32"] == pytest.approx(1005 / 1305)


def test_a_float_that_is_as_fast_as_int8_is_a_tie(bench_quant: Any) -> None:
    timed = {
        "fp32": bench_quant.Timed("fp32", (1000.0, 1080.0), 4),
        "int8": bench_quant.Timed("int8", (1020.0, 1090.0), 1),
    }
    assert bench_quant.judged(TARGET, "int8", timed).slower_than == ()


def test_a_student_that_is_not_in_the_zoo_is_refused(root: Path) -> None:
    done = run(root, "zoo", "--zoo", "unused", "--students", "resnet50")
    assert done.returncode == 2
    assert "resnet50 is none of mobilenetv3_small_100" in done.stderr


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.ort
@pytest.mark.ov
def test_one_student_goes_all_the_way(root: Path, tmp_path: Path) -> None:
    data, out = write_folder(tmp_path / "data", per_class=40), tmp_path / "tables"
    usual = ["--zoo", str(tmp_path / "zoo"), "--students", "resnet18", "--out", str(out)]
    made = ["--data", str(data), "--evaluation", "20", "--processes", "2"]
    run(root, "zoo", *usual, *made).check_returncode()
    row = json.loads((out / "zoo.json").read_text())["students"][0]
    found = {(cell["target"], cell["precision"]): cell for cell in row["cells"]}
    assert {target for target, _ in found} == {TARGET, "x86-openvino", "jetson-orin-nano"}
    assert found["jetson-orin-nano", "int8"]["opset"] == 20
    assert found["jetson-orin-nano", "int8"]["p50_ms"] is None
    assert found[TARGET, "int8"]["ratio"]["low"] <= found[TARGET, "int8"]["ratio"]["high"]
    assert found[TARGET, "int8"]["size_bytes"] < found[TARGET, "fp32"]["size_bytes"] / 3

    run(root, "bench_quant", *usual, "--rounds", "1").check_returncode()
    answer = json.loads((out / "quant.json").read_text())[0]
    for part in ("speed", "accuracy", "cost"):
        assert [each["target"] for each in answer[part]] == [TARGET, "x86-openvino"], part
    manifest = json.loads((tmp_path / "zoo" / "resnet18" / "bundle" / "manifest.json").read_text())
    whole_split = manifest["evaluation"]["n_split"]
    assert whole_split > 20 and all(loss["n"] == whole_split for loss in answer["accuracy"])
    assert "| resnet18 |" in (out / "quant.md").read_text()
