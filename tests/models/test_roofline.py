"""Bounds from a graph and a profile: their arithmetic, and what each figure rests on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgexfer.core.profile import Fact, HardwareProfile
from edgexfer.models.roofline import bound
from edgexfer.models.workload import Node, Size, Workload
from edgexfer.profiles import find_profile

MIB = 1 << 20


def workload(macs: int, kernels: int, live: int = 0) -> Workload:
    """Make a graph of one node with so many multiply-accumulates, weights and live activations."""
    size = Size(floats=kernels)
    node = Node("y", "Conv", macs, size, Size(), Size(floats=live))
    return Workload(1, (node,), size, size, ())


def board(**facts: float) -> HardwareProfile:
    made = {key: Fact(value, "datasheet", "its data sheet") for key, value in facts.items()}
    return replace(find_profile("x86-torch"), name="board", facts=made)


BOARD = board(
    fp32_peak_gflop_s=100,
    int8_dense_peak_top_s=0.4,
    memory_bandwidth_gb_s=10,
    cache_mib=1,
    memory_gb=1,
)


def test_compute_takes_two_operations_for_each_mac() -> None:
    found = bound(workload(macs=50_000_000, kernels=10), BOARD, "fp32")
    assert found.compute_ms.value == pytest.approx(1.0)
    assert found.memory_ms.value == 0.0, "ten weights stay in a cache"
    assert found.latency_ms == found.compute_ms
    assert bound(workload(50_000_000, 10), BOARD, "int8").latency_ms.value == pytest.approx(0.25)


def test_weights_that_no_cache_keeps_come_from_memory() -> None:
    kernels = (MIB + 10_000_000) // 4
    found = bound(workload(macs=1000, kernels=kernels), BOARD, "fp32")
    assert found.memory_ms.value == pytest.approx(1.0, rel=1e-6)
    assert found.latency_ms == found.memory_ms
    assert bound(workload(1000, MIB), BOARD, "int8").memory_ms.value == 0.0


def test_memory_is_weights_and_live_activations_in_their_precision() -> None:
    fp32 = bound(workload(1, kernels=1000, live=500), BOARD, "fp32")
    assert (fp32.weight_bytes, fp32.activation_bytes, fp32.memory_bytes) == (4000, 2000, 6000)
    assert fp32.memory_share_pct.value == pytest.approx(100 * 6000 / 1e9)
    int8 = bound(workload(1, kernels=1000, live=500), BOARD, "int8")
    assert int8.memory_bytes == 1500


def test_each_figure_names_the_facts_that_it_rests_on() -> None:
    found = bound(workload(1, 1), find_profile("jetson"), "int8")
    [peak] = found.compute_ms.used
    assert (peak.fact, peak.value, peak.kind) == ("int8_dense_peak_top_s", 33.4, "computed")
    assert "8 SM x 4096" in peak.source
    assert [used.fact for used in found.memory_ms.used] == ["memory_bandwidth_gb_s", "cache_mib"]
    assert [used.fact for used in found.memory_share_pct.used] == ["memory_gb"]


@pytest.mark.parametrize(
    ("facts", "compute", "memory"),
    [
        ({}, "board has no fact fp32_peak_*", "no fact memory_bandwidth_gb_s nor cache_mib"),
        ({"int8_peak_top_s": 1}, "board has no fact fp32_peak_*", "no fact memory_bandwidth_gb_s"),
        ({"fp32_peak_tflop_s": 1, "memory_bandwidth_gb_s": 1}, "", "no fact cache_mib"),
    ],
)
def test_what_the_profile_lacks_is_no_figure_but_a_reason(
    facts: dict[str, Any], compute: str, memory: str
) -> None:
    found = bound(workload(10**9, 10**6), board(**facts), "fp32")
    assert (found.compute_ms.value is None) == bool(compute)
    assert found.compute_ms.reason == compute
    assert memory in found.memory_ms.reason
    if compute:
        assert found.latency_ms.value is None
        assert found.latency_ms.reason == f"{compute}; {found.memory_ms.reason}"
    else:
        assert found.latency_ms.value == pytest.approx(2.0)
    assert found.memory_share_pct.value is None
    assert "no fact memory_gb" in found.memory_share_pct.reason
