"""How long help takes: ``edgexfer --help`` and each verb's, against an empty Python, interleaved.

Usage: python tools/bench_startup.py [--rounds 15] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

from edgexfer.cli import VERBS


def main() -> None:
    """Time whole processes and print medians with their spread."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()

    commands = {"python -c pass": ["-c", "pass"], "edgexfer --help": ["-m", "edgexfer", "--help"]}
    for verb in VERBS:
        commands[f"edgexfer {verb} --help"] = ["-m", "edgexfer", verb, "--help"]
    times: dict[str, list[float]] = {name: [] for name in commands}
    for round_ in range(given.rounds + 1):
        for name, argv in commands.items():
            seconds = _run([sys.executable, *argv])
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


def _summary(values: list[float]) -> dict[str, float]:
    q1, middle, q3 = statistics.quantiles(values, n=4)
    return {"median_ms": 1000 * middle, "q1_ms": 1000 * q1, "q3_ms": 1000 * q3}


if __name__ == "__main__":
    main()
