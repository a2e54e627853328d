from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from edgexfer.bench.job import SCHEMA, Failure, Job, Result
from edgexfer.bench.run import run_job
from edgexfer.bench.suite import Settings, Subject, interleave, run_suite
from edgexfer.core.bundle import read_manifest
from edgexfer.core.files import read_json, write_json
from edgexfer.core.pooled import pooled_quantile
from edgexfer.core.record import read_record, write_record
from tests.bundles import make_bundle, reseal

FAST = Settings(processes=2, seconds=0.01, samples=100, threads=1, seed=0)


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
    assert record.status != "failed"
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
    assert len(records["x86-null-fp32"].processes) == 2


def test_a_figure_that_one_process_has_is_not_missing(bundle: Path) -> None:
    built = {"peak_pss_bytes": "it built its engine too", "compile": "in one step"}

    def execute(job: Job) -> Result:
        result = run_job(replace(job, accuracy=False))
        more = {"compile": "in one step"} if job.order else built
        if job.accuracy:
            more = {**more, "accuracy": "the bundle has no evaluation images"}
        return replace(result, absent=more)

    manifest = read_manifest(bundle)
    subject = Subject(bundle, manifest, manifest.artefacts[0])
    ((_, record),) = run_suite([subject], FAST, execute)
    assert "host_bytes" in record.memory
    assert "peak_pss_bytes" not in record.absent
    assert record.absent["compile"] == "in one step"
    assert record.absent["accuracy"] == "the bundle has no evaluation images"


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
