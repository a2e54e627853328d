"""Trained ranges are kept beside the weights, and nothing but what was written is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edgexfer.core.codec import encode
from edgexfer.core.errors import RunError
from edgexfer.core.files import read_json, sha256_file, write_json
from edgexfer.core.model import FOLDER
from edgexfer.core.rundir import INFO, RunInfo, open_run, read_run
from edgexfer.core.rundir import SCHEMA as RUN_SCHEMA
from edgexfer.profiles import find_profile
from edgexfer.quantize.ranges import (
    FILE,
    SCHEMA,
    Range,
    TrainedRanges,
    is_restricted,
    read_ranges,
    write_ranges,
)

PROFILE = find_profile("x86-onnxruntime")
# A scale that no short decimal number is.
RANGES = TrainedRanges(
    SCHEMA, PROFILE.name, PROFILE.quantization, False, {"images": Range(0.016862740740180016, 89)}
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    wanted = RunInfo(RUN_SCHEMA, "distill", "running", {}, {}, "")
    with open_run(tmp_path / "run", wanted) as opened:
        opened.set(lineage={"precision": "fp32"})
        write_ranges(opened, RANGES)
    return tmp_path / "run"


def test_ranges_are_read_as_they_were_written(run: Path) -> None:
    assert read_ranges(run) == RANGES
    assert read_run(run).lineage["precision"] == "fp32"


def test_a_run_without_has_none(run: Path) -> None:
    info = read_run(run)
    write_json(run / INFO, encode(replace(info, lineage={})))
    assert read_ranges(run) is None


def remove(place: Path) -> None:
    place.unlink()


def change(place: Path) -> None:
    place.write_text(place.read_text().replace("89", "90"))


def misspell(place: Path) -> None:
    value = read_json(place)
    value["profiles"] = value.pop("profile")
    run = place.parents[1]
    with open_run(run, read_run(run)) as opened:
        write_json(place, value)
        # As a newer version might have written and noted it.
        opened.set(lineage={"quantization_sha256": sha256_file(place)})


FAULTS: dict[Callable[[Path], None], str] = {
    remove: "quantization.json: is missing",
    change: "quantization.json: differs from what was trained",
    misspell: "quantization.json: unknown key profiles",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: str(f.__name__))
def test_what_was_not_written_so_is_refused(fault: Callable[[Path], None], run: Path) -> None:
    fault(run / FOLDER / FILE)
    with pytest.raises(RunError) as caught:
        read_ranges(run)
    assert FAULTS[fault] in caught.value.what
    assert "--qat-for" in caught.value.fix


def test_only_tensorrt_wants_the_inputs_of_weighted_layers_alone() -> None:
    assert is_restricted(find_profile("jetson"))
    assert not is_restricted(PROFILE)
