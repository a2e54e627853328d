from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from edgexfer.bench.job import SCHEMA, Failure, Job, Result, run_job
from edgexfer.bench.suite import (
    Settings,
    Subject,
    interleave,
    judge,
    missed_limits,
    run_suite,
    spread_pct,
)
from edgexfer.core.bundle import read_manifest
from edgexfer.core.files import read_json, write_json
from edgexfer.core.pooled import pooled_quantile
from edgexfer.core.profile import Limits
from edgexfer.core.record import read_record, write_record
from edgexfer.core.stats import quantile
from tests.bundles import make_bundle, reseal

FAST = Settings(processes=2, seconds=0.01, samples=100, threads=1, seed=0)
MakeJob = Callable[..., Job]


def test_the_order_is_random_by_round_and_fixed_by_its_seed() -> None:
    order = interleave(4, 50, seed=3)
    assert order == interleave(4, 50, seed=3)
    assert order != interleave(4, 50, seed=4)
    rounds = [tuple(order[i : i + 4]) for i in range(0, 200, 4)]
    assert all(sorted(r) == [0, 1, 2, 3] for r in rounds)
    assert len(set(rounds)) > 10
    assert min(Counter(r[0] for r in rounds).values()) > 3


def test_a_record_holds_all_samples_and_their_quantiles(bundle: Path, tmp_path: Path) -> None:
    manifest = read_manifest(bundle)
    jobs = []

    def execute(job: Job) -> Result:
        jobs.append(job)
        return run_job(job)

    subjects = [Subject(bundle, manifest, artefact) for artefact in manifest.artefacts]
    ((subject, record),) = run_suite(subjects, FAST, execute)
    assert subject.artefact.name == "x86-null-fp32"
    assert record.status in ("ok", "partial")
    assert [job.accuracy for job in jobs] == [True, False]
    assert [run.order for run in record.processes] == [0, 1]
    pooled = [ns for run in record.processes for ns in run.infer_ns]
    runs = [run.infer_ns for run in record.processes]
    assert record.latency["p90"] == pooled_quantile(runs, 0.9)
    assert record.latency["p90"].n == len(pooled)
    assert set(record.stages) == {"pre", "post"}
    assert record.accuracy is not None
    assert record.settings["warmup_s"] == 0.04
    assert record.artefact["size_bytes"] == (bundle / "models/null-fp32.npz").stat().st_size
    assert record.bundle["manifest_sha256"]
    assert any("measured in 2 processes" in text for text in record.warnings)
    write_record(tmp_path / "record.json", record)
    assert read_record(tmp_path / "record.json") == record


@pytest.mark.ort
def test_a_failed_artefact_is_not_tried_again_and_stops_no_other(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", ["null-fp32", "onnxruntime-fp32"])
    manifest = read_manifest(bundle)
    counts: Counter[str] = Counter()

    def execute(job: Job) -> Result:
        counts[job.artefact] += 1
        if job.artefact == "x86-onnxruntime-fp32":
            return Result(SCHEMA, job, Failure("it broke", "mend it", 3))
        return run_job(job)

    subjects = [Subject(bundle, manifest, artefact) for artefact in manifest.artefacts]
    records = {s.artefact.name: record for s, record in run_suite(subjects, FAST, execute)}
    assert counts == {"x86-null-fp32": 2, "x86-onnxruntime-fp32": 1}
    failed = records["x86-onnxruntime-fp32"]
    assert (failed.status, failed.reasons) == ("failed", ("it broke; fix: mend it",))
    assert failed.latency["p50"].value is None
    assert failed.absent["accuracy"] == "the job failed"
    assert records["x86-null-fp32"].status in ("ok", "partial")


def _result(job: Job, doubts: tuple[str, ...] = (), invalid: tuple[str, ...] = ()) -> Result:
    return dataclasses.replace(run_job(job), doubts=doubts, invalid=invalid)


def test_the_status_is_the_worst_that_was_found(make_job: MakeJob) -> None:
    good = _result(make_job())
    assert judge([good]) == ("ok", ())
    doubtful = _result(make_job(), doubts=("busy machine: 31 %",))
    again = _result(make_job(), doubts=("busy machine: 45 %",))
    assert judge([good, doubtful, again]) == (
        "partial",
        ("busy machine: 31 % (in 2 of 3 processes)",),
    )
    wrong = _result(make_job(), invalid=("other bits",))
    assert judge([doubtful, wrong]) == ("invalid", ("other bits (in 1 of 2 processes)",))


def test_too_few_samples_are_said(make_job: MakeJob) -> None:
    few = run_job(make_job(samples=20, seconds=1e-9))
    few = dataclasses.replace(few, doubts=())
    assert judge([few]) == ("partial", ("20 samples are too few to bound p90, which takes 44",))


def test_the_spread_compares_medians(make_job: MakeJob) -> None:
    run = run_job(make_job()).run
    assert run is not None
    runs = [dataclasses.replace(run, infer_ns=(n,) * 5) for n in (100, 110, 105)]
    assert spread_pct(runs) == pytest.approx(10.0)
    assert spread_pct(runs[:1]) is None


def test_a_record_says_which_limits_of_the_profile_are_missed(bundle: Path) -> None:
    place = bundle / "profiles/x86-null.json"
    limits = {"latency_p90_ms": 1e-6, "size_bytes": 10, "accuracy_drop_pt": None}
    write_json(place, {**read_json(place), "limits": limits})
    reseal(bundle, read_manifest(bundle))
    manifest = read_manifest(bundle)
    subject = Subject(bundle, manifest, manifest.artefacts[0])
    ((_, record),) = run_suite([subject], FAST, run_job)
    missed = [text for text in record.warnings if "over the profile's limit" in text]
    assert len(missed) == 2
    assert missed[0].endswith("ms, not 1e-06")
    assert missed[1].endswith("bytes, not 10")


def test_a_limit_that_is_just_met_is_not_missed() -> None:
    p90 = quantile([2_000_000] * 100, 0.9)
    assert missed_limits(Limits(latency_p90_ms=2.0, size_bytes=10), p90, 10) == []
    assert missed_limits(Limits(), p90, 10) == []
    assert missed_limits(Limits(latency_p90_ms=2.0), quantile([], 0.9), 10) == []
