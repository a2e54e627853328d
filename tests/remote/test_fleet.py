"""Several machines side by side into one folder; what is broken off goes on where it stopped."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import edgexfer
from edgexfer.cli import run
from edgexfer.core.bundle import verify_files
from edgexfer.core.errors import InputError, RunError
from edgexfer.core.record import read_record
from edgexfer.export.measure import BRIEF
from edgexfer.profiles import check_profile
from edgexfer.recipe import BenchSection, ExportSection
from edgexfer.remote import fleet
from edgexfer.remote.address import Address
from edgexfer.remote.bench import UNFINISHED, How
from edgexfer.remote.fleet import Fleet, bench_on
from tests.bundles import make_bundle
from tests.export.digits import digits_run
from tests.remote.conftest import Board, run_sshd, wait_for

pytestmark = pytest.mark.ssh

FAST = ["--processes", "2", "--seconds", "0.01", "--samples", "20", "--threads", "1"]
# A chip that nothing here says to be this machine.
PROFILE = """\
name: my-board
title: A board of mine
backend: onnxruntime
device: CPU
machine: {machine}
seen_on_hardware: false
precisions: [int8, fp32]
facts:
  cores: {{value: 4, kind: datasheet, source: a product page}}
"""
ONCE = BenchSection(processes=1, seconds=0.01, samples=20, threads=1)


@pytest.fixture
def on_path(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """The board as the command line reaches it, by the user's own ssh."""
    folder = board.command(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return board


def test_a_bundle_is_benched_and_verified_on_a_board(
    on_path: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    out = tmp_path / "out"
    assert run(["bench", str(bundle), "--on", "ssh:bench-board", "--out", str(out), *FAST]) == 0
    record = read_record(out / "x86-null-fp32.json")
    assert record.status != "failed", record.reasons
    assert record.device["on"] == "ssh:bench-board"
    assert len(record.processes) == 2
    assert [path.name for path in out.iterdir()] == ["x86-null-fp32.json"]
    capsys.readouterr()
    assert run(["verify", str(bundle), "--on", "ssh:bench-board"]) == 0
    assert "golden outputs: equal to the bit" in capsys.readouterr().out
    assert on_path.leftovers() == []


def test_the_api_reaches_a_board_as_the_verbs_do(
    on_path: Board, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    out = tmp_path / "out"
    [record] = edgexfer.bench(bundle, out, section=ONCE, on="ssh:bench-board")
    assert record.device["on"] == "ssh:bench-board"
    assert {f.status for f in edgexfer.verify(bundle, on="ssh:bench-board")} == {"ok"}
    with pytest.raises(InputError, match="names several machines"):
        edgexfer.verify(bundle, on="ssh:bench-board,local")
    run_folder = digits_run(tmp_path_factory.getbasetemp())
    chosen = ExportSection(("rpi5",), precision="int8")
    with pytest.raises(InputError, match="nothing is to be measured on ssh:bench-board"):
        edgexfer.export(run_folder, chosen, tmp_path / "new", on="ssh:bench-board")
    assert on_path.leftovers() == []


def test_a_fleet_fills_one_folder_and_a_board_that_is_off_is_a_row(
    on_path: Board, keys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    out = tmp_path / "out"
    with run_sshd(keys, tmp_path / "second", "second-board") as second:
        with on_path.config.open("a") as config:
            config.write(second.config.read_text())
        machines = "ssh:bench-board,local,ssh:second-board,ssh:nowhere.invalid"
        code = run(["bench", str(bundle), "--on", machines, "--out", str(out), "--json", *FAST])
        second.settle()
        assert second.leftovers() == []
    assert code == 0
    names = ["bench-board", "local", "nowhere.invalid", "second-board"]
    assert sorted(p.name for p in out.iterdir()) == [f"x86-null-fp32@{n}.json" for n in names]
    records = {p.stem.partition("@")[2]: read_record(p) for p in out.iterdir()}
    assert records["nowhere.invalid"].status == "failed"
    assert (
        "no machine of the name nowhere.invalid is known" in (records["nowhere.invalid"].reasons[0])
    )
    for name in ("bench-board", "second-board"):
        assert records[name].status != "failed", records[name].reasons
        assert records[name].device["on"] == f"ssh:{name}"


def test_a_folder_that_another_benchmark_writes_to_gets_no_failed_records(tmp_path: Path) -> None:
    bundle, out = make_bundle(tmp_path / "bundle"), tmp_path / "out"
    taken = out / UNFINISHED / "local"
    taken.mkdir(parents=True)
    handle = os.open(taken, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    two = Fleet((Address(), Address("nowhere.invalid")))
    try:
        with pytest.raises(RunError, match="another benchmark writes its records there"):
            bench_on([bundle], out, How(None, ONCE), two)
    finally:
        os.close(handle)
    assert not list(out.glob("*@local.json"))


def test_what_breaks_here_stops_the_work_on_the_boards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = Fleet((Address(), Address("board")))
    stopped = []

    def bench_one(*args: object) -> list[Path]:
        if args[3] == Address():
            raise ZeroDivisionError
        stopped.append(two.options.stop.wait(30))
        return []

    monkeypatch.setattr(fleet, "_bench_one", bench_one)
    with pytest.raises(ZeroDivisionError):
        bench_on([make_bundle(tmp_path / "bundle")], tmp_path / "out", How(None, ONCE), two)
    assert stopped == [True]


@pytest.mark.slow
def test_finished_cells_are_not_measured_again(board: Board, tmp_path: Path) -> None:
    """The host is killed in the midst of it; the same command measures what is left alone."""
    bundle = make_bundle(tmp_path / "bundle")
    out = tmp_path / "out"
    script = (
        "import sys; from pathlib import Path; from edgexfer.recipe import BenchSection\n"
        "from edgexfer.remote.address import Address\n"
        "from edgexfer.remote.bench import How, bench_bundles\n"
        "from edgexfer.remote.link import Options; from edgexfer.remote.ssh import Ssh\n"
        "bundle, out, config = sys.argv[1:]\n"
        "section = BenchSection(processes=4, seconds=0.01, samples=20, threads=1)\n"
        "options = Options(command=('ssh', '-F', config))\n"
        "way = lambda scratch: Ssh(Address('bench-board'), scratch, options)\n"
        "bench_bundles([Path(bundle)], Path(out), How(None, section, transport=way))\n"
    )
    argv = [sys.executable, "-c", script, str(bundle), str(out), str(board.config)]
    host = subprocess.Popen(argv)
    results = out / UNFINISHED / "here"
    wait_for(lambda: len(list(results.glob("result-*.json"))) >= 2)
    host.send_signal(signal.SIGKILL)
    host.wait()
    kept = {p.name: json.loads(p.read_text())["run"]["infer_ns"] for p in results.glob("result-*")}
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    record = read_record(out / "x86-null-fp32.json")
    measured = [list(each.infer_ns) for each in record.processes]
    assert len(measured) == 4
    assert all(samples in measured for samples in kept.values())
    assert [path.name for path in out.iterdir()] == ["x86-null-fp32.json"]
    assert board.leftovers() == []


def test_a_board_is_probed(
    on_path: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["profiles", "probe", "--backend", "null", "--name", "my-board"]
    assert run([*argv, "--on", "ssh:bench-board"]) == 0
    place = tmp_path / "my-board.yaml"
    place.write_text(capsys.readouterr().out)
    assert check_profile(place).name == "my-board"
    assert on_path.leftovers() == []
    assert run([*argv, "--on", "ssh:bench-board,local"]) == 2
    assert "names several machines" in capsys.readouterr().err


@pytest.mark.ort
def test_a_precision_is_chosen_on_the_board_that_is_the_target(
    on_path: Board,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    brief = replace(BRIEF, processes=1, seconds=0.05)
    monkeypatch.setattr("edgexfer.export.measure.BRIEF", brief)
    place = tmp_path / "my-board.yaml"
    place.write_text(PROFILE.format(machine=platform.machine()))
    foreign = {"x86_64": "rpi5-onnxruntime", "aarch64": "x86-onnxruntime"}[platform.machine()]
    out = tmp_path / "bundle"
    argv = ["export", str(digits_run(tmp_path_factory.getbasetemp())), "--out", str(out)]
    argv += ["--target", f"{place},{foreign}", "--on", "ssh:bench-board", "--max-drop", "20"]
    argv += ["--remote-python", sys.executable]
    assert run([*argv, "--evaluation-images", "60", "--calibration-images", "60"]) == 0
    chosen, still_open = verify_files(out).choices
    assert chosen.chosen in ("fp32", "int8")
    assert " on ssh:bench-board for resnet8" in chosen.verdict
    assert chosen.measured_on is not None
    assert chosen.measured_on.endswith(" at ssh:bench-board")
    assert [len(candidate.medians_ns) for candidate in chosen.candidates] == [1, 1]
    assert still_open.chosen is None
    assert still_open.measured_on is None
    machine = {"rpi5-onnxruntime": "aarch64", "x86-onnxruntime": "x86_64"}[foreign]
    assert still_open.verdict == (
        f"not measured on ssh:bench-board (it is for {machine}, the board is "
        f"{platform.machine()}): INT8 and FP32 stay, a bench on the device decides"
    )
    assert f"my-board: {chosen.verdict}" in capsys.readouterr().out
    assert on_path.leftovers() == []
