"""trtexec's commands hold on every version, and what it writes is read or refused."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from edgexfer.backends._trtexec import (
    Files,
    LayerTime,
    Log,
    Timing,
    build_command,
    disagreement,
    layers_command,
    parse_log,
    parse_profile,
    parse_times,
    parse_version,
    run_command,
)
from edgexfer.core.backend import Plan
from edgexfer.core.errors import BackendError
from tests.backends.fake_trtexec import FIXTURES, banner, known

VERSIONS = [(8, 2), (8, 5), (8, 6), (10, 3), (10, 13), (10, 16), (11, 0), (11, 4)]
FILES = Files("m.onnx", "m.engine", "timing.cache")


def _text(name: str) -> str:
    return (FIXTURES / name).read_text()


def _build(version: tuple[int, int], precision: str, **options: Any) -> list[str]:
    device = options.pop("device", "GPU")
    plan = Plan(precision, device=device, options=options)
    return build_command("trtexec", version, FILES, "images:1x3x8x8", plan)


def _names(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words[1:]}


@pytest.mark.parametrize("version", VERSIONS)
def test_no_command_has_an_option_that_its_version_refuses(version: tuple[int, int]) -> None:
    commands = [layers_command("trtexec", version, "m.engine", None, ("p", "l"))]
    for precision, device in product(("fp32", "fp16", "int8"), ("GPU", "DLA")):
        commands.append(_build(version, precision, device=device))
    for graph, spin, transfers in product((True, False), repeat=3):
        timing = Timing(graph, spin, transfers)
        commands.append(run_command("trtexec", version, "m.engine", "i:1", "t.json", timing))
    assert len(commands) == 15
    for words in commands:
        assert _names(words) <= known(version), words


def test_options_of_one_version_are_refused_by_another() -> None:
    assert not _names(_build((8, 6), "int8")) <= known((11, 0))
    assert not _names(_build((8, 5), "int8")) <= known((10, 3))
    assert not _names(_build((10, 3), "int8")) <= known((8, 6))
    off = Timing(cuda_graph=False, spin_wait=False, transfers=True)
    assert not _names(run_command("t", (11, 0), "e", None, "t", off)) <= known((10, 16))


@pytest.mark.parametrize(
    ("version", "precision", "words"),
    [
        ((8, 5), "int8", {"--fp16", "--int8", "--buildOnly"}),
        ((8, 6), "fp16", {"--fp16", "--skipInference"}),
        ((8, 6), "fp32", {"--noTF32", "--skipInference"}),
        ((10, 3), "int8", {"--stronglyTyped", "--skipInference"}),
        ((11, 4), "int8", {"--skipInference"}),
        ((11, 4), "fp32", {"--noTF32", "--skipInference"}),
    ],
)
def test_precision_is_said_where_the_version_wants_it_said(
    version: tuple[int, int], precision: str, words: set[str]
) -> None:
    common = {"--onnx", "--saveEngine", "--shapes", "--timingCacheFile", "--profilingVerbosity"}
    assert _names(_build(version, precision)) == common | words | {"--memPoolSize"}
    assert "--memPoolSize=workspace:1024" in _build(version, precision)
    assert "--memPoolSize=workspace:64" in _build(version, precision, workspace_mib=64)


def test_a_calibration_cache_goes_with_flags_until_there_are_none() -> None:
    words = _build((10, 3), "int8", device="DLA", dla_core=1, calibration_cache="m.cache")
    assert {"--int8", "--fp16", "--calib=m.cache", "--useDLACore=1"} <= set(words)
    assert "--stronglyTyped" not in words
    files = Files("models/m.onnx", "e", "t")
    plan = Plan("int8", device="DLA", options={"calibration_cache": "m.cache"})
    assert "--calib=models/m.cache" in build_command("trtexec", (10, 3), files, None, plan)
    with pytest.raises(BackendError, match="TensorRT 11 takes no calibration cache") as caught:
        _build((11, 4), "int8", calibration_cache="m.cache")
    assert caught.value.fix == "export with Q/DQ nodes"


def test_a_dla_is_built_for_by_flags_until_there_are_none() -> None:
    """Its own FP16 flag, which 10 sets with a DLA, makes a strongly typed build fail."""
    assert "--stronglyTyped" not in _build((10, 3), "fp16", device="DLA")
    assert "--fp16" in _build((10, 3), "fp16", device="DLA")
    assert not {"--stronglyTyped", "--fp16"} & set(_build((11, 4), "fp16", device="DLA"))


def test_a_version_that_is_too_old_is_refused() -> None:
    assert "--workspace=1024" in _build((8, 2), "fp16")
    with pytest.raises(BackendError, match=r"TensorRT 8\.0 is older than 8\.2") as caught:
        _build((8, 0), "fp32")
    assert caught.value.fix == "use JetPack 4.6.1 or newer"


@pytest.mark.parametrize(
    ("version", "timing", "words"),
    [
        ((10, 3), Timing(), {"--useCudaGraph", "--useSpinWait", "--noDataTransfers"}),
        ((10, 3), Timing(False, False, True), set()),  # its own defaults, it has no words for them
        ((11, 0), Timing(), {"--useCudaGraph", "--useSpinWait", "--noDataTransfers"}),
        (
            (11, 0),
            Timing(False, False, True),
            {"--noCudaGraph", "--noSpinWait", "--includeDataTransfers"},
        ),
    ],
)
def test_the_settings_mean_the_same_in_every_version(
    version: tuple[int, int], timing: Timing, words: set[str]
) -> None:
    rest = {"--loadEngine", "--warmUp", "--duration", "--iterations", "--avgRuns", "--percentile"}
    found = _names(run_command("trtexec", version, "e", None, "t.json", timing))
    assert found - rest - {"--exportTimes"} == words


@pytest.mark.parametrize(
    ("name", "transfers"), [("times_with_transfers", True), ("times_no_transfers", False)]
)
def test_times_are_read_and_percentiles_are_ours(name: str, transfers: bool) -> None:
    times = parse_times(_text(f"{name}.json"), name)
    raw = json.loads(_text(f"{name}.json"))
    assert len(times.compute_ns) == len(raw) == 20
    assert times.transfers is transfers
    assert times.compute_ns[0] == round(raw[0]["computeMs"] * 1e6)
    assert (times.latency_ns == times.compute_ns) is not transfers
    assert all(25_000 < value < 35_000 for value in times.enqueue_ns)
    ranks = sorted(times.compute_ns)
    found = times.quantiles()
    assert found["p50"].value == ranks[9]
    # 20 queries cannot bound a 90th percentile, and an unbounded one is not given.
    assert found["p90"].value is None
    assert found["p90"].reason == "n=20 < 44, too few for a 99 % bound"
    assert found["p99"].upper99 is None
    assert found["p99"].reason == "n=20 < 459, too few for a 99 % bound"


GOOD = {
    **{"startEnqMs": 0.1, "endEnqMs": 0.2, "h2dMs": 0.5, "computeMs": 1.0, "d2hMs": 0.5},
    "latencyMs": 2.0,
}


@pytest.mark.parametrize(
    "text",
    [
        *("", "not json", "[]", "{}", "null", "3", '[{"computeMs": 1}]', '["x"]', "[[1]]"),
        json.dumps([{**GOOD, "computeMs": 0.0, "latencyMs": 1.0}]),
        json.dumps([{**GOOD, "computeMs": "1"}]),
        json.dumps([{**GOOD, "computeMs": None}]),
        json.dumps([{**GOOD, "computeMs": True}]),
        json.dumps([{**GOOD, "computeMs": -1.0}]),
        json.dumps([{**GOOD, "latencyMs": 1.0}]),
        json.dumps([{**GOOD, "startEnqMs": "x"}]),
        json.dumps([GOOD]).replace("1.0", "NaN"),
        json.dumps([GOOD]).replace("1.0", "Infinity"),
        json.dumps([GOOD])[:-20],
    ],
)
def test_garbage_is_one_error_and_never_a_zero(text: str) -> None:
    with pytest.raises(BackendError, match=r"^t\.json: holds no times of trtexec") as caught:
        parse_times(text, "t.json")
    assert "\n" not in caught.value.what
    assert "run the same trtexec command again" in caught.value.fix
    assert len(parse_times(json.dumps([GOOD]), "t.json").compute_ns) == 1


def test_a_profile_is_read_with_medians_and_without() -> None:
    count, layers = parse_profile(_text("profile.json"), "p")
    assert count == 20
    assert layers[1] == LayerTime("conv1 + relu1", 105_000, 104_800, 44.586)
    old = json.loads(_text("profile.json"))
    for row in old[1:]:
        del row["medianMs"]
    assert parse_profile(json.dumps(old), "p")[1][1].median_ns is None
    for text in ("", "[]", '[{"count": 0}]', '[{"count": 3}]', '[{"count": 1}, {"name": "a"}]'):
        with pytest.raises(BackendError, match="p: holds no profile of trtexec"):
            parse_profile(text, "p")


def test_logs_of_10_and_11_are_read() -> None:
    ten = parse_log(_text("trtexec_10.3_pass.log"), "log")
    unstable = "GPU compute time is unstable, with coefficient of variance = 3.1%."
    assert ten == Log((10, 3), "Orin", 850_300, (unstable,))
    assert parse_log(_text("trtexec_11_pass.log"), "log") == Log((11, 4), "Orin", 850_300, ())


def test_a_log_of_a_failure_says_why() -> None:
    with pytest.raises(BackendError) as caught:
        parse_log(_text("trtexec_11_unknown_option.log"), "build.log")
    assert caught.value.what == (
        "build.log: trtexec of TensorRT 11.4 failed (Unknown option: --fp16)"
    )
    cut = _text("trtexec_10.3_pass.log")[:500]
    with pytest.raises(BackendError, match=r"failed \(its log ends early\)"):
        parse_log(cut, "log")
    with pytest.raises(BackendError, match="log: is not output of trtexec"):
        parse_log("bash: trtexec: command not found", "log")


@pytest.mark.parametrize("version", VERSIONS)
def test_versions_are_read_off_the_first_line(version: tuple[int, int]) -> None:
    text = f"&&&& RUNNING TensorRT.trtexec [TensorRT {banner(version)}] # trtexec"
    assert parse_version(text, "log") == version


def test_times_of_another_run_are_seen() -> None:
    log = parse_log(_text("trtexec_10.3_pass.log"), "log")
    times = parse_times(_text("times_no_transfers.json"), "t")
    assert disagreement(times, log) is None
    other = parse_times(json.dumps([GOOD]), "t")
    assert disagreement(other, log) == "the times' median is 17.6 % off the one in trtexec's log"
    build = Log((10, 3), None, None, ())
    assert disagreement(times, build) == "trtexec's log has no summary to check the times with"


def test_the_fixtures_are_those_of_trtexec() -> None:
    assert {path.name for path in Path(FIXTURES).iterdir()} == {
        *("layers_detailed_11x.json", "layers_detailed_8x_10x.json", "profile.json"),
        *("layers_names_only_8x_10x.json", "times_no_transfers.json", "times_with_transfers.json"),
        *("trtexec_10.3_pass.log", "trtexec_11_pass.log", "trtexec_11_unknown_option.log"),
    }
