"""The wheel carries all that an installed edgexfer needs, and nothing of the workshop."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

PARTS = ("edgexfer", "profiles", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from a copy of the sources, offline."""
    source = tmp_path_factory.mktemp("source")
    for part in PARTS:
        if (root / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(root / part, source / part, ignore=ignored)
        else:
            shutil.copy(root / part, source)
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(out)]
    done = subprocess.run([*build, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [built] = out.glob("*.whl")
    return built


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_carries_every_profile(wheel: Path, root: Path) -> None:
    profiles = sorted(p.name for p in (root / "profiles").glob("*.yaml"))
    assert len(profiles) >= 5
    carried = {n for n in names(wheel) if n.startswith("edgexfer/_profiles/")}
    assert {f"edgexfer/_profiles/{p}" for p in profiles} == carried


def test_the_wheel_carries_every_file_of_the_package(wheel: Path, root: Path) -> None:
    files = {
        str(p.relative_to(root))
        for p in (root / "edgexfer").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert "edgexfer/report/templates/page.html" in files
    assert files <= names(wheel)


def test_the_wheel_carries_nothing_else(wheel: Path) -> None:
    tops = {n.partition("/")[0] for n in names(wheel)}
    assert len(tops) == 2
    assert "edgexfer" in tops


def test_the_profiles_are_found_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import edgexfer.profiles as p; "
        "print(p.profiles_dir()); print(len(p.list_profiles()), p.find_profile('jetson').name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    place, found = done.stdout.splitlines()
    assert place == str(tmp_path / "edgexfer" / "_profiles")
    assert found.endswith(" jetson-orin-nano")


def test_the_metadata_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        [entry_points] = [n for n in archive.namelist() if n.endswith("entry_points.txt")]
        message = Parser().parsestr(archive.read(metadata).decode())
        points = archive.read(entry_points).decode()
    assert message["Name"] == "edgexfer"
    assert message["License-Expression"] == "Apache-2.0"
    assert message["Requires-Python"] == ">=3.10"
    assert set(message.get_all("Provides-Extra", [])) == {"dev", "hf", "modelopt", "tensorrt"}
    assert "edgexfer = edgexfer.cli:main" in points


def test_the_constraints_are_plain_and_cover_what_is_asked_for(root: Path) -> None:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pins["torch"] != "2.13.0"
    assert all(value and "/" not in value for value in pins.values())
    known = {name.lower().replace("_", "-") for name in pins}
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    block = text.split("dependencies = [", 1)[1].split("]", 1)[0]
    asked = [line.split(">=")[0].strip(' "').lower() for line in block.splitlines() if ">=" in line]
    assert len(asked) > 15
    assert set(asked) <= known


def test_the_source_distribution_has_what_its_tests_run(root: Path) -> None:
    text = (root / "pyproject.toml").read_text().partition("[tool.hatch.build.targets.sdist]")[2]
    listed = set(re.findall(r'"([^"]+)"', text.partition("]")[0]))
    assert {"tests", "tools", "examples", "CONTRIBUTING.md"} <= listed
    assert all((root / name).exists() for name in listed)
