"""Clocks are changed on the files and tools of boards that are not here."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgexfer.bench.clocks import (
    Wanted,
    changed_clocks,
    fastest,
    restore_left_over,
    state_file,
)
from edgexfer.bench.job import Job
from edgexfer.bench.run import run_job
from edgexfer.core.errors import InputError, MachineError
from edgexfer.recipe import BenchSection
from edgexfer.remote.bench import How, settings_of
from tests.bench.unfold import lay_out, unfold

GOVERNOR = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
# A power mode in a file, pinned clocks in another, and a log of what was asked.
TOOLS = """
=x usr/sbin/nvpmodel
#!/bin/sh
case "$1" in
-q) sed -n "s/^$(cat {0}/mode) /NV Power Mode: /p" {0}/modes ;;
-m) echo "nvpmodel $*" >> {0}/log; [ "$2" = 2 ] && exit 0; echo "$2" > {0}/mode ;;
esac
=x usr/bin/jetson_clocks
#!/bin/sh
echo "jetson_clocks $1" >> {0}/log
case "$1" in
--store) [ -e "$2" ] && read answer; echo stored > "$2" ;;
--restore) [ -f "$2" ] ;;
esac
== mode
1
== modes
0 15W
1 25W
2 MAXN_SUPER
"""


@pytest.fixture
def board(tmp_path: Path) -> Path:
    root = unfold("jetson-orin-nano-jp6", tmp_path / "board")
    (root / "log").touch()
    (root / "usr/bin/sudo").parent.mkdir(parents=True, exist_ok=True)
    lay_out('=x usr/bin/sudo\n#!/bin/sh\n[ "$1" = -n ] && shift && exec "$@"', root)
    return lay_out(TOOLS.strip().format(root), root)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "cache/clocks.json"


def read(root: Path, name: str) -> str:
    return (root / name).read_text().strip()


def test_all_is_set_for_the_time_of_the_block_alone(board: Path, state: Path) -> None:
    with changed_clocks(Wanted("performance", "15W", pinned=True), board, state):
        assert read(board, GOVERNOR) == "performance"
        assert read(board, "mode") == "0"
        assert state.is_file()
    assert (read(board, GOVERNOR), read(board, "mode")) == ("schedutil", "1")
    assert read(board, "log").splitlines() == [
        "nvpmodel -m 0",
        "jetson_clocks --store",
        "jetson_clocks ",
        "jetson_clocks --restore",
        "nvpmodel -m 1",
    ]
    assert list(state.parent.iterdir()) == []


def test_an_error_in_the_block_puts_back_too(board: Path, state: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="bench"),
        changed_clocks(Wanted("performance"), board, state),
    ):
        raise RuntimeError("bench")
    assert read(board, GOVERNOR) == "schedutil"
    assert not state.exists()


def test_what_is_as_wanted_is_left_alone(board: Path, state: Path) -> None:
    with changed_clocks(Wanted("schedutil", "25W"), board, state):
        pass
    assert read(board, "log") == ""


CHILD = """
import os, sys
from pathlib import Path
from edgexfer.bench.clocks import Wanted, changed_clocks
with changed_clocks(Wanted("performance", "15W"), Path(sys.argv[1]), Path(sys.argv[2])):
    print("changed", flush=True)
    sys.stdin.read()
"""


def test_a_kill_is_mended_by_the_next_start(board: Path, state: Path) -> None:
    """The board's /proc is this machine's, so that it knows which process is alive."""
    (board / "proc").rename(board / "proc-of-the-board")
    (board / "proc").symlink_to("/proc")
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(board), str(state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"changed\n"
        with pytest.raises(MachineError, match=f"process {child.pid} has changed") as caught:
            restore_left_over(board, state)
        assert caught.value.fix == "wait until it has ended"
        child.send_signal(signal.SIGKILL)
    assert read(board, GOVERNOR) == "performance"
    assert restore_left_over(board, state)
    assert (read(board, GOVERNOR), read(board, "mode")) == ("schedutil", "1")
    assert not restore_left_over(board, state)


def test_the_fastest_clocks_are_those_that_a_machine_has(board: Path, tmp_path: Path) -> None:
    lay_out(
        f"== {GOVERNOR.replace('governor', 'available_governors')}\nschedutil performance", board
    )
    assert fastest("25W", board) == Wanted("performance", "25W", pinned=True)
    assert fastest(root=unfold("container", tmp_path / "other")) == Wanted()


def test_a_job_that_may_not_be_done_as_asked_fails_and_says_why(
    make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = run_job(make_job(allow_clock_changes=True, power_mode="no-such-mode"))
    assert done.failure is not None
    assert done.failure.what == "this machine has no power mode 'no-such-mode'"
    assert not state_file().exists()


def test_a_power_mode_needs_leave() -> None:
    section = BenchSection(power_mode="25W")
    with pytest.raises(InputError, match="power mode 25W would have to be set") as caught:
        settings_of(How(None, section))
    assert caught.value.fix == "add --allow-clock-changes"
    allowed = settings_of(How(None, BenchSection(allow_clock_changes=True, power_mode="25W")))
    assert (allowed.allow_clock_changes, allowed.power_mode) == (True, "25W")


@pytest.mark.parametrize(
    ("wanted", "what", "fix"),
    [
        (Wanted(power_mode="25"), "no power mode '25'", "did you mean '25W'"),
        (Wanted("fast"), "no governor 'fast'", "known: performance, schedutil"),
    ],
)
def test_what_the_machine_does_not_have(
    board: Path, state: Path, wanted: Wanted, what: str, fix: str
) -> None:
    lay_out(
        f"== {GOVERNOR.replace('governor', 'available_governors')}\nperformance schedutil", board
    )
    with pytest.raises(InputError, match=what) as caught, changed_clocks(wanted, board, state):
        pass
    assert fix in caught.value.fix
    assert not state.exists()


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        (Wanted("performance"), "this machine has no governor to set"),
        (Wanted(power_mode="MAXN"), "this machine has no power mode 'MAXN'"),
        (Wanted(pinned=True), "there is no jetson_clocks here"),
    ],
)
def test_a_container_has_nothing_to_set(
    tmp_path: Path, state: Path, wanted: Wanted, what: str
) -> None:
    root = unfold("container", tmp_path)
    with pytest.raises(InputError, match=what), changed_clocks(wanted, root, state):
        pass


def test_a_mode_that_wants_a_reboot_is_refused_and_the_rest_put_back(
    board: Path, state: Path
) -> None:
    with (
        pytest.raises(MachineError, match="the power mode is 25W, not MAXN_SUPER") as caught,
        changed_clocks(Wanted("performance", "MAXN_SUPER"), board, state),
    ):
        pass
    assert caught.value.fix == "sudo nvpmodel -m 2"
    assert read(board, GOVERNOR) == "schedutil"
    assert not state.exists()


def test_what_cannot_be_put_back_stays_noted(board: Path, state: Path) -> None:
    with (
        pytest.raises(MachineError, match=r"clocks were not put back: .*jetson_clocks --restore"),
        changed_clocks(Wanted(pinned=True), board, state),
    ):
        lay_out("=x usr/bin/jetson_clocks\n#!/bin/sh\necho no; exit 1", board)
    assert state.is_file()


def test_a_damaged_state_is_not_guessed_at(board: Path, state: Path) -> None:
    state.parent.mkdir()
    state.write_text('{"schema": "x"}')
    with pytest.raises(MachineError) as caught:
        restore_left_over(board, state)
    assert caught.value.fix == f"check the clocks, then rm {state}"
    assert state.exists()


def test_the_state_is_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert state_file() == Path("/somewhere/edgexfer/clocks.json")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert state_file() == Path.home() / ".cache/edgexfer/clocks.json"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert state_file().name == "clocks.json"
