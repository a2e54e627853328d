"""The statistics of the benchmark against simulated systems whose truth is known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "bench_truth.py"


def _run(*argv: str) -> dict[str, Any]:
    command = [sys.executable, str(TOOL), *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_bounds_hold_or_the_record_says_why_they_may_not() -> None:
    found = _run("bounds")
    assert found["workloads"] == 2000
    assert found["held_or_said_pct"] >= 98.5
    # Noise that every machine has must not be called a fault.
    assert found["families"]["independent"]["status"]["ok"] >= 245
    assert found["families"]["throttle step"]["status"] == {"invalid": 250}


@pytest.mark.slow
def test_equal_systems_are_told_apart_in_one_case_of_a_hundred_and_3_pct_are_seen() -> None:
    found = _run("compare", "--trials", "200")
    assert found["equal"]["any_difference"] <= 2
    assert found["3 % slower"]["latency_p50"]["slower"] >= 190


@pytest.mark.slow
def test_systems_of_known_duration_are_all_timed() -> None:
    """How near it comes is for a quiet machine; a clock that runs ahead would show on any."""
    found = _run("clock", "--base-us", "500", "2000")
    kinds = ("constant", "drift", "bursts", "bimodal", "throttle", "autocorrelated")
    systems = [*(f"spin {kind}" for kind in kinds), "sleep"]
    rows = found["rows"]
    assert [(r["base_us"], r["system"]) for r in rows] == [
        (base_us, system) for base_us in (500, 2000) for system in systems
    ]
    for row in rows:
        assert row["allowed_us"] >= 20
        assert row["per_call_us"] > 0, "a call cannot be shorter than what it calls"
        if row["system"] in ("spin constant", "sleep"):
            assert row["p50_us"] >= row["base_us"]
    shares = [row["error_us"] / row["allowed_us"] for row in rows]
    assert found["worst_share_of_allowed"] == pytest.approx(max(shares), abs=1e-2)
