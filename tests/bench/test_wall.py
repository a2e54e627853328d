"""The device's wing runs on the standard library, numpy and one runtime, from Python 3.8 on."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import edgexfer
from edgexfer.bench.job import Job
from edgexfer.core.codec import encode
from edgexfer.core.files import read_json, write_json
from edgexfer.remote.pack import pack_device_side

PACKAGE = Path(edgexfer.__file__).parent
FILES = sorted(p for room in ("core", "backends", "bench") for p in (PACKAGE / room).glob("*.py"))
REFUSED = [
    *("torch", "torchvision", "timm", "PIL", "click", "yaml", "ruamel", "pydantic", "jinja2"),
    *("annotated_types", "onnx", "onnxscript", "nncf", "matplotlib", "sklearn", "safetensors"),
]
RUNTIMES = ["onnxruntime", "openvino", "tensorrt"]
# Imports every module that it is told to, behind a finder that refuses what the device has not.
WALL = """
import importlib, json, sys

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in refused:
            raise ImportError("the wall refuses " + name)

refused, names = json.loads(sys.argv[1]), json.loads(sys.argv[2])
sys.path.insert(0, sys.argv[3])
sys.meta_path.insert(0, Wall())
for name in names:
    importlib.import_module(name)
print(len(names), len([name for name in refused if name in sys.modules]))
"""


def _behind_the_wall(names: list[str], place: Path) -> subprocess.CompletedProcess[str]:
    argv = [json.dumps(REFUSED + RUNTIMES), json.dumps(names), str(place)]
    return subprocess.run(
        [sys.executable, "-I", "-c", WALL, *argv], capture_output=True, text=True, timeout=60
    )


def _module(path: Path) -> str:
    return f"edgexfer.{path.parent.name}.{path.stem}".removesuffix(".__init__")


def test_every_module_of_the_device_imports_behind_the_wall() -> None:
    names = [_module(path) for path in FILES]
    assert len(names) > 30
    done = _behind_the_wall(names, PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(names)), "0"]


@pytest.mark.parametrize("line", ["import torch", "from PIL import Image", "import onnxruntime"])
def test_a_planted_breach_is_caught(tmp_path: Path, line: str) -> None:
    copy = tmp_path / "edgexfer"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    victim = copy / "bench" / "feed.py"
    victim.write_text(
        victim.read_text().replace("import numpy as np", f"import numpy as np\n{line}")
    )
    done = _behind_the_wall(["edgexfer.bench.feed"], tmp_path)
    assert done.returncode != 0
    assert "the wall refuses " + line.split()[1] in done.stderr


@pytest.mark.parametrize("path", FILES, ids=_module)
def test_the_syntax_is_that_of_python_3_8(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    assert _breaches_at_run_time(tree) == []
    if len(tree.body) > 1:
        first = tree.body[1]
        assert isinstance(first, ast.ImportFrom)
        assert [alias.name for alias in first.names] == ["annotations"]


@pytest.mark.parametrize(
    "code",
    [
        "x = list[int]",
        "Alias = dict[str, int]",
        "@dataclass\nclass A:\n    x: list[int]",
        "@dataclass\nclass A:\n    x: int | None = None",
        "zip(a, b, strict=True)",
        "'x'.removesuffix('y')",
        "isinstance(x, int | str)",
    ],
)
def test_what_fails_on_python_3_8_is_seen(code: str) -> None:
    assert len(_breaches_at_run_time(ast.parse(code))) == 1


def _breaches_at_run_time(tree: ast.AST) -> list[str]:
    """List what Python 3.8 parses but cannot evaluate; other annotations are never evaluated."""
    annotations = {
        id(part)
        for node in ast.walk(tree)
        for field in ("annotation", "returns")
        if isinstance(getattr(node, field, None), ast.AST)
        for part in ast.walk(getattr(node, field))
        if not isinstance(node, ast.AnnAssign)
    }
    # Fields of dataclasses are evaluated by core.codec, those of local variables never.
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for inner in ast.walk(node):
                if isinstance(inner, ast.AnnAssign):
                    annotations |= {id(part) for part in ast.walk(inner.annotation)}
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if id(node) not in annotations and _is_breach(node)
    ]


def _is_breach(node: ast.AST) -> bool:
    builtin = ("list", "dict", "tuple", "set", "frozenset", "type")
    if isinstance(node, ast.Subscript):
        return isinstance(node.value, ast.Name) and node.value.id in builtin
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        names = ("int", "str", "float", "bytes", "None")
        return any(ast.unparse(side) in names for side in (node.left, node.right))
    if isinstance(node, ast.Call):
        strict = any(word.arg == "strict" for word in node.keywords)
        return strict and ast.unparse(node.func) == "zip"
    return isinstance(node, ast.Attribute) and node.attr in ("removeprefix", "removesuffix")


def test_the_packed_file_runs_on_python_3_8(
    bundle: Path, tmp_path: Path, make_job: Callable[..., Job]
) -> None:
    python = shutil.which("python3.8")
    if python is None or subprocess.run([python, "-V"], capture_output=True).returncode:
        pytest.skip("no Python 3.8 is here")
    program = [python, "-I", str(pack_device_side(tmp_path / "edgexfer.pyz"))]
    done = subprocess.run([*program, "facts"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"python": "3.8.' in done.stdout
    # Job, manifest and profile are decoded by their annotations before numpy is asked for.
    write_json(tmp_path / "job.json", encode(make_job()))
    argv = [*program, "job", str(tmp_path / "job.json"), "--out", str(tmp_path / "r.json")]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode in (0, 3), done.stderr
    failure = read_json(tmp_path / "r.json")["failure"]
    assert failure is None or "numpy cannot be imported" in failure["what"]
