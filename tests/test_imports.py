"""The nets that hold the floors, and a planted breach for each of their meshes.

The wall that refuses heavy libraries to a running device side is tested in ``tests/bench``.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# What these rooms may import at the top of a file beside torch: images are the language of data.
TORCH_ROOMS: dict[str, set[str]] = {
    "data": {"PIL", "torchvision"},
    "models": set(),
    "training": set(),
    # Bounds of the options of strategies; the recipe imports it in any case, and it is light.
    "transfer": {"annotated_types"},
    "distill": set(),
    "quantize": set(),
    "export": set(),
    "advise": set(),
}
ALWAYS = {"edgexfer", "numpy", "torch", *sys.stdlib_module_names}

BREACHES = [
    # file, line that breaks, part of the contract's name
    ("core/files.py", "from edgexfer.bench import job", "floors below"),
    ("data/decode.py", "from edgexfer.models import create", "floors below"),
    ("report/table.py", "from edgexfer.recipe import Recipe", "floors below"),
    ("training/loop.py", "from edgexfer.distill import losses", "floors below"),
    ("remote/pack.py", "from edgexfer.training import loop", "floors below"),
    ("export/stage.py", "def late():\n    import edgexfer.pipeline", "floors below"),
    ("backends/null.py", "import edgexfer.profiles", "floors below"),
    ("bench/feed.py", "def late():\n    import torch", "device side"),
    ("backends/openvino.py", "import PIL.Image", "device side"),
    ("core/codec.py", "from pydantic import TypeAdapter", "device side"),
    ("core/stats.py", "def late():\n    import numpy", "standard library alone"),
]


def lint_imports(place: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package that lies in ``place``, with the project's contracts."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def copy(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("copy")
    shutil.copytree(
        root / "edgexfer", place / "edgexfer", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(root / "pyproject.toml", place)
    return place


def test_the_floors_hold(copy: Path) -> None:
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Contracts: 3 kept, 0 broken." in done.stdout


@pytest.mark.parametrize(("name", "line", "contract"), BREACHES)
def test_a_planted_breach_is_found(copy: Path, name: str, line: str, contract: str) -> None:
    place = copy / "edgexfer" / name
    sound = place.read_text(encoding="utf-8")
    place.write_text(f"{sound}\n\n{line}\n", encoding="utf-8")
    try:
        done = lint_imports(copy)
    finally:
        place.write_text(sound, encoding="utf-8")
    assert done.returncode == 1, done.stdout + done.stderr
    broken = [text for text in done.stdout.splitlines() if " BROKEN" in text]
    assert any(contract in text for text in broken), done.stdout


def test_a_room_without_a_floor_is_found(copy: Path) -> None:
    place = copy / "edgexfer" / "attic.py"
    place.write_text("import edgexfer.core.errors\n")
    try:
        done = lint_imports(copy)
    finally:
        place.unlink()
    assert done.returncode == 1
    assert "attic" in done.stdout


def ruff(root: Path, name: str, source: str) -> str:
    """Return what ruff says of the top-of-file imports of a source under a name."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--select",
            "TID253",
            "--stdin-filename",
            name,
            "-",
        ],
        cwd=root,
        input=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


@pytest.mark.parametrize("room", ["cli", "core", "backends", "bench", "remote", "report"])
@pytest.mark.parametrize("library", ["torch", "onnx", "PIL.Image", "pydantic", "matplotlib.axes"])
def test_a_heavy_import_at_the_top_of_a_light_room_is_found(
    root: Path, room: str, library: str
) -> None:
    name = f"edgexfer/{room}/planted.py"
    assert "TID253" in ruff(root, name, f"import {library}\n")
    assert "TID253" not in ruff(root, name, f"def late():\n    import {library}\n")


def test_ruff_finds_no_heavy_import_at_the_top_of_a_light_room(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", "TID253", "edgexfer"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def top_imports(source: str) -> Iterator[str]:
    """Yield the packages that are imported when a file is, types-only imports left out."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize(("room", "more"), TORCH_ROOMS.items())
def test_rooms_of_torch_import_no_other_heavy_library_at_the_top(
    root: Path, room: str, more: set[str]
) -> None:
    files = sorted((root / "edgexfer" / room).rglob("*.py"))
    assert len(files) > 1
    found = {
        f"{file.relative_to(root)}: {name}"
        for file in files
        for name in top_imports(file.read_text(encoding="utf-8"))
        if name not in ALWAYS | more
    }
    assert not found


def test_the_reader_of_imports_sees_a_planted_one() -> None:
    source = "import torch.nn\nfrom timm.layers import x\ndef late():\n    import onnx\n"
    assert list(top_imports(source)) == ["torch", "timm"]
