"""How long help takes, against an empty Python, and ``edgexfer bench`` up to its first inference.

Processes are interleaved. The last row is the time from the start of ``edgexfer bench small.onnx``
until its first process is started, and that process's cold start.

Usage: python tools/bench_startup.py [--rounds 15] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench_harness import write_model

from edgexfer.cli import VERBS

FIRST = "bench MODEL, first inference"
# Says how old this process is when it starts the one that measures.
HOST = """
import sys
from edgexfer.bench import memory
from edgexfer.remote import transport
run_child = transport.run_child
def timed(argv, *rest):
    if "job" in argv:
        print(memory.process_age_ns(), file=sys.stderr)
    return run_child(argv, *rest)
transport.run_child = timed
from edgexfer.cli import run
sys.exit(run(sys.argv[1:]))
"""


def main() -> None:
    """Time whole processes and print medians with their spread."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()

    commands = {"python -c pass": ["-c", "pass"], "edgexfer --help": ["-m", "edgexfer", "--help"]}
    for verb in VERBS:
        commands[f"edgexfer {verb} --help"] = ["-m", "edgexfer", verb, "--help"]
    times: dict[str, list[float]] = {name: [] for name in (*commands, FIRST)}
    with tempfile.TemporaryDirectory() as scratch:
        model = write_model(Path(scratch) / "small.onnx", 16, 3)
        for round_ in range(given.rounds + 1):
            spent = {name: _run([sys.executable, *argv]) for name, argv in commands.items()}
            spent[FIRST] = _first_inference(model)
            for name, seconds in spent.items():
                if round_:  # the first round fills the caches
                    times[name].append(seconds)
    rows = {name: _summary(values) for name, values in times.items()}
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'command':30} {'median':>9} {'quartiles':>17}")
    for name, row in rows.items():
        spread = f"{row['q1_ms']:.0f}..{row['q3_ms']:.0f} ms"
        print(f"{name:30} {row['median_ms']:6.0f} ms {spread:>17}")


def _run(argv: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def _first_inference(model: Path) -> float:
    argv = [str(model), "--processes", "1", "--seconds", "0.01", "--samples", "10", "--json"]
    command = [sys.executable, "-c", HOST, "bench", *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    host_ns = next(int(line) for line in done.stderr.splitlines() if line.isdigit())
    (record,) = json.loads(done.stdout)
    return float(host_ns + record["cold_start"]["total_ns"]) / 1e9


def _summary(values: list[float]) -> dict[str, float]:
    q1, middle, q3 = statistics.quantiles(values, n=4)
    return {"median_ms": 1000 * middle, "q1_ms": 1000 * q1, "q3_ms": 1000 * q3}


if __name__ == "__main__":
    main()
