"""Benchmarks on a board while everything goes wrong: nothing lost, nothing left, nothing twice.

Each run benches a bundle over a real sshd through one to three faults drawn from a seed, in host
processes that may be killed; then the same command runs once more without any fault. The board's
Python notes each cell that it finished, so that one that is measured twice is seen.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgexfer.bench.lock import NAME, take_board
from edgexfer.core.record import read_record
from edgexfer.remote.bench import UNFINISHED
from tests.bundles import make_bundle
from tests.remote.conftest import Board, run_sshd, wait_for

pytestmark = pytest.mark.ssh

CELLS = 2
LIMIT_S = 120.0
_HOST = """
import sys
from pathlib import Path
from edgexfer.core.errors import EdgexferError
from edgexfer.recipe import BenchSection
from edgexfer.remote.address import Address
from edgexfer.remote.bench import How, bench_bundles
from edgexfer.remote.link import Options
from edgexfer.remote.ssh import Ssh
bundle, out, config, python, cells = sys.argv[1:]
section = BenchSection(processes=int(cells), seconds=0.01, samples=20, threads=1)
options = Options(python, command=("ssh", "-F", config), alive_s=1, patience_s=30.0)
way = lambda scratch: Ssh(Address("bench-board"), scratch, options)
try:
    bench_bundles([Path(bundle)], Path(out), How(None, section, transport=way))
except EdgexferError as error:
    sys.exit(f"{error.what}; fix: {error.fix}")
"""
# What the board's Python does before anything else: chatter, a wrong clock, and a job that will
# not end, each where a file asks for it; and a note of every cell that is done.
_SITE = """
import atexit, os, signal, subprocess, sys, time
home = os.environ.get("EDGEXFER_CACHE", "")
is_agent, is_cell = sys.argv[:1] == ["-c"], "job" in sys.argv
if os.path.exists(home + "/banner") and is_agent:
    os.write(1, b"Welcome!\\n\\xff 42 {}\\n")
if os.path.exists(home + "/clock"):
    now = time.time
    time.time = lambda: now() + 2 * 365 * 86400
def note():
    if is_cell and os.path.exists(sys.argv[-1]):
        with open(home + "/cells", "a") as cells:
            cells.write(sys.argv[-3] + "\\n")
atexit.register(note)
if os.path.exists(home + "/stubborn") and is_cell:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(home + "/stuck", "w").close()
    if os.fork() == 0:
        os.setsid()
    time.sleep(600)
"""


@dataclass
class Scene:
    """One run's board, bundle and record of what happened.

    Attributes:
        board: the board.
        python: its Python.
        bundle: what is measured.
        out: the host's folder of records.
        chance: draws the times of the faults.
        kept: samples that hosts had filed when they ended before all was done.
        completed: how many hosts got through; each measures anew what those before it finished.
        interrupts: how often a host cancelled a cell that may have been finished there.
    """

    board: Board
    python: str
    bundle: Path
    out: Path
    chance: random.Random
    kept: list[list[int]] = field(default_factory=list)
    completed: int = 0
    interrupts: int = 0
    begun_ns: int = 0

    def start(self, *, python: str = "", bundle: Path | None = None) -> subprocess.Popen[str]:
        """Start a host."""
        words = [bundle or self.bundle, self.out, self.board.config, python or self.python, CELLS]
        argv = [sys.executable, "-c", _HOST, *map(str, words)]
        self.begun_ns = time.time_ns()
        return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)

    def finish(self, host: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for a host's end; what was filed before must be in its records, or filed still."""
        stderr = host.communicate(timeout=LIMIT_S)[1]
        filed = self.out.glob(f"{UNFINISHED}/*/result-*.json")
        found = [json.loads(path.read_text())["run"]["infer_ns"] for path in filed]
        if host.returncode == 0:
            record = read_record(self.out / "x86-null-fp32.json")
            found = [list(each.infer_ns) for each in record.processes]
        assert all(samples in found for samples in self.kept), "a finished cell was lost"
        self.kept = [] if host.returncode == 0 else found
        self.completed += host.returncode == 0
        return host.returncode, stderr

    def record_ns(self) -> int:
        """Return when the record was last written, 0 where there is none."""
        place = self.out / "x86-null-fp32.json"
        return place.stat().st_mtime_ns if place.is_file() else 0

    def refused(self, words: str, **more: object) -> None:
        """Run a host that must stop with these words."""
        code, stderr = self.finish(self.start(**more))  # type: ignore[arg-type]
        assert code == 1, stderr
        assert words in stderr

    def nap(self, most_s: float) -> None:
        time.sleep(self.chance.uniform(0.0, most_s))

    def await_job(self, host: subprocess.Popen[str]) -> None:
        """Wait until a host has a job of its own there, or its end, and a little longer."""
        jobs = self.board.cache / "sessions"

        def has_job() -> bool:
            with contextlib.suppress(FileNotFoundError):
                states = jobs.glob("*/jobs/*/state.json")
                return any(state.stat().st_mtime_ns > self.begun_ns for state in states)
            return False

        wait_for(lambda: host.poll() is not None or has_job())
        self.nap(1.5)

    def while_it_runs(self, do: Callable[[], None] | None = None) -> None:
        """Do something at a random time of a job's life; the host gets through."""
        host = self.start()
        if do is not None:
            self.await_job(host)
            do()
        code, stderr = self.finish(host)
        assert code == 0, stderr


@contextlib.contextmanager
def spoilt(path: Path, text: str) -> Iterator[None]:
    """Give a file another content for a while."""
    before = path.read_text()
    path.write_text(text)
    yield
    path.write_text(before)


def r01_unknown_key(scene: Scene) -> None:
    with spoilt(scene.board.folder / "known_hosts", ""):
        scene.refused("its host key is not known here")


def r02_changed_key(scene: Scene) -> None:
    place = scene.board.folder / "known_hosts"
    name, kind, _ = place.read_text().split()
    other = (scene.board.folder / "authorized_keys").read_text().split()[1]
    with spoilt(place, f"{name} {kind} {other}\n"):
        scene.refused("its host key has changed")


def r03_not_let_in(scene: Scene) -> None:
    with spoilt(scene.board.folder / "authorized_keys", ""):
        scene.refused("is not let in")


def r04_unknown_name(scene: Scene) -> None:
    config = scene.board.config.read_text()
    with spoilt(scene.board.config, config.replace("HostName 127.0.0.1", "HostName a.invalid")):
        scene.refused("no machine of the name")


def r05_link_drops_in_upload(scene: Scene) -> None:
    scene.board.wire.cut_after = scene.chance.randrange(20_000, 1_500_000)
    scene.while_it_runs()
    scene.board.wire.cut_after = None


def r06_link_drops_in_run(scene: Scene) -> None:
    scene.while_it_runs(scene.board.wire.cut)


def r06_link_stalls(scene: Scene) -> None:
    def stall() -> None:
        scene.board.wire.stall()
        scene.nap(4.5)
        scene.board.wire.flow()

    scene.while_it_runs(stall)


def r06_host_is_killed(scene: Scene) -> None:
    before = scene.record_ns()
    host = scene.start()
    scene.nap(4.0)
    host.send_signal(signal.SIGKILL)
    code = scene.finish(host)[0]
    # It may have written its record, and died while it was putting things away.
    scene.completed += code != 0 and scene.record_ns() != before


def r07_reboot(scene: Scene) -> None:
    def reboot() -> None:
        for place in (scene.board.cache / "sessions").glob("*/jobs/*/state.json"):
            with contextlib.suppress(FileNotFoundError):
                state = json.loads(place.read_text())
                place.write_text(json.dumps({**state, "boot_id": "before"}))
        scene.board.kill()
        scene.board.wire.cut()

    scene.while_it_runs(reboot)


def r08_disk_full(scene: Scene) -> None:
    for place in (scene.board.cache / "files").glob("*"):
        place.unlink()
    small = scene.out.parent / "small-python"
    small.write_text(f'#!/bin/sh\nulimit -f 100\nexec {scene.python} "$@"\n')
    small.chmod(0o755)
    scene.refused("no room for", python=str(small))


def r09_no_python(scene: Scene) -> None:
    scene.refused("the Python that was asked for is not there", python="python9")


def r10_another_machine(scene: Scene) -> None:
    other = scene.out.parent / "other"
    if not other.exists():
        make_bundle(other, images=8, machines={"null": "riscv64"})
    scene.refused("nothing in it is for", bundle=other)


def r11_clock_is_off(scene: Scene) -> None:
    with _asked(scene, "clock"):
        scene.while_it_runs()


def r12_banner(scene: Scene) -> None:
    with _asked(scene, "banner"):
        scene.while_it_runs()


def r13_interrupt_of_what_will_not_end(scene: Scene) -> None:
    with _asked(scene, "stubborn"):
        host = scene.start()
        stuck = scene.board.home / "stuck"
        # Where all cells were done before, nothing hangs.
        wait_for(lambda: stuck.exists() or host.poll() is not None)
        if host.poll() is None:
            host.send_signal(signal.SIGINT)
        scene.interrupts += 1
        code, stderr = scene.finish(host)
        assert code in (0, 1), stderr
        stuck.unlink(missing_ok=True)
    scene.board.settle()


def r13_interrupt(scene: Scene) -> None:
    host = scene.start()
    scene.await_job(host)
    host.send_signal(signal.SIGINT)
    scene.interrupts += 1
    scene.finish(host)
    scene.board.settle()


def r14_busy(scene: Scene) -> None:
    scene.board.settle()  # a job that a killed host left behind has the board, too
    lock = take_board({"holder": "anna@desk"}, scene.board.home / "tmp" / NAME)
    scene.refused("anna@desk measures there")
    os.close(lock)


FAULTS: list[Callable[[Scene], None]] = [
    each for name, each in sorted(globals().items()) if name.startswith("r") and name[1:3].isdigit()
]


@contextlib.contextmanager
def _asked(scene: Scene, name: str) -> Iterator[None]:
    (scene.board.home / name).touch()
    yield
    (scene.board.home / name).unlink()


@pytest.fixture(scope="session")
def board_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with this one's packages that notes what it does."""
    place = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    (site,) = place.glob("lib/python*/site-packages")
    (site / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (site / "sitecustomize.py").write_text(_SITE)
    return str(place / "bin/python")


def live_through(seed: int, keys: Path, python: str, folder: Path) -> list[str]:
    """Run one seed and return the names of its faults; its promises are asserted."""
    chance = random.Random(seed)
    with run_sshd(keys, folder / "board", "bench-board") as board:
        bundle = make_bundle(folder / "bundle", images=8)
        scene = Scene(board, python, bundle, folder / "out", chance)
        faults = chance.sample(FAULTS, chance.randint(1, 3))
        for fault in faults:
            fault(scene)
        code, stderr = scene.finish(scene.start())
        assert code == 0, stderr
        _check(scene)
    return [fault.__name__ for fault in faults]


def _check(scene: Scene) -> None:
    board = scene.board
    assert [path.name for path in scene.out.iterdir()] == ["x86-null-fp32.json"]
    record = read_record(scene.out / "x86-null-fp32.json")
    assert record.status != "failed", record.reasons
    assert sorted(each.order for each in record.processes) == list(range(CELLS))
    board.settle()
    assert board.leftovers() == []
    assert board.hosts() == []
    cells = Counter((board.home / "cells").read_text().split())
    assert len(cells) == CELLS
    assert max(cells.values()) <= scene.completed + scene.interrupts, "a cell was measured twice"


@pytest.mark.parametrize("seed", [0, 1])
def test_a_benchmark_lives_through_chaos(
    seed: int, keys: Path, board_python: str, tmp_path: Path
) -> None:
    faults = live_through(seed, keys, board_python, tmp_path)
    assert faults, "no fault was drawn: nothing was lived through"


@pytest.mark.slow
def test_a_hundred_benchmarks_live_through_chaos(
    keys: Path, board_python: str, tmp_path: Path
) -> None:
    met: Counter[str] = Counter()
    for seed in range(100, 200):
        folder = tmp_path / str(seed)
        folder.mkdir()
        faults = live_through(seed, keys, board_python, folder)
        met.update(faults)
        print(seed, *faults, flush=True)
    assert set(met) == {fault.__name__ for fault in FAULTS}, "a fault was never drawn"
