from __future__ import annotations

from pathlib import Path

import pytest

from edgexfer.bench import cores
from tests.bench.unfold import lay_out, unfold


@pytest.fixture(autouse=True)
def _eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cpus", lambda: set(range(8)))


@pytest.mark.parametrize(
    ("files", "quota", "usable"),
    [
        ("== proc/self/cgroup\n0::/\n== sys/fs/cgroup/cpu.max\n150000 100000", 1.5, 2),
        ("== proc/self/cgroup\n0::/\n== sys/fs/cgroup/cpu.max\nmax 100000", None, 8),
        ("== proc/self/cgroup\n0::/\n== sys/fs/cgroup/cpu.max\n50000 100000", 0.5, 1),
        ("== proc/self/cgroup\n0::/\n== sys/fs/cgroup/cpu.max\n-1 garbage", None, 8),
        (
            "== proc/self/cgroup\n0::/user/app\n== sys/fs/cgroup/user/cpu.max\n400000 100000\n"
            "== sys/fs/cgroup/user/app/cpu.max\nmax 100000",
            4.0,
            4,
        ),
        (
            "== proc/self/cgroup\n4:cpu,cpuacct:/docker/abc\n"
            "== sys/fs/cgroup/cpu/cpu.cfs_quota_us\n300000\n"
            "== sys/fs/cgroup/cpu/cpu.cfs_period_us\n100000",
            3.0,
            3,
        ),
        (
            "== proc/self/cgroup\n4:cpu:/\n== sys/fs/cgroup/cpu/cpu.cfs_quota_us\n-1\n"
            "== sys/fs/cgroup/cpu/cpu.cfs_period_us\n100000",
            None,
            8,
        ),
        ("== proc/uptime\n1", None, 8),
    ],
    ids=["v2", "unlimited", "half", "garbage", "parent", "v1", "v1 unlimited", "no cgroup"],
)
def test_the_quota_of_a_container_bounds_its_cores(
    tmp_path: Path, files: str, quota: float | None, usable: int
) -> None:
    root = lay_out(files, tmp_path)
    assert cores.cpu_quota(root)[0] == quota
    assert cores.usable_cores(root) == usable


def test_the_memory_of_a_container(tmp_path: Path) -> None:
    assert cores.memory_limit(unfold("container", tmp_path)) == (1 << 30, "")
    v1 = lay_out(
        "== proc/self/cgroup\n3:memory:/\n== sys/fs/cgroup/memory/memory.limit_in_bytes\n"
        "9223372036854771712",
        tmp_path / "v1",
    )
    assert cores.memory_limit(v1) == (None, "no cgroup limits the memory")


def test_how_the_cpus_of_a_pc_are_set(tmp_path: Path) -> None:
    root = unfold("x86-intel", tmp_path)
    assert cores.governor(root) == ("powersave", "")
    assert cores.max_mhz(root) == (4600, "")
    assert (cores.turbo(root), cores.smt(root)) == ((True, ""), (True, ""))
    lay_out(
        "== sys/devices/system/cpu/cpu4/cpufreq/scaling_governor\nperformance\n"
        "== sys/devices/system/cpu/intel_pstate/no_turbo\n1",
        root,
    )
    assert cores.governor(root)[0] == "performance+powersave"
    assert cores.turbo(root)[0] is False


def test_boost_of_amd_and_no_smt(tmp_path: Path) -> None:
    root = unfold("x86-amd", tmp_path)
    assert (cores.turbo(root)[0], cores.smt(root)[0]) == (True, False)


@pytest.mark.parametrize("text", ["", "on", "-1", "7"])
def test_a_switch_that_says_nonsense(tmp_path: Path, text: str) -> None:
    root = lay_out(f"== sys/devices/system/cpu/smt/active\n{text}", tmp_path)
    value, reason = cores.smt(root)
    assert value is None
    assert "/sys/devices/system/cpu/smt/active" in reason
