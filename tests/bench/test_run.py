from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgexfer.backends import null
from edgexfer.bench import run as run_room
from edgexfer.bench import scenarios
from edgexfer.bench.feed import normalise
from edgexfer.bench.job import Job, Result
from edgexfer.bench.run import run_job, top_class
from edgexfer.bench.sensors import Sampler
from edgexfer.bench.steady import Noise
from edgexfer.bench.watch import Watch
from edgexfer.core.bundle import read_manifest
from edgexfer.core.codec import decode, encode
from tests.bundles import PREPROCESS, make_bundle, reseal

MakeJob = Callable[..., Job]


def test_a_job_measures_accuracy_latency_and_stages(bundle: Path, make_job: MakeJob) -> None:
    result = run_job(make_job())
    assert result.failure is None
    run = result.run
    assert run is not None
    assert len(run.infer_ns) >= 100
    assert len(run.pre_ns) == len(run.post_ns) == 200
    assert min(run.infer_ns) > 0
    cold = run.cold_start
    assert min(cold.import_ns, cold.load_ns, cold.first_ns) > 0
    assert cold.startup_ns is not None
    assert cold.total_ns == cold.startup_ns + cold.import_ns + cold.load_ns + cold.first_ns
    assert run.peak_pss_bytes is not None
    assert run.peak_pss_bytes > 1_000_000
    assert set(run.noise) >= {"foreign_pct", "steal_pct"}
    assert len(run.issued_ns) == len(run.infer_ns)
    assert list(run.issued_ns) == sorted(run.issued_ns)
    assert run.references[0].after == 0
    assert run.references[-1].after == len(run.infer_ns)
    assert len(run.rotated_ns) == len(run.repeated_ns) > 0
    assert len(run.overhead_ns) == 1000
    assert (run.faults, run.notes) == ((), ())
    assert result.absent["compile"] == "the runtime reads and compiles in one step"
    assert result.absent["decode"] == "the bundle has no encoded images"
    _check_accuracy(bundle, result)
    assert decode(Result, encode(result), "result") == result


def test_memory_of_a_device_is_told_or_it_is_said_why_not(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu = run_job(make_job())
    assert on_cpu.run is not None
    assert on_cpu.run.device_bytes is None
    assert on_cpu.absent["device_bytes"] == (
        "the runtime tells of no memory but the host's, which is all that a CPU has"
    )
    for told, kept in ((4096, 4096), (0, None), (-4096, None)):
        monkeypatch.setattr(null.NullSession, "device_bytes", lambda _, n=told: n, raising=False)
        result = run_job(make_job())
        assert result.run is not None
        assert result.run.device_bytes == kept
        assert ("device_bytes" in result.absent) == (kept is None)
    assert "another program" in result.absent["device_bytes"]


def _check_accuracy(bundle: Path, result: Result) -> None:
    arrays = np.load(bundle / "models/null-fp32.npz")
    images = normalise(np.load(bundle / "data/images.npy"), PREPROCESS)
    logits = images.reshape(len(images), -1) @ arrays["weight"].T + arrays["bias"]
    expected = logits.argmax(axis=1)
    assert result.accuracy is not None
    assert result.accuracy.n == 80
    assert result.accuracy.predictions == tuple(expected)
    assert result.accuracy.correct == (expected == np.load(bundle / "data/labels.npy")).sum()


def test_accuracy_is_left_out_where_it_is_not_asked_for(make_job: MakeJob) -> None:
    assert run_job(make_job(accuracy=False)).accuracy is None


def test_under_an_emulator_outputs_count_and_nothing_is_timed(
    bundle: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_room, "emulator", lambda: ("qemu-aarch64, a program for x86", ""))
    result = run_job(make_job())
    assert result.failure is None
    assert result.run is None
    _check_accuracy(bundle, result)
    machine = platform.machine()
    reason = f"emulated: this {machine} is qemu-aarch64, a program for x86"
    assert result.absent["latency"] == f"{reason}; only a real one has a latency"
    assert result.device["machine"] == machine


def test_a_bundle_without_evaluation_images_says_so(tmp_path: Path, make_job: MakeJob) -> None:
    other = make_bundle(tmp_path / "other", images=0, golden=False)
    result = run_job(make_job(bundle=str(other)))
    assert result.failure is None
    assert result.absent["accuracy"] == "the bundle has no evaluation images"
    assert result.run is not None
    assert "inputs rotate over 4 images only" in result.run.notes
    assert any("no golden outputs" in text for text in result.run.notes)


def test_the_harness_s_own_cost_is_that_of_all_lanes_at_once(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[Any]] = []

    def all_at_once(lanes: list[Any]) -> Any:
        made.append(lanes)
        return scenarios.all_at_once(lanes)

    monkeypatch.setattr(run_room, "all_at_once", all_at_once)
    result = run_job(make_job(scenario="multi_stream", streams=2))
    assert result.run is not None
    assert len(result.run.overhead_ns) == 1000
    assert len(made) == 2  # the warm-up, and then calls that do nothing
    assert [lane("feed") for lane in made[1]] == ["feed", "feed"]


def test_what_can_be_served_is_not_bounded_by_the_harness(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    paces = []

    def scenario(ask: Any, lanes: Any, feeds: Any, pace_ns: float, reference: Any) -> Any:
        paces.append(pace_ns)
        return scenarios.Measured()

    hour_ns = 3600 * 10**9
    monkeypatch.setattr(run_room, "run_scenario", scenario)
    monkeypatch.setattr(run_room, "warm_up", lambda *_: ([hour_ns] * 100, True))
    for name in ("server", "offline"):
        run_job(make_job(scenario=name, streams=2, bound_ns=1))
    assert paces[0] < hour_ns
    assert paces[1] == hour_ns


def test_wrong_golden_outputs_stop_before_anything_is_timed(
    bundle: Path, make_job: MakeJob
) -> None:
    golden = bundle / "data/null-fp32.npy"
    np.save(golden, np.load(golden) * np.float32(1.01))
    reseal(bundle, read_manifest(bundle))
    result = run_job(make_job())
    assert result.run is None
    assert result.failure is not None
    assert "x86-null-fp32 is 40." in result.failure.what
    assert "the limit is 60 dB" in result.failure.what
    assert result.failure.exit_code == 1


def test_a_flipped_bit_stops_it(bundle: Path, make_job: MakeJob) -> None:
    place = bundle / "models/null-fp32.npz"
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(content)
    result = run_job(make_job())
    assert result.failure is not None
    assert "differs from the manifest" in result.failure.what
    assert result.failure.exit_code == 2


def test_outputs_that_change_in_the_timed_run_make_it_invalid(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A runtime that answers from a cache, or races, gives other bits once it is warm.
    calls = 0
    real = null.NullSession.run

    def run(self: null.NullSession, feed: Any) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        outputs = real(self, feed)
        return {"logits": np.nextafter(outputs["logits"], np.inf)} if calls > 400 else outputs

    monkeypatch.setattr(null.NullSession, "run", run)
    result = run_job(make_job(samples=5000))
    assert result.run is not None
    assert len(result.run.faults) == 1
    assert "outputs of the timed run differ" in result.run.faults[0]


def test_a_warm_up_that_does_not_converge_is_said(make_job: MakeJob) -> None:
    result = run_job(make_job(warmup_s=1e-6))
    assert result.run is not None
    assert not result.run.warmup_converged


def test_an_unknown_artefact_names_the_nearest(make_job: MakeJob) -> None:
    result = run_job(make_job(artefact="x86-null-fp23"))
    assert result.failure is not None
    assert result.failure.fix == "did you mean 'x86-null-fp32'?"


def test_an_artefact_without_a_profile_or_file_is_refused(bundle: Path, make_job: MakeJob) -> None:
    manifest = read_manifest(bundle)
    reseal(bundle, dataclasses.replace(manifest, profiles={}))
    failure = run_job(make_job()).failure
    assert failure is not None
    assert "has no profile for target 'x86-null'" in failure.what
    bare = dataclasses.replace(manifest.artefacts[0], files=())
    reseal(bundle, dataclasses.replace(manifest, artefacts=(bare,)))
    failure = run_job(make_job()).failure
    assert failure is not None
    assert "x86-null-fp32 lists no file" in failure.what


def test_the_label_of_an_image_is_its_largest_logit() -> None:
    best, probability = top_class(np.array([[0.0, np.log(3.0), -1000.0]]))
    assert best == 1
    assert probability == pytest.approx(0.75)


def _with_originals(bundle: Path, change: int) -> None:
    """Add PNG files of the first images to a bundle, their pixels changed by so much."""
    manifest = read_manifest(bundle)
    assert manifest.evaluation is not None
    images = np.load(bundle / manifest.evaluation.images)
    found = {}
    for place in (0, 3):
        pixels = np.clip(images[place].astype(int) + change, 0, 255).astype(np.uint8)
        name = f"data/{place}.png"
        Image.fromarray(pixels).save(bundle / name)
        found[str(place)] = name
    evaluation = dataclasses.replace(manifest.evaluation, encoded=found)
    reseal(bundle, dataclasses.replace(manifest, evaluation=evaluation))


def test_original_images_give_the_stages_before_the_model(bundle: Path, make_job: MakeJob) -> None:
    _with_originals(bundle, change=0)
    run = run_job(make_job()).run
    assert run is not None
    assert len(run.decode_ns) == len(run.resize_ns) == len(run.e2e_ns) == 200
    # The whole is at least the decoder alone, which is most of it here.
    assert min(run.e2e_ns) > min(run.decode_ns)
    assert (run.faults, run.notes) == ((), ())


def test_a_device_that_prepares_images_otherwise_is_found_out(
    bundle: Path, make_job: MakeJob
) -> None:
    _with_originals(bundle, change=40)
    result = run_job(make_job())
    assert result.run is not None
    (fault,) = result.run.faults
    assert fault.startswith("preprocessing differs: of 2 of 2 images Pillow ")
    assert fault.endswith("first data/0.png")
    assert result.run.decode_ns == ()
    assert result.absent["e2e"] == fault


def test_what_a_decoder_rounds_otherwise_is_noted(bundle: Path, make_job: MakeJob) -> None:
    _with_originals(bundle, change=1)
    run = run_job(make_job()).run
    assert run is not None
    assert run.faults == ()
    assert run.notes[0].startswith("preprocessing differs: ")
    assert len(run.e2e_ns) == 200


def test_the_machine_is_not_watched_while_it_rests(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    sleep, rest_s = time.sleep, 0.0625

    class Seeing(Sampler):
        sees_power = True

    class Watched(Watch):
        def __init__(self) -> None:
            seen.append("begins")
            super().__init__()

        def finish(self) -> Noise:
            seen.append("ends")
            return super().finish()

    def rest(seconds: float) -> None:
        if seconds == rest_s:
            seen.append("rests")
        sleep(seconds)

    monkeypatch.setattr(run_room, "IDLE_S", rest_s)
    monkeypatch.setattr(run_room, "Sampler", Seeing)
    monkeypatch.setattr(run_room, "Watch", Watched)
    monkeypatch.setattr(time, "sleep", rest)
    assert run_job(make_job(scenario="offline")).failure is None
    assert seen == ["rests", "begins", "ends", "rests"]
