"""What a board says of itself: Jetson, Raspberry Pi, or a PC by its DMI.

Formats: ``/etc/nv_tegra_release``, ``/etc/nvpmodel.conf`` and packages of Jetson Linux, the device
tree of both boards. Provided, not measured: the files are copies of what others published.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Dict

from edgexfer.bench.reading import Reading, ask_tool, read_text

_NO_JETSON = "no /etc/nv_tegra_release: not a Jetson"
# JetPack by its Jetson Linux, for boards without the package that would say so.
_JETPACKS = (
    *(("35.1", "5.0.2"), ("35.2", "5.1"), ("35.3", "5.1.1"), ("35.4", "5.1.2"), ("35.5", "5.1.3")),
    *(("35.6", "5.1.4 or later"), ("36.2", "6.0 DP"), ("36.3", "6.0"), ("36.4.0", "6.1")),
    *(("36.4.3", "6.2"), ("36.4", "6.2.1"), ("36.5", "6.2.2"), ("38.2", "7.0"), ("38.4", "7.1")),
    ("39.2", "7.2"),
)
# Packages whose versions decide what runs, and how they are called in the facts.
_PACKAGES = {
    "nvidia-jetpack": "jetpack",
    "nvidia-jetpack-runtime": "jetpack",
    "libnvinfer10": "tensorrt",
    "libnvinfer8": "tensorrt",
    "libcudnn9-cuda-13": "cudnn",
    "libcudnn9-cuda-12": "cudnn",
    "libcudnn8": "cudnn",
    "python3-libnvinfer": "tensorrt_python",
}


def board(root: Path) -> Reading:
    """Read the board's name, such as ``Raspberry Pi 5 Model B Rev 1.0``."""
    for name in ("proc/device-tree/model", "sys/class/dmi/id/product_name"):
        text = read_text(root, name)[0]
        if text:
            return text, ""
    return None, "neither a device tree nor DMI names the board"


def soc(root: Path) -> Reading:
    """Read the chip's name in the device tree, such as ``tegra234`` or ``bcm2712``."""
    text = read_text(root, "proc/device-tree/compatible")[0] or ""
    names = [name for name in text.split("\x00") if name]
    if not names:
        return None, "no device tree names the chip"
    return names[-1].rpartition(",")[2], ""


def l4t(root: Path) -> Reading:
    """Read the release of Jetson Linux, such as ``36.4.3``."""
    text = read_text(root, "etc/nv_tegra_release")[0]
    if text is None:
        return None, _NO_JETSON
    match = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text)
    if match is None:
        return None, f"/etc/nv_tegra_release names no release ({text[:40]!r})"
    return f"{match.group(1)}.{match.group(2)}", ""


def packages(root: Path) -> Dict[str, str]:
    """Return the versions of the packages that matter on a Jetson, from dpkg's own list.

    dpkg itself is not asked: reading its list is faster, and works below any root.
    """
    text = read_text(root, "var/lib/dpkg/status")[0] or ""
    found: Dict[str, str] = {}
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != " "
        )
        label = _PACKAGES.get(fields.get("Package", ""))
        if label and fields.get("Status", "").endswith(" installed") and "Version" in fields:
            found[label] = fields["Version"]
    return found


def jetpack(root: Path, installed: Dict[str, str]) -> Reading:
    """Return the JetPack, by its package or else by the release of Jetson Linux."""
    if "jetpack" in installed:
        return installed["jetpack"].partition("+")[0], ""
    release, reason = l4t(root)
    if release is None:
        return None, reason
    for start, name in _JETPACKS:
        if release == start or release.startswith(start + "."):
            return f"{name} (by L4T {release})", ""
    return None, f"L4T {release} is of no JetPack known here"


def power_mode(root: Path) -> Reading:
    """Return the name of a Jetson's power mode; its number differs from board to board.

    The tool is asked first. Where it may not say (some releases want root), the number that it
    keeps in ``/var/lib/nvpmodel/status`` is looked up in ``/etc/nvpmodel.conf``.
    """
    text, reason = ask_tool(root, "nvpmodel", ["-q"])
    match = re.search(r"NV Power Mode:\s*(\S+)", text or "")
    if match:
        return match.group(1), ""
    number = re.fullmatch(
        r"pmode:0*(\d+)", (read_text(root, "var/lib/nvpmodel/status")[0] or "").partition(" ")[0]
    )
    names = power_modes(root)
    if number and int(number.group(1)) in names:
        return names[int(number.group(1))], ""
    if reason == "there is no nvpmodel":
        return None, "no nvpmodel: not a Jetson"
    return None, reason or "`nvpmodel -q` names no mode"


def power_modes(root: Path) -> Dict[int, str]:
    """Return the names of a Jetson's power modes by their numbers on this board."""
    text = read_text(root, "etc/nvpmodel.conf")[0] or ""
    pattern = r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>"
    return {int(number): name for number, name in re.findall(pattern, text, re.MULTILINE)}


def firmware(root: Path) -> Reading:
    """Return the version of what starts the board: UEFI or BIOS, or a Raspberry Pi's bootloader."""
    for name in ("sys/class/dmi/id/bios_version", "proc/device-tree/chosen/bootloader/version"):
        text = read_text(root, name)[0]
        if text:
            return text[:80], ""
    return None, "neither DMI nor the device tree names a firmware"


def driver(root: Path) -> Reading:
    """Return the version of NVIDIA's kernel driver; on a Jetson it comes with L4T."""
    text, reason = read_text(root, "sys/module/nvidia/version")
    if text:
        return text, ""
    words = read_text(root, "proc/driver/nvidia/version")[0] or ""
    match = re.search(r"Kernel Module\s+(?:for \S+\s+)?([\d.]+)", words)
    return (match.group(1), "") if match else (None, reason or "no NVIDIA kernel driver")
