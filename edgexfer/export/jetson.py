"""What to type on a device with TensorRT, as text for people.

An engine is bound to the GPU and the TensorRT version that built it, so a bundle carries ONNX, and
the packed device side builds on the device. Commands of ``trtexec`` are from ``backends/trtexec``,
which follows the options of TensorRT's own sources; edgexfer has run none of it on a Jetson.
"""

from __future__ import annotations

from edgexfer.backends import _trtexec as trtexec
from edgexfer.core.backend import Plan
from edgexfer.core.bundle import Artefact
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.profile import HardwareProfile, Stack
from edgexfer.export.flavour import default_row, export_command, newest_opset, typed_strongly

UNSEEN = """\
Not seen on hardware: whether this TensorRT takes these files, what its engines compute, how fast \
they are, and how much memory a build takes. The device side was held against the names and \
arguments of TensorRT 8.6 to 11.4, with a stand-in for the GPU. `verify` tells on the board \
whether the engines compute what ONNX Runtime computed from the same files."""

_DEVICE_SIDE = (
    "```sh",
    "python3 edgexfer.pyz verify .                   # builds engines, checks golden outputs",
    "python3 edgexfer.pyz bench . --out ../bench     # accuracy and latency, as records",
    "python3 edgexfer.pyz bench . --scenario offline --out ../offline  # images per second",
    "python3 edgexfer.pyz trtexec . --out ../bench   # the GPU's time alone, by trtexec",
    "```",
    "",
    "`python3` is the system's own; on a Jetson its TensorRT and numpy come with "
    "`sudo apt install python3-libnvinfer python3-numpy`, elsewhere with "
    "`pip install numpy tensorrt`. Engines go to a folder beside this one, and each is built once, "
    "which takes minutes.",
)
_TRTEXEC_ALONE = (
    "This release's Python or TensorRT is too old for `edgexfer.pyz`; only `trtexec` is of use.",
)


def build_command(
    artefact: Artefact, profile: HardwareProfile, preprocess: Preprocess, row: Stack
) -> list[str]:
    """Return the words of the command that builds an engine with a release's TensorRT.

    Engines go beside the bundle: a file that its manifest does not list would break its seal.
    """
    files = trtexec.Files(artefact.files[0].path, _engine(artefact), "../timing.cache")
    options = {**profile.options, **artefact.options}
    plan = Plan(artefact.precision, device=profile.device, options=options)
    shapes = _shapes(artefact, preprocess)
    return trtexec.build_command(trtexec.TRTEXEC, _version(row), files, shapes, plan)


def run_command(artefact: Artefact, preprocess: Preprocess, row: Stack) -> list[str]:
    """Return the words of the command that times an engine: CUDA graph, spin wait, no copies."""
    return trtexec.run_command(
        trtexec.TRTEXEC,
        _version(row),
        _engine(artefact),
        _shapes(artefact, preprocess),
        f"../{artefact.name}-times.json",
        trtexec.Timing(),
    )


def obstacle(artefact: Artefact, profile: HardwareProfile, row: Stack) -> str | None:
    """Say why a software release cannot build an artefact, ``None`` when it can.

    Args:
        artefact: the files.
        profile: the target, whose default release they were made for.
        row: the release.
    """
    if profile.device == "DLA" and not row.dla:
        return "it builds no engines for the DLA"
    if artefact.opset is not None and artefact.opset > row.onnx_opset_max:
        return (
            f"its parser takes ONNX up to opset {row.onnx_opset_max}, "
            f"these files are opset {artefact.opset}"
        )
    if artefact.opset is not None and artefact.opset > newest_opset(row):
        return f"it lacks operators of opset {artefact.opset}, which these files are"
    if artefact.options:
        return None if _version(row) < (11, 0) else "it takes no calibration cache"
    strong = typed_strongly(profile, row)
    if strong == typed_strongly(profile) or artefact.precision == "fp32":
        return None
    if not strong:
        return "it takes precision from builder flags, these files carry their own"
    return "it takes precision from the files, these leave it to builder flags"


def instructions(
    profile: HardwareProfile, artefacts: list[Artefact], preprocess: Preprocess
) -> str:
    """Return the part of a bundle's README that is about one TensorRT target, as Markdown."""
    chosen = default_row(profile)
    lines = [
        f"For {chosen.name} (TensorRT {chosen.runtime_version}), in this folder on the device:",
        "",
        *(_DEVICE_SIDE if _runs_device_side(chosen) else _TRTEXEC_ALONE),
        "",
        *_power_modes(profile),
        *([] if profile.seen_on_hardware else [UNSEEN, ""]),
        "With `trtexec` alone: build, then time with CUDA graph and spin wait, without copies.",
        "",
        "```sh",
    ]
    for artefact in artefacts:
        lines.append(_line(build_command(artefact, profile, preprocess, chosen)))
        lines.append(_line(run_command(artefact, preprocess, chosen)))
    lines += [
        "```",
        "",
        *(["Other releases:", ""] if len(profile.stack) > 1 else []),
        *(_row(profile, row, chosen, artefacts) for row in profile.stack if row is not chosen),
    ]
    return "\n".join(lines)


def _power_modes(profile: HardwareProfile) -> list[str]:
    if not profile.power_modes:
        return []
    return [
        "Note the power mode (`nvpmodel -q`) with every figure; modes differ in clocks:",
        "",
        *(f"- `{name}`: {what}" for name, what in profile.power_modes.items()),
        "",
    ]


def _row(profile: HardwareProfile, row: Stack, chosen: Stack, artefacts: list[Artefact]) -> str:
    reasons = {reason for a in artefacts if (reason := obstacle(a, profile, row)) is not None}
    if reasons:
        verdict = f"not with this bundle: {'; '.join(sorted(reasons))}. "
        verdict += f"Make one for it: `{export_command(profile, row)}`."
    elif not _runs_device_side(row):
        verdict = "too old for `edgexfer.pyz`; `trtexec` has other options there."
    elif _version(row)[0] == _version(chosen)[0]:
        verdict = "the same commands; engines are built anew."
    else:
        verdict = "the same commands of `edgexfer.pyz`; `trtexec` has other options there."
    return f"- {row.name} (TensorRT {row.runtime_version}): {verdict}"


def _shapes(artefact: Artefact, preprocess: Preprocess) -> str:
    height, width = preprocess.size
    return f"{artefact.inputs[0].name}:1x3x{height}x{width}"


def _runs_device_side(row: Stack) -> bool:
    """Tell whether a release has Python 3.8 and the name-based API of TensorRT 8.5."""
    python = tuple(int(part) for part in row.python.split(".")[:2])
    return python >= (3, 8) and _version(row) >= (8, 5)


def _engine(artefact: Artefact) -> str:
    return f"../{artefact.name}.engine"


def _version(row: Stack) -> trtexec.Version:
    major, minor = row.runtime_version.split(".")[:2]
    return int(major), int(minor)


def _line(words: list[str]) -> str:
    return " \\\n    ".join(words)
