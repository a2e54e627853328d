"""One sealed bundle of the null backend, and jobs for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgexfer.bench.job import SCHEMA, Job
from tests.bundles import make_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def make_job(bundle: Path) -> Callable[..., Job]:
    job = Job(
        schema=SCHEMA,
        bundle=str(bundle),
        artefact="x86-null-fp32",
        order=0,
        accuracy=True,
        samples=100,
        seconds=0.01,
        warmup_s=2.0,
        threads=1,
        seed=0,
    )

    def make(**changes: Any) -> Job:
        return dataclasses.replace(job, **changes)

    return make
