"""Students for a target: bounds against the roofline by hand, and a measurement on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from edgexfer.advise.students import Candidate, check_fleet, make_candidates, rank_students
from edgexfer.core.errors import InputError
from edgexfer.core.profile import Limits
from edgexfer.models.workload import Size
from edgexfer.profiles import find_profile
from edgexfer.remote.fleet import Fleet

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Candidate]:
    return make_candidates(("resnet14", "resnet8"), 3, 16, tmp_path_factory.mktemp("students"))


def test_students_are_ranked_by_their_bound(candidates: Sequence[Candidate]) -> None:
    profile = find_profile("jetson")
    found = rank_students(candidates, profile)
    assert [s.name for s in found] == ["resnet8", "resnet14"]
    small = found[0]
    assert small.precision == "int8"
    # The stem, then in each stage three convolutions (four where a shortcut changes the width).
    stem, first = 16 * 16 * 16 * 27, 2 * 16 * 16 * 16 * 16 * 9
    second = 8 * 8 * (32 * 16 * 9 + 32 * 32 * 9 + 32 * 16)
    third = 4 * 4 * (64 * 32 * 9 + 64 * 64 * 9 + 64 * 32)
    assert small.macs == stem + first + second + third + 64 * 3
    peak = profile.facts["int8_dense_peak_top_s"].value
    assert small.bound_ms == pytest.approx(2e3 * small.macs / (float(peak) * 1e12))
    assert small.measured_ms is None
    assert 0 < (small.memory_pct or 0) < 1


def test_without_facts_size_ranks_and_the_reason_is_said(candidates: Sequence[Candidate]) -> None:
    found = rank_students(candidates, find_profile("x86-onnxruntime"))
    assert [s.name for s in found] == ["resnet8", "resnet14"]
    assert all(s.bound_ms is None and "has no fact" in s.reason for s in found)


def test_a_limit_that_cannot_be_kept_is_named(candidates: Sequence[Candidate]) -> None:
    tight = replace(find_profile("jetson"), limits=Limits(latency_p90_ms=1e-9))
    assert rank_students(candidates, tight)[0].reason == (
        "cannot keep the target's limit of 1e-09 ms"
    )
    tight = replace(tight, limits=Limits(size_bytes=10))
    assert rank_students(candidates, tight)[0].reason == (
        "larger than the target's limit of 10 bytes"
    )


def test_one_that_breaks_a_limit_comes_after_those_that_keep_it(
    candidates: Sequence[Candidate],
) -> None:
    slow, fast = candidates
    heavy = replace(fast, work=replace(fast.work, weights=Size(10**8)))
    tight = replace(find_profile("jetson"), limits=Limits(size_bytes=10**6))
    found = rank_students((heavy, slow), tight)
    assert [(s.name, s.within) for s in found] == [("resnet14", True), ("resnet8", False)]
    assert (found[0].bound_ms or 0) > (found[1].bound_ms or 0)


@pytest.mark.ort
@pytest.mark.slow
def test_students_are_measured_where_the_target_is(candidates: Sequence[Candidate]) -> None:
    found = rank_students(candidates, find_profile("x86-onnxruntime"), Fleet())
    assert all(s.measured_ms is not None and s.measured_ms > 0 for s in found)
    values = [s.measured_ms or 0.0 for s in found]
    assert values == sorted(values)


def test_an_engine_cannot_be_measured_before_it_is_made() -> None:
    with pytest.raises(InputError, match="not with tensorrt") as caught:
        check_fleet(find_profile("jetson"), Fleet())
    assert caught.value.fix == "leave out --on, and rank by the bound"
