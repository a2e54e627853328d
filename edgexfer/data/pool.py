"""Threads that work ahead: results in order, errors handed on, nothing left behind."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def free_memory() -> int:
    """Return the bytes of memory that this process may still take, by kernel and control group."""
    rows = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(rows["MemAvailable"].split()[0]) * 1024
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except OSError:
        return free
    return free if limit == "max" else max(min(free, int(limit) - used), 0)


def ahead(items: Iterable[T], make: Callable[[T], R], *, workers: int, depth: int) -> Iterator[R]:
    """Yield ``make(item)`` in the order of the items, while threads already work on the next ones.

    An error in ``make`` is raised where its result would have been yielded. When the iterator is
    closed, what has not begun is dropped and what has begun is waited for.

    Args:
        items: what to work on; taken as needed.
        make: called in the threads.
        workers: how many threads.
        depth: how many results may be finished or under way before they are asked for.
    """
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="edgexfer-data") as pool:
        try:
            for item in items:
                pending.append(pool.submit(make, item))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
