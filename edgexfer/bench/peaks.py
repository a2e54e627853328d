"""What this machine reaches at most: multiplications in a runtime, and memory, as facts.

These are ceilings of what real kernels were seen to do here, for the roofline; a benchmark of a
model is a different thing and lives in ``suite``. The files that are timed are written on the host.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple

from edgexfer.bench.cores import usable_cores
from edgexfer.bench.latency import timed
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.errors import BackendError
from edgexfer.core.files import read_json
from edgexfer.core.profile import Fact

# Of each kernel so many runs at least, and for so long; the fastest counts, as a peak is a ceiling.
_RUNS, _RUNS_NS = 20, 500_000_000
# Far larger than the caches of any edge device; a server's may still hold it.
_COPIED_BYTES, _COPIES = 256 << 20, 5
_FLOATS = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class Kernel:
    """A file that does nothing but multiply.

    Attributes:
        path: ONNX with one float input ``x`` and one output.
        quantized: whether it is INT8.
        operations: multiplications and additions of one run.
        shape: of its input.
    """

    path: Path
    quantized: bool
    operations: int
    shape: Tuple[int, ...]


def read_kernels(folder: Path) -> Tuple[Kernel, ...]:
    """Read what ``kernels.json`` lists; its paths are relative to the folder.

    Raises:
        InputError: it is missing or damaged.
    """
    found = read_json(folder / "kernels.json")
    return tuple(
        Kernel(folder / each["path"], each["quantized"], each["operations"], tuple(each["shape"]))
        for each in found
    )


def measure_peaks(kernels: Iterable[Kernel], backend: str, device: str = "CPU") -> Dict[str, Fact]:
    """Return the peak of each precision that the backend runs natively on this machine.

    Precisions that the runtime refuses, or emulates so that they are no faster than FP32, are left
    out.

    Args:
        kernels: float ones and INT8 ones.
        backend: a runtime that loads ONNX.
        device: the runtime's own word for it.

    Raises:
        BackendError: the runtime is missing, or refuses even FP32.
    """
    module: Any = get_backend(backend)
    version = ", ".join(f"{name} {value}" for name, value in module.versions().items())
    best: Dict[str, float] = {}
    for kernel in kernels:
        for precision in ("int8",) if kernel.quantized else _FLOATS:
            if precision in module.PRECISIONS:
                plan = Plan(precision=precision, threads=usable_cores(), device=device)
                rate = _rate(module, kernel, plan)
                if rate is not None:
                    best[precision] = max(best.get(precision, 0.0), rate)
    if "fp32" not in best:
        raise BackendError(
            f"backend {backend}: runs no FP32 on {device}", "probe with another backend"
        )
    threads = usable_cores()
    facts = {f"{backend}_version": Fact(version, "measured", "asked of the runtime")}
    for precision, rate in best.items():
        unit = "gop_s" if precision == "int8" else "gflop_s"
        if precision in ("fp32", "int8") or rate > 1.2 * best["fp32"]:
            facts[f"{precision}_peak_{unit}"] = Fact(
                round(rate, 1),
                "measured",
                f"fastest run of convolutions and matrix products, {threads} threads, {version}",
            )
    return facts


def measure_memory() -> Dict[str, Fact]:
    """Return the bandwidth of copying 256 MiB with all cores at once, reads and writes counted."""
    import numpy as np

    threads = usable_cores()
    size = _COPIED_BYTES // threads
    pairs = [(np.ones(size, np.uint8), np.empty(size, np.uint8)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        times = [
            timed(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs)))[1]
            for _ in range(_COPIES)
        ]
    rate = 2 * size * threads / min(times)
    source = f"the fastest of {_COPIES} copies of 256 MiB with {threads} threads"
    return {"memory_bandwidth_gb_s": Fact(round(rate, 1), "measured", source)}


def _rate(module: Any, kernel: Kernel, plan: Plan) -> Optional[float]:
    """Return operations per nanosecond of the fastest run, ``None`` where it is refused."""
    import numpy as np

    try:
        session = module.load(kernel.path, plan)
    except BackendError:
        return None
    try:
        feed = {"x": np.random.default_rng(0).standard_normal(kernel.shape, dtype=np.float32)}
        times: List[int] = []
        while len(times) < _RUNS or sum(times) < _RUNS_NS:
            times.append(timed(lambda: session.run(feed))[1])
    finally:
        session.close()
    return kernel.operations / min(times)
