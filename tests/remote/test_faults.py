"""The faults of a board and its link, each with what must come of it; over a real sshd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgexfer.bench.lock import NAME, take_board
from edgexfer.core.errors import BackendError, DiskError, InputError, MachineError
from edgexfer.core.files import fingerprint, sha256_file, write_atomic
from edgexfer.core.record import read_record
from edgexfer.recipe import BenchSection
from edgexfer.remote.bench import How, bench_bundles
from edgexfer.remote.ssh import Ssh
from tests.bundles import make_bundle
from tests.remote.conftest import Board, wait_for

pytestmark = pytest.mark.ssh

ONCE = BenchSection(processes=1, seconds=0.01, samples=20, threads=1)
# Leaves a grandchild in a session of its own, and both ignore a polite end.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import signal, time;"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"], start_new_session=True)
time.sleep(600)
"""


@contextmanager
def closing(way: Ssh) -> Iterator[Ssh]:
    try:
        yield way
    finally:
        way.close()


def states(board: Board) -> list[Path]:
    return list((board.cache / "sessions").glob("*/jobs/*/state.json"))


# R1 to R4: what keeps a connection from standing at all.


def test_an_unknown_host_key_is_named_with_the_command_to_pin_it(
    board: Board, keys: Path, tmp_path: Path
) -> None:
    (board.folder / "known_hosts").write_text("")
    with pytest.raises(InputError, match="its host key is not known here") as caught:
        board.reach(tmp_path / "s").push(tmp_path)
    line = subprocess.run(
        ["ssh-keygen", "-lf", str(keys / "host_key.pub")], capture_output=True, text=True
    ).stdout
    assert line.split()[1] in caught.value.what
    assert "ssh -o StrictHostKeyChecking=ask bench-board true" in caught.value.fix
    assert (board.folder / "known_hosts").read_text() == ""


def test_a_changed_host_key_stops_with_both_fingerprints(
    board: Board, keys: Path, tmp_path: Path
) -> None:
    known = board.folder / "known_hosts"
    before = known.read_text()
    other = (keys / "user_key.pub").read_text().split()[1]
    known.write_text(before.replace(before.split()[2], other))
    spoilt = known.read_text()
    with pytest.raises(InputError, match="its host key has changed") as caught:
        board.reach(tmp_path / "s").push(tmp_path)
    for name in ("host_key", "user_key"):
        line = subprocess.run(
            ["ssh-keygen", "-lf", str(keys / f"{name}.pub")], capture_output=True, text=True
        ).stdout
        assert line.split()[1] in caught.value.what
    assert "ssh-keygen -R" in caught.value.fix
    assert str(known) in caught.value.fix
    assert known.read_text() == spoilt


def test_who_is_not_let_in_is_named_with_the_methods_tried(board: Board, tmp_path: Path) -> None:
    (board.folder / "authorized_keys").write_text("")
    with pytest.raises(MachineError, match=r"\w+@127\.0\.0\.1 is not let in \(tried: ") as caught:
        board.reach(tmp_path / "s").push(tmp_path)
    assert "ssh-copy-id bench-board" in caught.value.fix


def test_a_name_that_nobody_knows(board: Board, tmp_path: Path) -> None:
    config = board.config.read_text().replace("HostName 127.0.0.1", "HostName nowhere.invalid")
    board.config.write_text(config)
    with pytest.raises(InputError, match="no machine of the name bench-board is known") as caught:
        board.reach(tmp_path / "s").push(tmp_path)
    assert "~/.ssh/config" in caught.value.fix


def test_a_board_that_is_off_is_no_wait(board: Board, tmp_path: Path) -> None:
    board.wire.close()
    with (
        pytest.raises(MachineError, match=r"no connection \(.*[Rr]efused") as caught,
        closing(board.reach(tmp_path / "s")) as way,
    ):
        way.push(tmp_path)
    assert "ssh bench-board true" in caught.value.fix
    assert not (tmp_path / "s" / "session").exists()


# R5 to R8: uploads, runs, reboots, disks.


def test_an_upload_goes_on_where_the_link_broke(board: Board, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(os.urandom(12 << 20))
    with closing(board.reach(tmp_path / "s")) as way:
        way.scratch("x")
        board.wire.cut_after = 7 << 20
        there = Path(way.push(file))
        assert there.read_bytes() == file.read_bytes()
    assert board.wire.connections == 2
    assert board.wire.carried < (12 + 4) << 20
    assert board.leftovers() == []


@pytest.mark.parametrize("how", ["cut", pytest.param("stall", marks=pytest.mark.slow)])
def test_a_job_outlives_its_link(board: Board, tmp_path: Path, how: str) -> None:
    mark = tmp_path / "runs"
    script = f"import time; open({str(mark)!r}, 'a').write('x'); time.sleep(1); print('done')"
    with closing(board.reach(tmp_path / "s")) as way:
        breaker = threading.Thread(target=_break, args=(board, how))
        breaker.start()
        done = way.run([*way.python, "-c", script], timeout_s=30)
        breaker.join()
    assert (done.code, done.stdout) == (0, "done\n")
    assert mark.read_text() == "x"
    assert board.wire.connections >= 2
    assert board.leftovers() == []


def _break(board: Board, how: str) -> None:
    wait_for(lambda: states(board))
    if how == "cut":
        board.wire.cut()
        return
    board.wire.stall()
    time.sleep(4.0)  # more than three signs of life
    board.wire.flow()


def test_what_a_killed_host_began_is_collected_by_the_next(board: Board, tmp_path: Path) -> None:
    mark = tmp_path / "runs"
    script = f"import time; open({str(mark)!r}, 'a').write('x'); time.sleep(1); print('late')"
    argv = [sys.executable, "-c", script]
    first = board.reach(tmp_path / "s")
    host = threading.Thread(target=_start_and_die, args=(first, argv))
    host.start()
    host.join()
    wait_for(lambda: not any("time.sleep(1)" in each for each in board.processes()))
    with closing(board.reach(tmp_path / "s")) as way:
        assert way.run(argv, timeout_s=30).stdout == "late\n"
    assert mark.read_text() == "x"
    assert board.leftovers() == []


def _start_and_die(way: Ssh, argv: list[str]) -> None:
    """Ask for a job and be gone, as a host whose power fails."""
    way.scratch("x")
    ask = way._ask
    job = {"ask": "start", "id": _id(argv), "argv": argv, "limit_s": 30, "again": False}
    ask(job)
    way._drop()


def _id(argv: list[str]) -> str:
    return fingerprint([*argv, 30])[:32]


@pytest.mark.parametrize("reboots", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_reboot_costs_one_cell_at_most(board: Board, tmp_path: Path, reboots: int) -> None:
    # What is to be killed twice must not be done before a busy machine comes to it.
    script = f"import time; time.sleep({1.5 if reboots == 1 else 15}); print('done')"
    with closing(board.reach(tmp_path / "s")) as way:
        power = threading.Thread(target=_reboot, args=(board, reboots))
        power.start()
        done = way.run([*way.python, "-c", script], timeout_s=30)
        power.join()
        if reboots == 1:
            assert (done.code, done.stdout) == (0, "done\n")
        else:
            assert done.reason == "the board rebooted while it ran, twice"
        # The next cell is measured as if nothing had been.
        assert way.run([*way.python, "-c", "print(2)"], timeout_s=30).stdout == "2\n"
    assert board.leftovers() == []


def _runs(place: Path) -> bool:
    """Whether a job has its process, and no reboot behind it."""
    state = json.loads(place.read_text())
    return bool(state.get("child")) and state["boot_id"] != "the boot before"


def _reboot(board: Board, times: int) -> None:
    """Do what a reboot does to a job: all its processes end, and the boot has another name."""
    for _ in range(times):
        wait_for(lambda: any(_runs(place) for place in states(board)))
        (place,) = states(board)
        state = json.loads(place.read_text())
        state["boot_id"] = "the boot before"
        write_atomic(place, json.dumps(state))  # who looks meanwhile sees one or the other
        os.kill(state["runner"], signal.SIGKILL)
        os.killpg(state["child"]["pid"], signal.SIGKILL)
        board.wire.cut()


def test_a_full_disk_is_told_before_anything_is_sent(
    board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "large"
    with file.open("wb") as stream:
        stream.truncate(1 << 43)  # of nothing, but who hashes it would take hours
    monkeypatch.setattr("edgexfer.remote.ssh.sha256_file", _pretend)
    with (
        pytest.raises(DiskError, match=r"no room for 87\d+ bytes there, \d+ are free") as caught,
        closing(board.reach(tmp_path / "s")) as way,
    ):
        way.push(file)
    assert "free some space on the board" in caught.value.fix
    assert board.leftovers() == []


def _pretend(path: Path) -> str:
    return "a" * 64 if path.name == "large" else sha256_file(path)


def test_a_disk_that_fills_up_meanwhile_leaves_no_piece(board: Board, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(os.urandom(6 << 20))
    # Its 512-byte blocks are those of the shell.
    limited = write_python(tmp_path / "limited", f'ulimit -f 8192\nexec {sys.executable} "$@"')
    with (
        pytest.raises(DiskError, match="no room for"),
        closing(board.reach(tmp_path / "s", python=limited)) as way,
    ):
        way.push(file)
    assert board.leftovers() == []


# R9, R10: what the board is.


def test_no_python_there(board: Board, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="the Python that was asked for is not there") as caught:
        board.reach(tmp_path / "s", python="python9").push(tmp_path)
    assert "apt-get install python3" in caught.value.fix


def test_an_old_python_there(board: Board, tmp_path: Path) -> None:
    fake = "import sys; sys.version_info = (3, 6, 9); exec(sys.argv[1])"
    old = write_python(tmp_path / "old", f'exec {sys.executable} -c "{fake}" "$3"')
    with pytest.raises(BackendError, match=r"Python 3\.6 is too old") as caught:
        board.reach(tmp_path / "s", python=old).push(tmp_path)
    assert "--remote-python" in caught.value.fix


def test_another_kind_of_machine_gets_no_bundle(board: Board, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", machines={"null": "riscv64"})
    with pytest.raises(BackendError, match="riscv64"):
        bench_bundles([bundle], tmp_path / "out", _on(board))
    assert list((board.cache / "trees").iterdir()) == []
    assert not (tmp_path / "out").exists()


@pytest.mark.ort
def test_a_runtime_that_is_missing_there_is_named(board: Board, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "v")], check=True)
    bundle = make_bundle(tmp_path / "bundle", ["onnxruntime-fp32"])
    how = _on(board, python=str(tmp_path / "v/bin/python"))
    (path,) = bench_bundles([bundle], tmp_path / "out", how)
    record = read_record(path)
    assert record.status == "failed"
    assert "numpy cannot be imported" in record.reasons[0]
    assert "fix: pip install numpy" in record.reasons[0]


# R11, R12: clocks and chatter.


def test_a_clock_years_off_is_recorded_and_changes_nothing(board: Board, tmp_path: Path) -> None:
    ahead_s = 2 * 365 * 86400
    (tmp_path / "sitecustomize.py").write_text(
        f"import time\nnow = time.time\ntime.time = lambda: now() + {ahead_s}\n"
    )
    # Without the -E that would keep it from starting in this site.
    late = write_python(
        tmp_path / "late", f'shift\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"'
    )
    with closing(board.reach(tmp_path / "s", python=late)) as way:
        assert way.run([sys.executable, "-c", "print(1)"], timeout_s=30).stdout == "1\n"
        assert way.facts["on"] == "ssh:bench-board"
        assert way.facts["clock_skew_s"] == pytest.approx(ahead_s, abs=60)


def test_a_banner_on_stdout_is_read_over(board: Board, tmp_path: Path) -> None:
    banner = "printf 'Welcome!\\n\\377\\000 42 {}\\n'"
    chatty = write_python(tmp_path / "chatty", f'{banner}\nexec {sys.executable} "$@"')
    with closing(board.reach(tmp_path / "s", python=chatty)) as way:
        assert way.run([sys.executable, "-c", "print(1)"], timeout_s=30).stdout == "1\n"


def test_nothing_but_chatter_stops_with_its_first_words(board: Board, tmp_path: Path) -> None:
    shell = write_python(tmp_path / "none", "echo This account is not available. " + "x" * 200)
    with pytest.raises(BackendError, match="answers 'This account is not available") as caught:
        board.reach(tmp_path / "s", python=shell).push(tmp_path)
    assert len(caught.value.what) < 200


def write_python(place: Path, script: str) -> str:
    """Write what a board takes for its Python."""
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(0o755)
    return str(place)


# R13, R14: ends and locks.


def test_what_ignores_its_end_is_killed_with_all_its_children(board: Board, tmp_path: Path) -> None:
    with closing(board.reach(tmp_path / "s")) as way:
        done = way.run([*way.python, "-c", STUBBORN], timeout_s=0.5)
        assert done.code is None
        assert not [each for each in board.processes() if "600" in each]
    assert board.leftovers() == []


def test_an_interrupt_ends_what_runs_there(board: Board, tmp_path: Path) -> None:
    way = board.reach(tmp_path / "s")

    def interrupt() -> None:
        wait_for(lambda: len([each for each in board.processes() if "600" in each]) >= 2)
        way._options.stop.set()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt), closing(way):
        way.run([*way.python, "-c", STUBBORN], timeout_s=60)
    thread.join()
    assert not [each for each in board.processes() if "600" in each]
    assert board.leftovers() == []
    assert not (tmp_path / "s" / "session").exists()


def test_a_board_that_is_taken_says_by_whom(board: Board, tmp_path: Path) -> None:
    note = {"holder": "anna@desk (process 7)"}
    lock = take_board(note, board.home / "tmp" / NAME)
    with (
        pytest.raises(
            MachineError, match=r"anna@desk \(process 7\) measures there since"
        ) as caught,
        closing(board.reach(tmp_path / "s")) as way,
    ):
        way.run([*way.python, "-c", "1"], timeout_s=30)
    assert caught.value.fix == "wait for it with --wait"
    os.close(lock)


def test_waiting_for_a_board(board: Board, tmp_path: Path) -> None:
    lock = take_board({"holder": "anna@desk"}, board.home / "tmp" / NAME)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        os.close(lock)  # anna is done

    (tmp_path / "s").mkdir()
    with closing(Ssh(board.address, tmp_path / "s", board.options(wait=True), say)) as way:
        assert way.run([*way.python, "-c", "print(1)"], timeout_s=30).stdout == "1\n"
    assert said == ["ssh:bench-board: waiting; anna@desk measures there since 0 min"]


def _on(board: Board, **more: object) -> How:
    return How(None, ONCE, transport=lambda scratch: board.reach(scratch, **more))
