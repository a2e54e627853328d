from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edgexfer.core.errors import InputError
from edgexfer.core.record import STATUSES, read_record, write_record
from tests.report.synthetic import STUDENT, failed, make_record


def test_a_record_comes_back_with_every_sample(tmp_path: Path) -> None:
    for record in (make_record(STUDENT[0]), failed(STUDENT[1], "no runtime")):
        write_record(tmp_path / "r.json", record)
        assert read_record(tmp_path / "r.json") == record
        assert record.status in STATUSES


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('{"schema": "edgexfer.bench/1"}', "schema is 'edgexfer.bench/1', expected"),
        ("[]", "schema is None, expected 'edgexfer.bench/2'"),
    ],
)
def test_another_schema_is_refused(tmp_path: Path, content: str, what: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(InputError) as caught:
        read_record(tmp_path / "r.json")
    assert what in caught.value.what
    assert caught.value.fix == "bench it again"


def test_a_damaged_record_names_the_key(tmp_path: Path) -> None:
    write_record(tmp_path / "r.json", make_record(STUDENT[0]))
    value = json.loads((tmp_path / "r.json").read_text())
    value["processes"][1]["infer_ns"][3] = 1.5
    (tmp_path / "r.json").write_text(json.dumps(value))
    with pytest.raises(InputError) as caught:
        read_record(tmp_path / "r.json")
    assert "processes[1].infer_ns[3] is 1.5, expected int" in caught.value.what
    assert caught.value.fix == "bench it again"


def test_a_figure_that_is_no_number_is_never_written(tmp_path: Path) -> None:
    record = replace(make_record(STUDENT[0]), settings={"seconds": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record(tmp_path / "r.json", record)
    assert not list(tmp_path.iterdir())
