"""A tiny trip that the tests of the command line share: pictures, a finished run, its bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgexfer.cli import run
from tests.cli import bad_made
from tests.cli.bad import AS_TRAINED, Place, finetune
from tests.pictures import write_folder


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Make the data set, the run and the bundle with the command line itself."""
    root = tmp_path_factory.mktemp("good")
    pictures = write_folder(root / "pictures")
    assert run(finetune(pictures, *AS_TRAINED, out=root / "run")) == 0
    argv = ["export", str(root / "run"), "--target", "x86-onnxruntime", "--max-drop", "20"]
    argv += ["--precision", "all"]
    assert run([*argv, "--out", str(root / "bundle")]) == 0
    return Place(root, pictures, root / "run", root / "bundle")


@pytest.fixture
def place(good: Place, tmp_path: Path) -> Iterator[Place]:
    """The tiny trip with an empty folder for one case."""
    yield Place(tmp_path, good.pictures, good.run, good.bundle)
    while bad_made.HELD:
        bad_made.HELD.pop().close()
