from __future__ import annotations

from pathlib import Path

import pytest

from edgexfer.bench import boards
from edgexfer.bench.reading import TOOL_LIMIT_S, ask_tool, read_number
from tests.bench.unfold import lay_out, unfold


@pytest.mark.parametrize(
    ("name", "chip", "release", "mode"),
    [
        ("jetson-orin-nano-jp6", "tegra234", "36.4.3", "MAXN_SUPER"),
        ("jetson-agx-orin-jp5", "tegra234", "35.4.1", "MODE_30W"),
        ("jetson-thor-jp7", "tegra264", "38.2.0", "120W"),
        ("raspberry-pi-5", "bcm2712", None, None),
        ("x86-intel", None, None, None),
    ],
)
def test_boards(
    tmp_path: Path, name: str, chip: str | None, release: str | None, mode: str | None
) -> None:
    root = unfold(name, tmp_path)
    assert boards.soc(root)[0] == chip
    assert boards.l4t(root)[0] == release
    assert boards.power_mode(root)[0] == mode


@pytest.mark.parametrize(
    ("name", "jetpack"),
    [
        ("jetson-orin-nano-jp6", "6.2"),
        ("jetson-agx-orin-jp5", "5.1.2 (by L4T 35.4.1)"),
        ("jetson-agx-orin-jp7", "7.2 (by L4T 39.2.0)"),
        ("jetson-thor-jp7", "7.0 (by L4T 38.2.0)"),
    ],
)
def test_the_jetpack_is_the_packages_or_that_of_the_release(
    tmp_path: Path, name: str, jetpack: str
) -> None:
    root = unfold(name, tmp_path)
    assert boards.jetpack(root, boards.packages(root))[0] == jetpack


def test_only_packages_that_are_installed_count(tmp_path: Path) -> None:
    assert boards.packages(unfold("jetson-orin-nano-jp6", tmp_path)) == {
        "jetpack": "6.2+b77",
        "tensorrt": "10.3.0.30-1+cuda12.5",
        "tensorrt_python": "10.3.0.30-1+cuda12.5",
    }


def test_a_release_that_is_not_known_or_no_release_at_all(tmp_path: Path) -> None:
    new = lay_out("== etc/nv_tegra_release\n# R77 (release), REVISION: 1.0, x", tmp_path / "new")
    assert boards.jetpack(new, {}) == (None, "L4T 77.1.0 is of no JetPack known here")
    bad = lay_out("== etc/nv_tegra_release\n<html>", tmp_path / "bad")
    assert boards.l4t(bad)[1] == "/etc/nv_tegra_release names no release ('<html>')"


def test_firmware_and_driver(tmp_path: Path) -> None:
    assert boards.firmware(unfold("x86-intel", tmp_path / "a"))[0].startswith("ANRPL357")
    assert boards.firmware(unfold("raspberry-pi-4", tmp_path / "b"))[0].startswith("8ba17717")
    text = "NVRM version: NVIDIA UNIX Open Kernel Module  for x86_64  595.78  Release Build"
    root = lay_out(f"== proc/driver/nvidia/version\n{text}", tmp_path / "c")
    assert boards.driver(root) == ("595.78", "")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 1", "`nvpmodel -q` ends with exit code 1"),
        ("echo 'NVPM ERROR: no root'; exit 255", "exit code 255: NVPM ERROR: no root"),
        ("echo something else", "names no mode"),
        (None, "`nvpmodel -q` does not answer"),
    ],
)
def test_a_power_mode_that_cannot_be_read(tmp_path: Path, script: str | None, reason: str) -> None:
    program = "not a program" if script is None else f"#!/bin/sh\n{script}"
    mode, why = boards.power_mode(lay_out(f"=x usr/sbin/nvpmodel\n{program}", tmp_path))
    assert mode is None
    assert reason in why


def test_a_tool_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TOOL_LIMIT_S >= 1
    monkeypatch.setattr("edgexfer.bench.reading.TOOL_LIMIT_S", 0.1)
    root = lay_out("=x usr/sbin/nvpmodel\n#!/bin/sh\nexec sleep 30", tmp_path)
    assert ask_tool(root, "nvpmodel", ["-q"]) == (
        None,
        "`nvpmodel -q` does not answer (TimeoutExpired)",
    )


def test_a_folder_in_place_of_a_sensor(tmp_path: Path) -> None:
    (tmp_path / "sys/x").mkdir(parents=True)
    assert read_number(tmp_path, "sys/x") == (None, "/sys/x cannot be read (Is a directory)")
