"""Boards that are not here are looked at through their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgexfer.bench import checkup
from edgexfer.bench.__main__ import main
from edgexfer.bench.checkup import Finding, check_up, exit_code, lines
from edgexfer.core.errors import MachineError
from tests.bench.fake_nvml import FakeNvml
from tests.bench.unfold import lay_out, unfold


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def look(root: Path, backend: str = "null", **more: Any) -> dict[str, Finding]:
    return {finding.name: finding for finding in check_up(backend, root, **more)}


def test_a_jetson_in_a_slow_mode_without_swap_and_bindings(tmp_path: Path) -> None:
    root = lay_out(
        "=x usr/sbin/nvpmodel\n#!/bin/sh\necho NV Power Mode: 15W\n"
        "== proc/meminfo\nMemTotal: 7802932 kB\nSwapTotal: 0 kB",
        unfold("jetson-orin-nano-jp6", tmp_path),
    )
    found = look(root, "tensorrt")
    assert found["backend tensorrt"].status == "missing"
    assert "/usr/bin/python3" in found["backend tensorrt"].fix or (
        "--system-site-packages" in found["backend tensorrt"].fix
    )
    assert found["power mode"].fix == "sudo nvpmodel -m 2"
    assert found["swap"].fix.startswith("sudo fallocate -l 4G /swapfile")
    assert found["governor"].detail.startswith("schedutil: the clock follows the load")
    assert found["power sensor"].detail == "ina3221:VDD_IN_mw"
    assert found["temperature"].detail == "53 degrees Celsius (gpu-thermal)"
    assert exit_code(list(found.values())) == 3


def test_a_jetson_that_apt_gave_no_bindings(tmp_path: Path) -> None:
    found = look(unfold("jetson-agx-orin-jp5", tmp_path), "tensorrt")
    assert found["backend tensorrt"].fix == "sudo apt install python3-libnvinfer tensorrt"
    assert found["power mode"].fix == "sudo nvpmodel -m 0"


def test_a_jetson_whose_mode_cannot_be_asked(tmp_path: Path) -> None:
    found = look(unfold("jetson-agx-orin-jp7", tmp_path))
    assert found["power mode"].status == "note"
    assert found["power mode"].fix == "sudo nvpmodel -q"


def test_a_raspberry_pi_with_a_weak_supply(tmp_path: Path) -> None:
    found = look(unfold("raspberry-pi-4", tmp_path))
    assert "under-voltage" in found["throttling"].detail
    assert found["throttling"].fix == "use the power supply that the board's maker names"
    assert found["power sensor"].detail.endswith("energy is left out")


@pytest.mark.parametrize(
    ("program", "fix"),
    [
        (None, "sudo apt install raspi-utils-core"),
        ("echo Can't open device file: /dev/vcio; exit 1", "sudo usermod -aG video $USER"),
    ],
)
def test_a_raspberry_pi_that_may_not_ask(tmp_path: Path, program: str | None, fix: str) -> None:
    root = unfold("raspberry-pi-5", tmp_path)
    (root / "usr/bin/vcgencmd").unlink()
    if program:
        lay_out(f"=x usr/bin/vcgencmd\n#!/bin/sh\n{program}", root)
    assert look(root)["throttling register"].fix.startswith(fix)


def test_a_pc_that_is_hot(tmp_path: Path) -> None:
    root = lay_out(
        "== sys/class/thermal/cooling_device0/cur_state\n3\n== proc/loadavg\n9.5 1 1 1/2 3",
        unfold("x86-intel", tmp_path),
    )
    found = look(root)
    assert found["throttling"].detail == "Processor was at step 3"
    assert found["throttling"].fix.startswith("let it cool down")
    assert found["load"] == Finding("load", "note", "9.5: other programs run here", "top")


def test_an_energy_counter_that_is_roots_alone() -> None:
    reason = "/sys/class/powercap/intel-rapl:0/energy_uj may be read by root alone"
    assert checkup._permit(reason) == "sudo chmod o+r /sys/class/powercap/intel-rapl:*/energy_uj"
    assert checkup._permit("this machine shows no power sensor") == ""


def test_a_container(tmp_path: Path) -> None:
    found = look(unfold("container", tmp_path))
    assert found["cores"].detail.endswith("usable: its container grants the time of 1.5")
    assert found["memory"].detail == "25.9 GB, of which its container grants 1.1 GB"
    assert found["power sensor"].detail == (
        "this machine shows no power sensor; energy is left out"
    )
    assert found["governor"].fix == ""


def test_who_else_uses_the_gpu(tmp_path: Path) -> None:
    fake = FakeNvml()
    assert look(tmp_path, nvml=fake.open)["GPU"] == Finding("GPU", "ok", "NVIDIA Thing")
    fake.processes = (4711, 4712)
    found = look(tmp_path, nvml=fake.open)["GPU"]
    assert found == Finding("GPU", "note", "2 other processes compute on it", "nvidia-smi")


def test_clocks_that_a_killed_run_left_are_put_back(tmp_path: Path) -> None:
    root = unfold("raspberry-pi-5", tmp_path / "board")
    governor = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    state = {
        "schema": "edgexfer.clocks/1",
        "pid": 1,
        "started": "7",
        "boot": "before",
        "governors": {governor: "powersave"},
    }
    place = tmp_path / "cache/edgexfer/clocks.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps(state))
    assert look(root)["clocks"].detail == "put back what an earlier run had changed"
    assert (root / governor).read_text() == "powersave\n"
    assert "clocks" not in look(root)


def test_clocks_that_cannot_be_put_back_are_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(root: Path) -> bool:
        raise MachineError("clocks were not put back: no sudo", "sudo it")

    monkeypatch.setattr(checkup, "restore_left_over", refuse)
    found = look(unfold("container", tmp_path))["clocks"]
    assert found == Finding("clocks", "note", "clocks were not put back: no sudo", "sudo it")


def test_a_machine_whose_files_say_nothing(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert found["memory"].detail == "there is no /proc/meminfo"
    assert exit_code(list(found.values())) == 0


def test_the_text_has_each_mend_below_its_finding() -> None:
    findings = [Finding("disk", "ok", "9 GB"), Finding("numpy", "missing", "none", "apt it")]
    assert lines(findings) == [
        "ok       disk   9 GB",
        "missing  numpy  none",
        "                fix: apt it",
    ]


def test_the_verb_on_the_board(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--backend", "null", "--json"]) == 0
    findings = {f["name"]: f for f in json.loads(capsys.readouterr().out)}
    assert {"python", "numpy", "disk", "memory", "cores"} <= set(findings)
    assert main(["doctor", "--backend", "nothing"]) == 3
    assert "missing  backend nothing" in capsys.readouterr().out
