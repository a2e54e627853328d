"""The only clock of the package: warm-up, the timed loop, and the stages around it.

Times are integers in nanoseconds of a monotonic clock. Nothing is averaged here, and a long run is
thinned evenly or not at all; whether a series was steady is judged in ``steady``. numpy is not
imported here, so that a job can time that import too.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import Any, Callable, List, Optional, Sequence, Tuple, TypeVar

from edgexfer.bench.steady import WINDOW, windows_agree
from edgexfer.core.samples import Reference

T = TypeVar("T")
WINDOW_NS = 50_000_000
WINDOW_MOST = 2_000
MOST_SAMPLES = 10_000
THINNED_TO = 50_000
CHECKED = 64
STAGE_SAMPLES = 200
BLOCK_NS = 100_000_000
# Calls after a pause that are not timed: what ran in it has had the caches and woken the threads.
_UNTIMED = 2
_AWAKE_NS = 1_000_000
_now = time.perf_counter_ns


@dataclass(frozen=True)
class Limits:
    """How long the timed part lasts.

    Attributes:
        samples: least number of inferences.
        seconds: least time.
        pace_ns: how long one takes about, by which the outputs that are kept are spread.
        most: a model so fast that it reaches so many inferences earlier ends there, so that a
            record stays of a size that can be kept whole; ``None`` measures all the time, and keeps
            every n-th sample of a series that grows too long.
    """

    samples: int
    seconds: float
    pace_ns: float = 0.0
    most: Optional[int] = MOST_SAMPLES

    @property
    def expected(self) -> int:
        """About how many samples there will be."""
        count = int(self.seconds * 1e9 / self.pace_ns) if self.pace_ns else 0
        return max(self.samples, count if self.most is None else min(count, self.most))


@dataclass
class Series:
    """What the timed loop gives.

    Attributes:
        infer_ns: latencies, in their order.
        issued_ns: when each of them began, from the start of the loop.
        every: n where every n-th sample is in both; 1 for all.
        references: the reference kernel, timed between blocks of samples.
        kept: up to 64 outputs, each with the index of its input, drawn evenly from all calls.
    """

    infer_ns: List[int] = field(default_factory=list)
    issued_ns: List[int] = field(default_factory=list)
    every: int = 1
    references: List[Reference] = field(default_factory=list)
    kept: List[Tuple[int, Any]] = field(default_factory=list)

    def add(self, count: int, issued: int, spent: int) -> None:
        """Add sample number ``count``; a series that grows too long loses every other one."""
        if count % self.every:
            return
        self.infer_ns.append(spent)
        self.issued_ns.append(issued)
        if len(self.infer_ns) >= 2 * THINNED_TO:
            del self.infer_ns[1::2], self.issued_ns[1::2]
            self.every *= 2


class Reservoir:
    """Keeps up to 64 of a stream of items, each with the same chance (Vitter 1985).

    A call whose predecessor's output is kept has to find new memory for its own and is slower. So
    that these calls do not all come first, items are passed over by chance where many are expected.
    """

    def __init__(self, seed: int, expected: int) -> None:
        """Begin empty; about so many items are ``expected``."""
        self._chance = random.Random(seed)
        self._share = min(1.0, 4 * CHECKED / max(expected, 1))
        self._seen = 0
        self.kept: List[Any] = []

    def offer(self, item: Any) -> None:
        """Keep an item, or let it go."""
        if self._chance.random() >= self._share:
            return
        seen, self._seen = self._seen, self._seen + 1
        place = seen if seen < CHECKED else self._chance.randrange(seen + 1)
        if place < CHECKED:
            self.kept[place : place + 1] = [item]


def timed(work: Callable[[], T]) -> Tuple[T, int]:
    """Return what ``work`` returns and how long it took, in nanoseconds."""
    start = _now()
    result = work()
    return result, _now() - start


def now_ns() -> int:
    """Read the clock."""
    return _now()


def wait_until(due_ns: int, alone: bool) -> None:
    """Return when the clock shows ``due_ns``: asleep until shortly before it, then awake.

    A thread that is not ``alone`` sleeps all the time: awake, it would take a core and the
    interpreter's lock from the calls of the others. It wakes some 0.1 ms late for that.
    """
    awake_ns = _AWAKE_NS if alone else 0
    left = due_ns - _now()
    if left > awake_ns:
        time.sleep((left - awake_ns) / 1e9)
    while _now() < due_ns:
        pass


def warm_up(
    call: Callable[[Any], Any], inputs: Sequence[Any], cap_s: float
) -> Tuple[List[int], bool]:
    """Call until two windows in a row agree, or until ``cap_s`` seconds have passed.

    A window is at least 30 calls and 50 ms long, so that neither a slow clock ramp nor a single
    odd call can end the warm-up of a fast model; 2000 calls are enough for any.

    Returns:
        The first 10 000 latencies in nanoseconds, and whether the steady state was reached.
    """
    latencies: List[int] = []
    before: List[int] = []
    deadline = _now() + int(cap_s * 1e9)
    while True:
        window: List[int] = []
        end = _now() + WINDOW_NS
        while len(window) < WINDOW or (_now() < end and len(window) < WINDOW_MOST):
            batch = inputs[(len(latencies) + len(window)) % len(inputs)]
            start = _now()
            call(batch)
            window.append(_now() - start)
            if _now() >= deadline:
                return (latencies + window)[:MOST_SAMPLES], False
        latencies += window
        if before and windows_agree(before, window):
            return latencies[:MOST_SAMPLES], True
        before = window


def measure(
    call: Callable[[Any], Any],
    inputs: Sequence[Any],
    limits: Limits,
    seed: int,
    reference: Optional[Callable[[], int]] = None,
) -> Series:
    """Time calls, one after another, rotating over ``inputs``.

    Args:
        call: what is timed, from the input ready to the output readable.
        inputs: what it is called with.
        limits: how long.
        seed: of which outputs are kept.
        reference: times the reference kernel; called before the first sample, about every 100 ms,
            and at the end. ``None`` for no such pauses.
    """
    found, outputs = Series(), Reservoir(seed, limits.expected)
    start = _now()
    deadline, pause = start + int(limits.seconds * 1e9), start
    count = 0
    while count < limits.samples or (
        _now() < deadline and (limits.most is None or count < max(limits.samples, limits.most))
    ):
        index = count % len(inputs)
        batch = inputs[index]
        if reference is not None and _now() >= pause:
            found.references.append(Reference(count, reference()))
            for _ in range(_UNTIMED):
                call(batch)
            pause = _now() + BLOCK_NS
        issued = _now()
        output = call(batch)
        spent = _now() - issued
        found.add(count, issued - start, spent)
        outputs.offer((index, output))
        count += 1
    if reference is not None:
        found.references.append(Reference(count, reference()))
    found.kept = outputs.kept
    return found


def measure_stage(
    call: Callable[[Any], Any], inputs: Sequence[Any], samples: int = STAGE_SAMPLES
) -> List[int]:
    """Time a stage before or after the inference 200 times, rotating over ``inputs``."""
    latencies = []
    for count in range(samples):
        item = inputs[count % len(inputs)]
        start = _now()
        call(item)
        latencies.append(_now() - start)
    return latencies
