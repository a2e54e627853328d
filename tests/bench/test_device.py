"""Facts are read from the files of boards that are not here, laid out below a root."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgexfer.bench.device import emulator, facts, interpreter
from edgexfer.bench.watch import Watch
from tests.bench.fake_nvml import NOT_SUPPORTED, FakeNvml
from tests.bench.unfold import unfold


def _board(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root


def test_a_raspberry_pi(tmp_path: Path) -> None:
    found = facts(unfold("raspberry-pi-5", tmp_path))
    assert found["board"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert (found["cpu"], found["soc"]) == ("Cortex-A76", "bcm2712")
    assert found["cpu_flags"] == ["asimd", "asimddp", "asimdhp", "fphp"]
    assert (found["memory_bytes"], found["swap_bytes"]) == (8256000 * 1024, 524272 * 1024)
    assert (found["governor"], found["max_mhz"], found["load1"]) == ("ondemand", 2400, 0.25)
    assert found["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert found["temperatures_c"] == {"cpu-thermal": 48.8}
    assert found["throttled"] == []
    assert found["l4t"] is None
    assert "not a Jetson" in found["absent"]["l4t"]


def test_a_raspberry_pi_that_is_throttled_now(tmp_path: Path) -> None:
    assert facts(unfold("raspberry-pi-4", tmp_path))["throttled"] == [
        "under-voltage (get_throttled)",
        "throttled (get_throttled)",
    ]


def test_caches_are_counted_once_and_without_those_of_instructions(tmp_path: Path) -> None:
    """Two cores with 32 KiB of data and of code each, and 1 MiB between them."""
    files = {}
    for core in (0, 1):
        own = [("1", "Data", str(core), "32K"), ("1", "Instruction", str(core), "32K")]
        for index, cache in enumerate([*own, ("2", "Unified", "0-1", "1024K")]):
            for name, text in zip(("level", "type", "shared_cpu_list", "size"), cache, strict=True):
                files[f"sys/devices/system/cpu/cpu{core}/cache/index{index}/{name}"] = text + "\n"
    assert facts(_board(tmp_path, files))["cache_mib"] == 1 + 2 * 32 / 1024


def test_a_jetson(tmp_path: Path) -> None:
    found = facts(unfold("jetson-orin-nano-jp6", tmp_path))
    assert (found["l4t"], found["jetpack"], found["soc"]) == ("36.4.3", "6.2", "tegra234")
    assert (found["power_mode"], found["cpu"]) == ("MAXN_SUPER", "Cortex-A78AE")
    assert (found["max_mhz"], found["now_mhz"]) == (1728, 1344)
    assert found["packages"]["tensorrt"] == "10.3.0.30-1+cuda12.5"
    assert found["firmware"] == "36.4.3-gcid-38968081"
    # A host's name is for nobody else to read, nor for a page to run.
    assert len(found["host"]) == 16
    assert "nano" not in json.dumps(found["host"])


def test_a_gpu_and_who_else_uses_it(tmp_path: Path) -> None:
    fake = FakeNvml()
    fake.processes = (4711,)
    found = facts(tmp_path, fake.open)
    assert (found["driver"], found["gpus"]) == ("595.78", ["NVIDIA Thing"])
    assert found["other_gpu_processes"] == 1
    assert not {"driver", "gpus", "other_gpu_processes"} & set(found["absent"])
    fake.refused["nvmlDeviceGetComputeRunningProcesses_v3"] = NOT_SUPPORTED
    found = facts(tmp_path, fake.open)
    assert found["other_gpu_processes"] is None
    assert "Not Supported" in found["absent"]["other_gpu_processes"]
    assert fake.opened == 0


def test_on_an_empty_root_every_absent_fact_has_its_reason(tmp_path: Path) -> None:
    found = facts(tmp_path)
    absent = found["absent"]
    cpu = {"cpu", "cpu_flags", "cpu_quota", "governor", "max_mhz", "now_mhz", "turbo", "smt"}
    memory = {"memory_bytes", "swap_bytes", "memory_limit_bytes", "cache_mib"}
    board = {"host", "board", "soc", "firmware", "l4t", "jetpack", "power_mode"}
    gpu = {"driver", "gpus", "other_gpu_processes"}
    now = {"load1", "temperatures_c", "throttled", "container", "emulator"}
    assert cpu | memory | board | gpu | now == set(absent)
    assert all(found[name] is None and reason for name, reason in absent.items())


def test_a_container_and_what_it_grants(tmp_path: Path) -> None:
    found = facts(unfold("container", tmp_path))
    assert found["container"] == "docker"
    assert (found["cpu_quota"], found["memory_limit_bytes"]) == (1.5, 1 << 30)
    assert found["usable_cores"] == min(2, len(found["affinity"]))
    assert found["swap_bytes"] == 0


X86, ARM_64, ARM_32, RISC_V = 62, 183, 40, 243


def _process(root: Path, program: str, kind: int, kernel: str | None = None) -> Path:
    """Lay out what the kernel tells a process of the program that runs it."""
    place = root / "opt" / program
    place.parent.mkdir()
    place.write_bytes(b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + kind.to_bytes(2, "little"))
    (root / "proc/thread-self").mkdir(parents=True)
    (root / "proc/thread-self/exe").symlink_to(place)
    if kernel is not None:
        _board(root, {"proc/sys/kernel/arch": f"{kernel}\n"})
    return root


@pytest.mark.parametrize("kernel", ["x86_64", None])
def test_an_emulator_of_programs_is_the_program_that_really_runs(
    tmp_path: Path, kernel: str | None
) -> None:
    root = _process(tmp_path, "qemu-aarch64", X86, kernel)
    assert emulator(root, "aarch64") == ("qemu-aarch64, a program for x86", "")


def test_x86_programs_on_an_arm_machine_are_emulated_too(tmp_path: Path) -> None:
    root = _process(tmp_path, "rosetta", ARM_64, "aarch64")
    assert emulator(root, "x86_64")[0] == "rosetta, a program for arm"


def test_the_kernel_tells_where_the_program_is_hidden(tmp_path: Path) -> None:
    root = _process(tmp_path, "python3.11", ARM_64, "x86_64")
    assert emulator(root, "aarch64")[0] == "a kernel for x86_64"
    (root / "proc/thread-self/exe").unlink()
    assert emulator(root, "aarch64")[0] == "a kernel for x86_64"


@pytest.mark.parametrize(
    ("kind", "kernel", "machine"),
    [
        (ARM_64, "aarch64", "aarch64"),
        (ARM_64, None, "aarch64"),
        (ARM_32, "aarch64", "armv8l"),
        (ARM_32, "aarch64", "aarch64"),
        (X86, "x86_64", "x86_64"),
        (X86, "x86_64", "i686"),
        (RISC_V, "riscv64", "riscv64"),
    ],
)
def test_programs_that_the_machine_runs_itself(
    tmp_path: Path, kind: int, kernel: str | None, machine: str
) -> None:
    value, reason = emulator(_process(tmp_path, "python3", kind, kernel), machine)
    assert value is None
    assert reason == ("this kind of machine is not known" if kind == RISC_V else "no sign of one")


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\nexec python3 and so on\n"])
def test_a_program_that_is_no_whole_elf_file_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "proc/thread-self").mkdir(parents=True)
    (tmp_path / "proc/thread-self/exe").write_bytes(content)
    assert emulator(tmp_path, "aarch64") == (None, "/proc does not tell what runs this process")


def test_variables_that_change_the_threads_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("SECRET_TOKEN", "x")
    assert facts()["environment"]["OMP_NUM_THREADS"] == "3"
    assert "SECRET_TOKEN" not in facts()["environment"]


def test_this_machine_can_be_told_as_json() -> None:
    found = json.loads(json.dumps(facts(), allow_nan=False))
    assert found["cores"] >= found["usable_cores"] >= 1
    assert found["machine"]
    # The tests themselves run on the machine that they are told of.
    assert "emulator" in found["absent"]
    assert interpreter()["executable"]


def test_the_watch_subtracts_what_the_process_itself_used(tmp_path: Path) -> None:
    stat = tmp_path / "proc/stat"
    stat.parent.mkdir()
    stat.write_text("cpu 0 0 0 0 0 0 0 0 0 0\n")
    watch = Watch(tmp_path)
    stat.write_text("cpu 500 0 0 480 0 0 0 20 0 0\n")
    noise = watch.finish()
    assert noise.steal_pct == 2.0
    # 500 of 1000 ticks were busy; this process had a few of them for itself.
    assert noise.foreign_pct is not None
    assert 40.0 < noise.foreign_pct <= 50.0
    assert noise.waiting_pct is None
    assert noise.elapsed_ns > 0
    assert noise.clock_faults() == []


def test_without_proc_the_watch_says_nothing_of_load(tmp_path: Path) -> None:
    noise = Watch(tmp_path).finish()
    assert (noise.foreign_pct, noise.steal_pct) == (None, None)


def test_waiting_for_a_cpu_is_read_from_the_pressure(tmp_path: Path) -> None:
    text = "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 total=9\n"
    root = _board(tmp_path, {"proc/pressure/cpu": text.format(1000)})
    watch = Watch(root)
    (root / "proc/pressure/cpu").write_text(text.format(1_000_000_000))
    waiting = watch.finish().waiting_pct
    assert waiting is not None
    assert waiting > 20.0
