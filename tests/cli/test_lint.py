"""``edgexfer lint``: its exit code, its table and its JSON."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import helper

from edgexfer.cli import run
from tests.export.passes.graphs import graph


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two HardSwish, which TensorRT 8.5 lacks, in an opset that it takes."""
    nodes = [
        helper.make_node("HardSwish", ["x"], ["h"], name="first"),
        helper.make_node("HardSwish", ["h"], ["y"], name="second"),
    ]
    onnx.save(graph(nodes, opset=17), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_a_file_that_the_target_takes_is_clean(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["lint", str(file), "--target", "jetson"]) == 0
    assert capsys.readouterr().out == (
        f"{file}: nothing found for jetson-orin-nano, TensorRT 10.3.0\n"
    )


def test_errors_stand_in_a_table_and_in_the_exit_code(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["lint", str(file), "--target", "jetson", "--stack", "JetPack 5.1"]) == 1
    head, _, row, _, last = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["severity", "rule", "op", "node"]
    assert row.split()[:3] == ["error", "parser-operator", "HardSwish"]
    assert "first and 1 more" in row
    assert last == f"{file}: 2 errors for jetson-orin-nano, TensorRT 8.5.2"
    assert '`edgexfer export RUN --target jetson-orin-nano --stack "JetPack 5.1"` writes it' in row


def test_json_has_every_finding(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["lint", str(file), "--target", "jetson", "--stack", "JetPack 5.1", "--json"]
    assert run(argv) == 1
    found = json.loads(capsys.readouterr().out)
    assert [f["node"] for f in found] == ["first", "second"]
    assert set(found[0]) == {"severity", "rule", "node", "op", "text", "mend", "source"}
