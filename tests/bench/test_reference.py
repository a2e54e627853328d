from __future__ import annotations

import threading
from typing import Any

import pytest

from edgexfer.bench.reference import ReferenceKernel, usable_cpus


def test_the_kernel_runs_on_every_cpu_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = ReferenceKernel()
    # Each thread waits for the others: it returns only if all run at the same time.
    meeting = threading.Barrier(usable_cpus(), timeout=20)
    sort = kernel._sort

    def together(values: Any) -> Any:
        meeting.wait()
        return sort(values)

    monkeypatch.setattr(kernel, "_sort", together)
    assert kernel() > 0
    kernel.close()


def test_nothing_of_it_is_left() -> None:
    before = threading.active_count()
    kernel = ReferenceKernel()
    assert threading.active_count() > before
    kernel.close()
    assert threading.active_count() == before
