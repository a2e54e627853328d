"""A synthetic trip for the tests of the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.synthetic import make_trip


@pytest.fixture
def trip(tmp_path: Path) -> Path:
    return make_trip(tmp_path / "example")
