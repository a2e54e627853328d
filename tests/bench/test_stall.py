"""What hangs ends, and what is left alone ends too; each in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HANG = """
import ctypes
from edgexfer.bench.stall import ending_after
with ending_after(0.2):
    ctypes.PyDLL(None).sleep(60)  # the interpreter's lock is held
"""
PARENT = """
import subprocess, sys, time
code = ("from edgexfer.bench.stall import die_with_parent; import time; die_with_parent();"
        "print('up', flush=True); time.sleep(60)")
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_runtime_that_hangs_with_the_lock_held_ends_with_its_stacks() -> None:
    done = subprocess.run([sys.executable, "-c", HANG], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "Timeout (0:00:00.200000)!" in done.stderr


def test_what_ends_in_time_is_left_alone() -> None:
    code = HANG.replace("sleep(60)", "usleep(10)") + "\nimport time; time.sleep(0.4); print('on')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, "on\n")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a child")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_child_dies_with_its_parent(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(number)
        parent.wait()
        for _ in range(100):
            if not _lives(child):
                return
            time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child outlived its parent")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
