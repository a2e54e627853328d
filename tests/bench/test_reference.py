from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from edgexfer.bench import reference
from edgexfer.bench.cores import usable_cores, usable_cpus
from edgexfer.bench.reference import ReferenceKernel


def test_the_kernel_runs_on_every_cpu_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = ReferenceKernel()
    # Each thread waits for the others: it returns only if all run at the same time.
    meeting = threading.Barrier(usable_cores(), timeout=20)
    sort = kernel._sort

    def together(values: Any) -> Any:
        meeting.wait()
        return sort(values)

    monkeypatch.setattr(kernel, "_sort", together)
    assert kernel() > 0
    kernel.close()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system pins no threads")
def test_each_thread_stays_on_a_cpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = ReferenceKernel()
    places: set[tuple[int, ...]] = set()
    monkeypatch.setattr(kernel, "_sort", lambda _: places.add(tuple(os.sched_getaffinity(0))))
    kernel()
    kernel.close()
    assert places == {(cpu,) for cpu in sorted(usable_cpus())[: usable_cores()]}
    assert os.sched_getaffinity(0) == usable_cpus()


def _clocks(monkeypatch: pytest.MonkeyPatch, used_ns: Callable[[int], int]) -> list[float]:
    """Replace the clocks; ``used_ns`` says what the process uses in each look of 10 ms."""
    sleeps: list[float] = []
    monkeypatch.setattr(reference, "now_ns", lambda: 10_000_000 * len(sleeps))
    monkeypatch.setattr(time, "sleep", sleeps.append)
    monkeypatch.setattr(time, "process_time_ns", lambda: sum(map(used_ns, range(len(sleeps)))))
    return sleeps


def test_it_waits_for_threads_that_still_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = _clocks(monkeypatch, lambda look: 9_000_000 if look < 5 else 1_000_000)
    reference.settle()
    assert len(looks) == 6


def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = _clocks(monkeypatch, lambda _: 9_000_000)
    reference.settle()
    assert len(looks) == 20


def test_nothing_of_it_is_left() -> None:
    before = threading.active_count()
    kernel = ReferenceKernel()
    assert threading.active_count() > before
    kernel.close()
    assert threading.active_count() == before
