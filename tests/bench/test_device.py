"""Facts are read from the files of boards that are not here, laid out below a root."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgexfer.bench.device import emulator, facts, interpreter
from edgexfer.bench.watch import Watch, reference_ns

PI5 = {
    "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 108.00\n"
    "Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp asimddp\n"
    "CPU implementer\t: 0x41\nCPU part\t: 0xd0b\n",
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\x00",
    "proc/meminfo": "MemTotal:        8256000 kB\nMemFree: 1 kB\n",
    "proc/loadavg": "0.25 0.10 0.05 1/200 999\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "2400000\n",
    "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
}
JETSON = {
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd42\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\x00",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
}


def _board(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return root


def test_a_raspberry_pi(tmp_path: Path) -> None:
    found = facts(_board(tmp_path, PI5))
    assert found["board"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert found["cpu"] == "Cortex-A76"
    assert found["cpu_flags"] == ["asimd", "asimddp", "asimdhp", "fphp"]
    assert found["memory_bytes"] == 8256000 * 1024
    assert (found["governor"], found["max_mhz"], found["load1"]) == ("ondemand", 2400, 0.25)
    assert found["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert found["l4t"] is None
    assert "not a Jetson" in found["absent"]["l4t"]


def test_caches_are_counted_once_and_without_those_of_instructions(tmp_path: Path) -> None:
    """Two cores with 32 KiB of data and of code each, and 1 MiB between them."""
    files = {}
    for core in (0, 1):
        own = [("1", "Data", str(core), "32K"), ("1", "Instruction", str(core), "32K")]
        for index, cache in enumerate([*own, ("2", "Unified", "0-1", "1024K")]):
            for name, text in zip(("level", "type", "shared_cpu_list", "size"), cache, strict=True):
                files[f"sys/devices/system/cpu/cpu{core}/cache/index{index}/{name}"] = text + "\n"
    assert facts(_board(tmp_path, files))["cache_mib"] == 1 + 2 * 32 / 1024


def test_a_jetson_and_the_name_of_its_power_mode(tmp_path: Path) -> None:
    root = _board(tmp_path, JETSON)
    tool = root / "usr/sbin/nvpmodel"
    tool.parent.mkdir(parents=True)
    tool.write_text('#!/bin/sh\n[ "$1" = -q ] && printf "NV Power Mode: MAXN_SUPER\\n2\\n"\n')
    tool.chmod(0o755)
    found = facts(root)
    assert (found["l4t"], found["power_mode"]) == ("36.4.3", "MAXN_SUPER")
    assert found["cpu"] == "Cortex-A78AE"


@pytest.mark.parametrize(
    ("script", "reason"), [("exit 1", "names no mode"), (None, "does not answer")]
)
def test_a_power_mode_that_cannot_be_read(tmp_path: Path, script: str | None, reason: str) -> None:
    tool = tmp_path / "usr/sbin/nvpmodel"
    tool.parent.mkdir(parents=True)
    tool.write_text(f"#!/bin/sh\n{script}\n" if script else "not a program")
    if script:
        tool.chmod(0o755)
    found = facts(tmp_path)
    assert found["power_mode"] is None
    assert reason in found["absent"]["power_mode"]


def test_on_an_empty_root_every_absent_fact_has_its_reason(tmp_path: Path) -> None:
    found = facts(tmp_path)
    absent = found["absent"]
    names = {"cpu", "cpu_flags", "memory_bytes", "governor", "max_mhz", "load1", "board", "l4t"}
    assert names | {"cache_mib", "power_mode", "container", "emulator"} == set(absent)
    assert all(found[name] is None and reason for name, reason in absent.items())


def test_a_container_is_named(tmp_path: Path) -> None:
    (tmp_path / ".dockerenv").touch()
    assert facts(tmp_path)["container"] == "docker"


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
    assert noise.reference_before_ns > 0
    assert noise.reference_after_ns > 0


def test_without_proc_the_watch_says_nothing_of_load(tmp_path: Path) -> None:
    noise = Watch(tmp_path).finish()
    assert (noise.foreign_pct, noise.steal_pct) == (None, None)


def test_the_reference_kernel_is_real_work() -> None:
    assert reference_ns() > 10_000
