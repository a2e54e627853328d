from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgexfer.bench.job import SCHEMA, Job, read_job
from edgexfer.core.codec import encode
from edgexfer.core.errors import BundleError, InputError
from edgexfer.core.files import write_json

MakeJob = Callable[..., Job]


def test_a_job_file_is_read_strictly(tmp_path: Path, make_job: MakeJob) -> None:
    path = tmp_path / "job.json"
    write_json(path, encode(make_job()))
    assert read_job(path) == make_job()
    write_json(path, {**encode(make_job()), "sampels": 3})
    with pytest.raises(InputError, match="unknown key sampels"):
        read_job(path)
    write_json(path, {**encode(make_job()), "schema": "edgexfer.job/1"})
    with pytest.raises(BundleError, match=f"schema is 'edgexfer.job/1', expected '{SCHEMA}'"):
        read_job(path)
