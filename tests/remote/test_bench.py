"""``bench_bundles`` with real processes, real runtimes, through the local transport."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgexfer.bench.bare import Wish
from edgexfer.bench.child import Completed
from edgexfer.core.bundle import read_manifest
from edgexfer.core.errors import BackendError, BundleError, InputError, Interrupted, RunError
from edgexfer.core.progress import Progress
from edgexfer.core.record import read_record
from edgexfer.recipe import BenchSection
from edgexfer.remote.bench import How, _forget_others, bench_bundles
from edgexfer.remote.transport import Local
from tests.bundles import make_bundle, reseal

FAST = BenchSection(processes=2, seconds=0.01, samples=50, threads=1)
ONCE = BenchSection(processes=1, seconds=0.01, samples=50, threads=1)


@pytest.mark.ort
@pytest.mark.ov
def test_every_artefact_gets_a_record_and_none_loads_torch(tmp_path: Path) -> None:
    kinds = ["null-fp32", "onnxruntime-fp32", "onnxruntime-int8", "openvino-int8"]
    bundle = make_bundle(tmp_path / "bundle", kinds)
    paths = bench_bundles([bundle], tmp_path / "out", How(None, FAST))
    records = [read_record(path) for path in paths]
    assert [path.stem for path in paths] == [a.name for a in read_manifest(bundle).artefacts]
    assert "failed" not in {record.status for record in records}
    assert [r.active["loaded"] for r in records] == [
        [],
        ["onnxruntime"],
        ["onnxruntime"],
        ["openvino"],
    ]
    assert [r.active["precision"] for r in records] == ["fp32", "fp32", "int8", "int8"]
    orders = sorted(run.order for record in records for run in record.processes)
    assert orders == list(range(8))
    assert all(r.accuracy is not None and r.accuracy.n == 80 for r in records)


@pytest.mark.torch
def test_the_eager_reference_loads_torch_and_nothing_beside_it(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", ["torch-fp32"])
    (path,) = bench_bundles([bundle], tmp_path / "out", How(["x86-torch"], ONCE))
    record = read_record(path)
    assert record.status != "failed", record.reasons
    assert record.active["loaded"] == ["torch"]
    assert record.active["provider"] == "torch eager, CPU"


@pytest.mark.ort
def test_one_bad_artefact_is_a_record_and_stops_no_other(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", ["onnxruntime-fp32", "null-fp32"])
    (bundle / "models/onnxruntime-fp32.onnx").write_bytes(b"no ONNX at all")
    reseal(bundle, read_manifest(bundle))
    bad, good = bench_bundles([bundle], tmp_path / "out", How(None, FAST))
    record = read_record(bad)
    assert record.status == "failed"
    assert "ONNX Runtime cannot load it" in record.reasons[0]
    assert "fix: " in record.reasons[0]
    assert record.processes == ()
    assert read_record(good).status != "failed"


def test_wrong_golden_outputs_make_a_failed_record(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    golden = bundle / "data/null-fp32.npy"
    np.save(golden, np.load(golden)[:, ::-1].copy())
    reseal(bundle, read_manifest(bundle))
    (path,) = bench_bundles([bundle], tmp_path / "out", How(None, ONCE))
    assert "from its golden outputs" in read_record(path).reasons[0]


def test_a_process_that_is_killed_makes_a_failed_record(tmp_path: Path) -> None:
    class Killed(Local):
        def run(self, argv: object, *, timeout_s: float) -> Completed:
            assert isinstance(argv, list)
            if "job" not in argv:
                return super().run(argv, timeout_s=timeout_s)
            code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
            return super().run([sys.executable, "-c", code], timeout_s=timeout_s)

    how = How(None, ONCE, transport=Killed)
    (path,) = bench_bundles([make_bundle(tmp_path / "bundle")], tmp_path / "out", how)
    assert "its process was killed by SIGSEGV" in read_record(path).reasons[0]


@pytest.mark.ort
def test_artefacts_of_two_bundles_interleave(tmp_path: Path) -> None:
    student = make_bundle(tmp_path / "student", ["onnxruntime-fp32"])
    teacher = make_bundle(tmp_path / "teacher")
    stream = io.StringIO()
    how = How(None, FAST, lambda title, total, unit: Progress(title, total, unit, stream))
    paths = bench_bundles([student, teacher], tmp_path / "out", how)
    assert [path.stem for path in paths] == ["x86-onnxruntime-fp32", "x86-null-fp32"]
    orders = [[run.order for run in read_record(path).processes] for path in paths]
    assert sorted(orders[0] + orders[1]) == [0, 1, 2, 3]
    assert all(first < 2 <= second for first, second in orders)
    assert "bench  100% 4/4 process" in stream.getvalue()


def test_two_artefacts_of_one_name_are_refused(tmp_path: Path) -> None:
    bundles = [make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b")]
    with pytest.raises(BundleError, match="two bundles have an artefact x86-null-fp32") as caught:
        bench_bundles(bundles, tmp_path / "out", How(None, ONCE))
    assert "a folder of its own" in caught.value.fix


def test_records_never_go_into_a_bundle(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    with pytest.raises(InputError, match="whose seal it would break") as caught:
        bench_bundles([bundle], bundle / "bench", How(None, ONCE))
    assert caught.value.fix == "choose another --out"
    assert not (bundle / "bench").exists()


def test_a_damaged_bundle_is_refused_before_any_process_starts(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (bundle / "data/labels.npy").unlink()
    with pytest.raises(BundleError, match=r"labels\.npy: is missing"):
        bench_bundles([bundle], tmp_path / "out", How(None, ONCE))
    assert not (tmp_path / "out").exists()


def test_a_target_for_another_machine_is_exit_3(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", machines={"null": "riscv64"})
    for targets in (["x86-null"], None):
        with pytest.raises(BackendError, match="riscv64") as caught:
            bench_bundles([bundle], tmp_path / "out", How(targets, ONCE))
        assert caught.value.exit_code == 3


def test_two_benchmarks_never_share_a_folder(tmp_path: Path) -> None:
    bundle, out = make_bundle(tmp_path / "bundle"), tmp_path / "out"
    seen: list[InputError] = []

    class Crowded(Local):
        """Begins another benchmark into the same folder while the first measures."""

        def run(self, argv: Sequence[str], *, timeout_s: float) -> Completed:
            if "job" in argv:
                with pytest.raises(RunError) as caught:
                    bench_bundles([bundle], out, How(None, ONCE))
                seen.append(caught.value)
            return super().run(argv, timeout_s=timeout_s)

    (path,) = bench_bundles([bundle], out, How(None, ONCE, transport=Crowded))
    assert seen[0].what == f"{out}: another benchmark writes its records there"
    assert seen[0].fix == "wait for it, or choose another --out"
    assert read_record(path).status != "failed"
    assert [each.name for each in out.iterdir()] == [path.name]


@pytest.mark.parametrize("fact", ["cpu", "usable_cores", "power_mode"])
def test_results_of_another_machine_are_not_taken_up(tmp_path: Path, fact: str) -> None:
    bundle, program = make_bundle(tmp_path / "bundle"), tmp_path / "program"
    program.touch()
    facts = {"cpu": "Cortex-A76", "usable_cores": 4, "power_mode": "15W", "load1": 0.1}
    result = tmp_path / "result-0.json"
    for seen, kept in (({}, False), ({"load1": 3.0}, True), ({fact: "another"}, False)):
        result.touch()
        _forget_others(tmp_path, program, [bundle], {**facts, **seen})
        assert result.exists() == kept


@pytest.mark.ort
def interrupted_bench(bundle: Path, out: Path) -> None:
    """Bench two artefacts, and press Ctrl-C when the first has its record."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> None:
        while not list(out.glob("*.json")):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    long = BenchSection(processes=1, seconds=3.0, samples=9_999, threads=1)
    with pytest.raises(
        Interrupted, match="interrupted; the records that were complete are in"
    ) as caught:
        bench_bundles([bundle], out, How(None, long))
    assert caught.value.exit_code == 130


def test_an_interrupt_keeps_the_records_that_are_complete(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", ["null-fp32", "onnxruntime-fp32"])
    out = tmp_path / "out"
    # In a process of its own: what other tests have loaded must not catch the signal.
    child = multiprocessing.get_context("spawn").Process(
        target=interrupted_bench, args=(bundle, out)
    )
    child.start()
    child.join(60)
    assert child.exitcode == 0
    (path,) = out.glob("*.json")
    assert read_record(path).status != "failed"


def test_a_machine_that_chatters_is_measured_all_the_same(tmp_path: Path) -> None:
    class Chatty(Local):
        def run(self, argv: Sequence[str], *, timeout_s: float) -> Completed:
            done = super().run(argv, timeout_s=timeout_s)
            return replace(done, stdout=f"Welcome!\n{done.stdout}bye\n")

    how = How(None, ONCE, transport=Chatty)
    (path,) = bench_bundles([make_bundle(tmp_path / "bundle")], tmp_path / "out", how)
    assert read_record(path).status != "failed"


def test_a_bundle_has_no_other_inputs_than_its_images(tmp_path: Path) -> None:
    how = How(None, ONCE, wish=Wish(shapes={"images": (1, 3, 32, 32)}))
    with pytest.raises(InputError, match="bundle: its inputs are its images") as caught:
        bench_bundles([make_bundle(tmp_path / "bundle")], tmp_path / "out", how)
    assert caught.value.fix == "leave --shape out"
