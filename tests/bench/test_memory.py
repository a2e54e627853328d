from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgexfer.bench.memory import peak_pss_bytes, process_age_ns, pss_bytes

STATUS = "Name:\tpython3\nVmHWM:\t   9000 kB\nVmRSS:\t   7000 kB\n"


def _tree(root: Path, **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    for name, text in files.items():
        (root / "proc/self" / name).write_text(text)
    return root


def test_the_peak_counts_what_was_given_back_on_top_of_what_is_there(tmp_path: Path) -> None:
    rollup = "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  7000 kB\nPss:  4000 kB\n"
    root = _tree(tmp_path, smaps_rollup=rollup, status=STATUS)
    assert pss_bytes(root) == 4000 * 1024
    assert peak_pss_bytes(root) == 6000 * 1024


def test_what_the_kernel_does_not_tell_is_none(tmp_path: Path) -> None:
    root = _tree(tmp_path, status=STATUS, stat="1 (a) b) c")
    assert pss_bytes(root) is None
    assert peak_pss_bytes(root) is None
    assert process_age_ns(root) is None
    assert process_age_ns(tmp_path / "nothing") is None


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="no smaps_rollup here")
def test_memory_that_was_taken_and_freed_shows_in_the_peak_alone() -> None:
    code = (
        "from edgexfer.bench.memory import *\n"
        "before = pss_bytes(); block = b'1' * (64 << 20); held = pss_bytes(); del block\n"
        "print(held - before, pss_bytes() - before, peak_pss_bytes() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    held, after, peak = map(int, done.stdout.split())
    assert held > 60 << 20
    assert after < 8 << 20
    assert peak > 60 << 20


def test_the_age_of_a_process_starts_with_the_process(tmp_path: Path) -> None:
    age = process_age_ns()
    assert age is not None
    assert age > 0
    # A name that holds what looks like fields does not shift them.
    fields = ["S", *["1"] * 18, "0", "7"]
    root = _tree(tmp_path, stat=f"{os.getpid()} (a) 1 2) {' '.join(fields)}")
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    since_boot = process_age_ns(root)
    assert since_boot is not None
    assert abs(since_boot / 1e9 - uptime) < 60
