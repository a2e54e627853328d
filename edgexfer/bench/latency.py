"""The only clock of the package: warm-up, the timed loop, and the stages around it.

Times are integers in nanoseconds of a monotonic clock. Nothing is averaged or thrown away here;
whether a series was steady is judged in ``steady``. numpy is not imported here, so that a job can
time that import too.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any, Callable, List, Sequence, Tuple, TypeVar

from edgexfer.bench.steady import WINDOW, windows_agree

T = TypeVar("T")
WINDOW_NS = 50_000_000
WINDOW_MOST = 2_000
MOST_SAMPLES = 10_000
CHECKED = 64
STAGE_SAMPLES = 200
_now = time.perf_counter_ns


@dataclass(frozen=True)
class Limits:
    """How long the timed part lasts.

    Attributes:
        samples: least number of inferences.
        seconds: least time; a model so fast that it reaches 10 000 inferences earlier ends there,
            so that a record stays of a size that can be kept whole.
    """

    samples: int
    seconds: float


def timed(work: Callable[[], T]) -> Tuple[T, int]:
    """Return what ``work`` returns and how long it took, in nanoseconds."""
    start = _now()
    result = work()
    return result, _now() - start


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
    call: Callable[[Any], Any], inputs: Sequence[Any], limits: Limits, seed: int
) -> Tuple[List[int], List[Tuple[int, Any]]]:
    """Time calls, one after another, rotating over ``inputs``.

    Returns:
        Latencies in nanoseconds, from the input ready to the output readable, in their order; and
        up to 64 outputs, each with the index of its input, drawn evenly from the whole series.
    """
    chance = random.Random(seed)
    latencies: List[int] = []
    kept: List[Tuple[int, Any]] = []
    deadline = _now() + int(limits.seconds * 1e9)
    count = 0
    most = max(limits.samples, MOST_SAMPLES)
    while count < limits.samples or (_now() < deadline and count < most):
        index = count % len(inputs)
        batch = inputs[index]
        start = _now()
        output = call(batch)
        latencies.append(_now() - start)
        # Reservoir sampling (Vitter 1985): every call is kept with the same chance.
        place = count if count < CHECKED else chance.randrange(count + 1)
        if place < CHECKED:
            kept[place : place + 1] = [(index, output)]
        count += 1
    return latencies, kept


def measure_stage(call: Callable[[Any], Any], inputs: Sequence[Any]) -> List[int]:
    """Time a stage before or after the inference 200 times, rotating over ``inputs``."""
    latencies = []
    for count in range(STAGE_SAMPLES):
        item = inputs[count % len(inputs)]
        start = _now()
        call(item)
        latencies.append(_now() - start)
    return latencies
