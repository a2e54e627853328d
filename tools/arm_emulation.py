"""An aarch64 Python that runs on an x86-64 Debian: qemu's user mode, Debian packages, real wheels.

``PREFIX`` gets qemu, an aarch64 Debian with nothing but Python in it, and the aarch64 wheels of
numpy, ONNX Runtime and OpenVINO in the versions of ``constraints.txt``. ``PREFIX/python`` runs it
all as one interpreter; ``EDGEXFER_ARM_CPU`` chooses the CPU that qemu imitates. Nothing outside
``PREFIX`` is changed and no root is needed: packages are unpacked, not installed. What is there
already is kept, and what was broken off is begun again.

Run it:  python tools/arm_emulation.py PREFIX
         EDGEXFER_ARM_PYTHON=PREFIX/python python -m pytest -m arm
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgexfer.core.errors import EdgexferError, InputError, MachineError

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TOOLS = {"apt-get": "apt", "dpkg": "dpkg"}
PACKAGES = ("python3", "libstdc++6", "libgomp1")
# Their maintainer scripts never run here, so what only installs others is left out.
UNUSED = ("dpkg_", "tar_")
WHEELS = ("numpy", "onnxruntime", "openvino")
# manylinux wheels name the oldest glibc that they run with; 2.17 is the oldest of aarch64.
OLDEST_GLIBC = 17


@dataclass(frozen=True)
class Cpu:
    """A CPU that qemu imitates, and what Linux says of it.

    Attributes:
        part: ``CPU part`` of ``/proc/cpuinfo``.
        features: its ``Features``. A runtime chooses its kernels by them, so they must be those
            that qemu really has for this CPU: a kernel with instructions beyond them dies.
    """

    part: str
    features: str


CPUS = {
    "cortex-a72": Cpu("0xd08", "fp asimd evtstrm crc32 cpuid"),
    "cortex-a76": Cpu(
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc "
        "dcpop asimddp",
    ),
}
_CPUINFO = """\
processor\t: {index}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 3

"""
# qemu's -0 makes Python take this script for its own executable, so that a child that it starts by
# sys.executable is emulated too.
_WRAPPER = """\
#!/bin/sh
# An aarch64 Python under emulation; EDGEXFER_ARM_CPU is one of: {cpus}.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 1
cpu=${{EDGEXFER_ARM_CPU:-{default}}}
if [ ! -d "$here/$cpu" ]; then
    echo "error: EDGEXFER_ARM_CPU=$cpu is not one of: {cpus}" >&2
    echo "fix: set it to one of those, or leave it out" >&2
    exit 2
fi
exec "{qemu}" -cpu "$cpu" -L "$here/$cpu" -0 "$here/python" "$here/rootfs/usr/bin/{python}" "$@"
"""
_TRY = "import numpy, onnxruntime as ort, openvino as ov; print(ort.__version__, ov.__version__)"


def main() -> int:
    """Set everything up and return the exit code; errors are two lines on stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prefix", type=Path, metavar="PREFIX", help="folder; made if missing")
    try:
        wrapper = set_up(parser.parse_args().prefix.absolute())
    except EdgexferError as error:
        print(f"error: {error.what}\nfix: {error.fix}", file=sys.stderr)
        return error.exit_code
    print(f"EDGEXFER_ARM_PYTHON={wrapper}")
    return 0


def set_up(prefix: Path) -> Path:
    """Make or complete ``prefix`` and return the interpreter's path.

    Raises:
        InputError: ``prefix`` holds something else.
        MachineError: a tool is missing, or one of its steps failed.
    """
    _check_prefix(prefix)
    _check_tools()
    prefix.mkdir(parents=True, exist_ok=True)
    (prefix / "apt").mkdir(exist_ok=True)
    qemu = find_qemu(prefix)
    rootfs = make_rootfs(prefix)
    python = _python_of(rootfs)
    add_wheels(rootfs, python)
    for name, cpu in CPUS.items():
        make_view(prefix, name, cpu)
    wrapper = write_wrapper(prefix, qemu, python)
    for name in CPUS:
        _try(wrapper, name)
    return wrapper


def _check_prefix(prefix: Path) -> None:
    if prefix.exists() and not prefix.is_dir():
        raise InputError(f"{prefix}: is not a folder", "name a folder, or one that is to be made")
    if prefix.is_dir() and any(prefix.iterdir()) and not (prefix / "apt").is_dir():
        raise InputError(f"{prefix}: holds something else", "name a folder that is empty or new")


def _check_tools() -> None:
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing or not KEYRING.is_file():
        raise MachineError(
            f"this machine has no {' and no '.join(missing) or KEYRING}",
            "run it on Debian: "
            + " ".join(["apt-get install", *missing, "debian-archive-keyring"]),
        )


def find_qemu(prefix: Path) -> Path:
    """Return this machine's ``qemu-aarch64``, or unpack Debian's static one into ``prefix``."""
    for name in ("qemu-aarch64", "qemu-aarch64-static"):
        found = shutil.which(name)
        if found is not None:
            _say(f"qemu: {found}")
            return Path(found)
    place = prefix / "qemu"
    qemu = place / "usr/bin/qemu-aarch64-static"
    if not qemu.is_file():
        _say("qemu: fetching the package qemu-user-static")
        command = ["apt-get", "-o", "APT::Sandbox::User=root", "download", "qemu-user-static"]
        _run(command, "apt-get update && apt-get install qemu-user", cwd=prefix / "apt")
        _unpack(sorted((prefix / "apt").glob("qemu-user-static_*.deb")), place)
    if not qemu.is_file():
        raise MachineError(
            "the package qemu-user-static has no emulator", "apt-get install qemu-user"
        )
    _say(f"qemu: {qemu}")
    return qemu


def make_rootfs(prefix: Path) -> Path:
    """Unpack an aarch64 Debian with Python into ``prefix/rootfs``, unless it is there."""
    rootfs = prefix / "rootfs"
    if rootfs.is_dir():
        _say(f"aarch64 packages: {rootfs}")
        return rootfs
    apt = prefix / "apt"
    archives = apt / "cache/archives"
    for folder in (apt / "state/lists/partial", archives / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text("".join(_sources()))
    _say(f"aarch64 packages: fetching {', '.join(PACKAGES)} and what they need")
    mend = "check the network and this machine's apt sources, then run the same command again"
    _run([*_apt(apt), "update"], mend)
    options = ["-y", "--download-only", "--no-install-recommends"]
    _run([*_apt(apt), *options, "install", *PACKAGES], mend)
    found = [deb for deb in sorted(archives.glob("*.deb")) if not deb.name.startswith(UNUSED)]
    _say(f"aarch64 packages: unpacking {len(found)}")
    _unpack(found, rootfs)
    return rootfs


def _apt(folder: Path) -> list[str]:
    """Return an apt-get for arm64 that keeps all it knows in ``folder``."""
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
    }
    return [
        "apt-get",
        *(word for key, value in options.items() for word in ("-o", f"{key}={value}")),
    ]


def _sources() -> Iterator[str]:
    """Yield a line for each Debian suite that this machine's own apt uses, for arm64."""
    fields = "$(ORIGIN) $(SITE) $(RELEASE) $(COMPONENT)"
    command = ["apt-get", "indextargets", "--format", fields, "Created-By: Packages"]
    rows = [line.split() for line in _run(command, "apt-get update").splitlines()]
    debian = dict.fromkeys(tuple(row) for row in rows if row[0] == "Debian")
    if not debian:
        raise MachineError(
            "apt here knows no packages of Debian", "run it on Debian: apt-get update"
        )
    for _, site, release, component in debian:
        yield f"deb [arch=arm64 signed-by={KEYRING}] {site} {release} {component}\n"


def _unpack(packages: Sequence[Path], out: Path) -> None:
    """Unpack Debian packages into ``out``, which is there only when all of them are in it."""
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for package in packages:
        _run(["dpkg", "-x", str(package), str(partial)], f"rm {package}, and run it again")
    partial.rename(out)


def _python_of(rootfs: Path) -> str:
    """Return the interpreter's name, such as ``python3.11``."""
    names = [path.name for path in (rootfs / "usr/bin").glob("python3.*")]
    found = [name for name in names if re.fullmatch(r"python3\.\d+", name)]
    if len(found) != 1:
        raise MachineError(f"{rootfs}: holds no Python", f"rm -r {rootfs}, and run it again")
    return found[0]


def add_wheels(rootfs: Path, python: str) -> None:
    """Unpack the aarch64 wheels where Debian's Python looks for them, unless they are there."""
    pinned = {
        line.split("==")[0].lower(): line.strip()
        for line in CONSTRAINTS.read_text().splitlines()
        if "==" in line
    }
    wanted = [pinned[name] for name in WHEELS]
    place = rootfs / "usr/local/lib" / python / "dist-packages"
    stamp = place / "edgexfer-wheels.txt"
    if stamp.is_file() and stamp.read_text().split() == wanted:
        _say(f"aarch64 wheels: {', '.join(wanted)}")
        return
    _say(f"aarch64 wheels: fetching {', '.join(wanted)}")
    partial = place.with_name("dist-packages.partial")
    shutil.rmtree(partial, ignore_errors=True)
    versions = range(_glibc_minor(rootfs), OLDEST_GLIBC - 1, -1)
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in versions]
    _run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--target", str(partial), "--constraint", str(CONSTRAINTS)),
            *("--only-binary=:all:", "--no-compile", "--implementation=cp"),
            *(f"--python-version={python[len('python') :]}", *platforms, *wanted),
        ],
        "check that pip can fetch these wheels, then run the same command again",
    )
    (partial / stamp.name).write_text("\n".join(wanted) + "\n")
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)


def _glibc_minor(rootfs: Path) -> int:
    """Return N of the glibc 2.N that was unpacked, read from its loader."""
    loaders = sorted(rootfs.glob("**/aarch64-linux-gnu/ld-linux-aarch64.so.1"))
    match = (
        re.search(rb"stable release version 2\.(\d+)", loaders[0].read_bytes()) if loaders else None
    )
    if match is None:
        raise MachineError(f"{rootfs}: holds no glibc", f"rm -r {rootfs}, and run it again")
    return int(match.group(1))


def make_view(prefix: Path, name: str, cpu: Cpu) -> None:
    """Make ``prefix/NAME``: the rootfs as links, with the ``/proc/cpuinfo`` of one CPU.

    qemu looks every absolute path up there first; without this file, runtimes would read that of
    the x86-64 host, and ONNX Runtime dies of it.
    """
    view = prefix / name
    (view / "proc").mkdir(parents=True, exist_ok=True)
    cores = range(os.cpu_count() or 1)
    text = "".join(_CPUINFO.format(index=i, features=cpu.features, part=cpu.part) for i in cores)
    (view / "proc/cpuinfo").write_text(text)
    for folder in (prefix / "rootfs").iterdir():
        link = view / folder.name
        if not link.is_symlink() and folder.name != "proc":
            link.symlink_to(Path("..", "rootfs", folder.name))
    # What Debian's Python finds here on the host would be code of the host.
    (prefix / "rootfs/usr/lib/python3/dist-packages").mkdir(parents=True, exist_ok=True)


def write_wrapper(prefix: Path, qemu: Path, python: str) -> Path:
    """Write ``prefix/python``, which runs the emulated interpreter, and return its path."""
    wrapper = prefix / "python"
    cpus = list(CPUS)
    text = _WRAPPER.format(cpus=", ".join(cpus), default=cpus[-1], qemu=qemu, python=python)
    wrapper.write_text(text)
    wrapper.chmod(0o755)
    return wrapper


def _try(wrapper: Path, cpu: str) -> None:
    _say(f"{cpu}: importing the runtimes")
    environment = {**os.environ, "EDGEXFER_ARM_CPU": cpu}
    mend = f"rm -r {wrapper.parent}, and run it again"
    versions = _run([str(wrapper), "-I", "-c", _TRY], mend, env=environment).split()
    _say(f"{cpu}: ONNX Runtime {versions[-2]}, OpenVINO {versions[-1]}")


def _run(
    command: Sequence[str], fix: str, *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> str:
    """Run a program and return what it wrote.

    Raises:
        MachineError: it failed; ``fix`` is the mend.
    """
    done = subprocess.run(
        list(command), cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no word of why"]
        raise MachineError(f"{Path(command[0]).name}: failed ({lines[-1].strip()[:200]})", fix)
    return done.stdout


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
