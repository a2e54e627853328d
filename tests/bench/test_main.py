"""The verbs of the device's own command line, in this process and as the packed file."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgexfer.bench.__main__ import _parser, main
from edgexfer.bench.job import Job, Result
from edgexfer.bench.suite import settings_from
from edgexfer.core.codec import decode, encode
from edgexfer.core.files import read_json, write_json
from edgexfer.core.record import read_record
from edgexfer.recipe import BenchSection
from edgexfer.remote.pack import pack_device_side
from tests.bundles import make_bundle

MakeJob = Callable[..., Job]


def test_facts_are_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["facts"]) == 0
    assert json.loads(capsys.readouterr().out)["cores"] >= 1


def test_verify_says_each_finding(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", "files"],
        ["ok", "preprocess"],
        ["ok", "x86-null-fp32"],
    ]


def test_a_damaged_bundle_is_two_lines_and_exit_2(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "data/labels.npy").unlink()
    for argv in (
        ["verify", str(bundle)],
        ["bench", str(bundle), "--out", str(bundle.parent / "o")],
    ):
        assert main(argv) == 2
        what, fix = capsys.readouterr().err.splitlines()
        assert what.startswith("error: ")
        assert "labels.npy: is missing" in what
        assert fix.startswith("fix: export the bundle again")


def test_a_job_writes_its_result(tmp_path: Path, make_job: MakeJob) -> None:
    write_json(tmp_path / "job.json", encode(make_job()))
    assert main(["job", str(tmp_path / "job.json"), "--out", str(tmp_path / "r.json")]) == 0
    result = decode(Result, read_json(tmp_path / "r.json"), "result")
    assert result.run is not None


def test_a_job_that_failed_has_a_result_and_its_exit_code(
    tmp_path: Path, make_job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "job.json", encode(make_job(artefact="none")))
    assert main(["job", str(tmp_path / "job.json"), "--out", str(tmp_path / "r.json")]) == 2
    assert decode(Result, read_json(tmp_path / "r.json"), "result").failure is not None
    assert "artefact 'none' is not in the bundle" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["bench"],
        ["bench", "b", "--processes", "0"],
        ["bench", "b", "--seconds", "nan"],
        ["bench", "b", "--scenario", "none"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_exit_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "usage: edgexfer.pyz" in capsys.readouterr().err


@pytest.mark.ort
def test_one_artefact_may_go_to_one_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "bundle", ["null-fp32", "onnxruntime-fp32"])
    out = tmp_path / "record.json"
    argv = ["bench", str(bundle), "--out", str(out), "--processes", "1", "--seconds", "0.01"]
    assert main(argv) == 2
    assert "is one file for 2 artefacts" in capsys.readouterr().err
    assert main([*argv, "--artefact", "x86-null-fp32"]) == 0
    assert read_record(out).artefact["name"] == "x86-null-fp32"
    assert main([*argv, "--artefact", "x86-nul-fp32"]) == 2
    assert "did you mean 'x86-null-fp32'" in capsys.readouterr().err


def test_an_artefact_for_another_machine_is_exit_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "bundle", machines={"null": "riscv64"})
    argv = ["bench", str(bundle), "--artefact", "x86-null-fp32", "--out", str(tmp_path / "out")]
    assert main(argv) == 3
    assert "is for a riscv64 machine" in capsys.readouterr().err


def test_records_never_go_into_the_bundle(bundle: Path) -> None:
    program = pack_device_side(bundle.parent / "edgexfer.pyz")
    fast = ["--processes", "1", "--seconds", "0.01", "--samples", "50"]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, str(program), *words]
        return subprocess.run(argv, cwd=bundle, capture_output=True, text=True, timeout=60)

    for out in (".", "bench", "record.json"):
        done = run("bench", ".", "--out", out, *fast)
        assert done.returncode == 2
        assert "lies in the bundle ., whose seal it would break" in done.stderr
    done = run("bench", ".", *fast)
    assert done.returncode == 0, done.stderr
    assert (bundle.parent / "bundle-bench/x86-null-fp32.json").is_file()
    assert run("verify", ".").returncode == 0


def test_on_a_board_one_command_measures_a_bundle(bundle: Path, tmp_path: Path) -> None:
    program = pack_device_side(tmp_path / "edgexfer.pyz")
    fast = ["--processes", "2", "--seconds", "0.01", "--samples", "50"]
    argv = [sys.executable, str(program), "bench", str(bundle), "--out", "out", *fast]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out/x86-null-fp32.json  ")
    record = read_record(tmp_path / "out/x86-null-fp32.json")
    assert len(record.processes) == 2
    assert record.accuracy is not None


def test_on_a_board_the_scenarios_of_the_host_s_command_are_there(
    bundle: Path, tmp_path: Path
) -> None:
    program = pack_device_side(tmp_path / "edgexfer.pyz")
    banned = tmp_path / "site"
    banned.mkdir()
    (banned / "torch.py").write_text("raise AssertionError('torch was imported')\n")

    def bench(*words: str) -> subprocess.CompletedProcess[str]:
        fast = ["--out", "out", "--processes", "1", "--samples", "50"]
        argv = [sys.executable, str(program), "bench", str(bundle), *fast, *words]
        environment = {**os.environ, "PYTHONPATH": str(banned)}
        return subprocess.run(
            argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )

    offline = ["--scenario", "offline", "--batch", "4", "--streams", "2", "--seconds", "0.02"]
    done = bench(*offline)
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "out/x86-null-fp32.json")
    assert record.throughput is not None
    assert (record.throughput.batch, record.throughput.streams) == (4, 2)
    assert f"{record.throughput.per_s:.1f} images/s" in done.stdout
    refused = bench("--scenario", "server")
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: scenario server needs a bound of latency\nfix: give --latency-bound-ms\n"
    )


@pytest.mark.parametrize(
    ("words", "seconds"),
    [([], 2.0), (["--scenario", "offline"], 60.0), (["--seconds", "0.5"], 0.5)],
)
def test_how_long_is_the_scenario_s_own_where_nobody_says(words: list[str], seconds: float) -> None:
    assert settings_from(_parser().parse_args(["bench", "bundle", *words])).seconds == seconds


def test_what_the_host_s_command_says_of_how_is_an_option_here_too() -> None:
    [own] = [a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)]
    here = {action.dest for action in own.choices["bench"]._actions}
    assert {f.name for f in dataclasses.fields(BenchSection)} <= here
