"""Fixtures of the training tests; the small training itself stands in ``toy.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgexfer.core.rundir import RunDir
from tests.training.toy import make_run


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    with make_run(tmp_path / "run") as opened:
        yield opened
