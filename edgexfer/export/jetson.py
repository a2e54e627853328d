"""How an artefact is built and timed with ``trtexec`` on a Jetson, as text for people.

An engine is bound to the GPU and the TensorRT version that built it, so a bundle carries ONNX and
these commands. The commands follow the options of TensorRT's own sources; none of them has been run
by edgexfer on a Jetson.
"""

from __future__ import annotations

from edgexfer.core.bundle import Artefact
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.profile import HardwareProfile, Stack
from edgexfer.export.lower import default_row

TRTEXEC = "/usr/src/tensorrt/bin/trtexec"


def build_command(artefact: Artefact, preprocess: Preprocess, row: Stack) -> list[str]:
    """Return the words of the command that builds an engine with a release's TensorRT.

    Engines go beside the bundle: a file that its manifest does not list would break its seal.
    """
    words = [
        TRTEXEC,
        f"--onnx={artefact.files[0].path}",
        f"--saveEngine=../{artefact.name}.engine",
        _shapes(artefact, preprocess),
        "--memPoolSize=workspace:1024M",
        "--timingCacheFile=../timing.cache",
        "--profilingVerbosity=detailed",
        "--skipInference",
    ]
    # TensorRT 11 types every network strongly and only warns about the option.
    if _major(row) == 10:
        words.append("--stronglyTyped")
    if artefact.precision == "fp32":
        words.append("--noTF32")
    return words


def run_command(artefact: Artefact, preprocess: Preprocess) -> list[str]:
    """Return the words of the command that times an engine.

    CUDA graph, spin wait and data transfers are always said: TensorRT 11 turned the default of each
    round, and figures under different settings cannot be compared. Said like this they mean the
    same in every version.
    """
    return [
        TRTEXEC,
        f"--loadEngine=../{artefact.name}.engine",
        _shapes(artefact, preprocess),
        "--useCudaGraph",
        "--useSpinWait",
        "--noDataTransfers",
        "--warmUp=500",
        "--duration=10",
        "--iterations=200",
        "--avgRuns=100",
        "--percentile=50,90,95,99",
        f"--exportTimes=../{artefact.name}-times.json",
    ]


def obstacle(artefact: Artefact, row: Stack) -> str | None:
    """Say why a software release cannot build an artefact, ``None`` when it can."""
    if artefact.opset is not None and artefact.opset > row.onnx_opset_max:
        return (
            f"its parser takes ONNX up to opset {row.onnx_opset_max}, "
            f"these files are opset {artefact.opset}"
        )
    if row.typing == "weak" and artefact.precision != "fp32":
        return "it takes precision from builder flags, these files carry their own"
    return None


def instructions(
    profile: HardwareProfile, artefacts: list[Artefact], preprocess: Preprocess
) -> str:
    """Return the part of a bundle's README that is about one TensorRT target, as Markdown."""
    chosen = default_row(profile)
    lines = [
        f"For {chosen.name} (TensorRT {chosen.runtime_version}), in this folder on the device:",
        "",
        "```sh",
    ]
    for artefact in artefacts:
        lines.append(_line(build_command(artefact, preprocess, chosen)))
        lines.append(_line(run_command(artefact, preprocess)))
    lines += [
        "```",
        "",
        "The timed run measures the GPU alone: CUDA graph and spin wait on, transfers off.",
        "Note the power mode (`nvpmodel -q`) with every figure; modes differ in clocks:",
        "",
        *(f"- `{name}`: {what}" for name, what in profile.power_modes.items()),
        "",
        "Other releases:",
        "",
        *(_row(row, chosen, artefacts) for row in profile.stack if row is not chosen),
    ]
    return "\n".join(lines)


def _row(row: Stack, chosen: Stack, artefacts: list[Artefact]) -> str:
    reasons = {reason for a in artefacts if (reason := obstacle(a, row)) is not None}
    if reasons:
        verdict = f"not with this bundle: {'; '.join(sorted(reasons))}."
    elif _major(row) == _major(chosen):
        verdict = "the same commands; build the engines anew."
    else:
        verdict = "the same commands without `--stronglyTyped`; build the engines anew."
    return f"- {row.name} (TensorRT {row.runtime_version}): {verdict}"


def _shapes(artefact: Artefact, preprocess: Preprocess) -> str:
    height, width = preprocess.size
    return f"--shapes={artefact.inputs[0].name}:1x3x{height}x{width}"


def _major(row: Stack) -> int:
    return int(row.runtime_version.split(".")[0])


def _line(words: list[str]) -> str:
    return " \\\n    ".join(words)
