"""The second route on a Jetson: build and time an artefact with the board's own ``trtexec``.

Its figure is the GPU's compute time alone, which checks that of the package's own runner; it says
nothing of accuracy. Commands and parsers live in ``backends/trtexec``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from edgexfer.backends._layers import parse_layers
from edgexfer.backends._trtexec import (
    Files,
    Timing,
    Version,
    build_command,
    disagreement,
    layers_command,
    parse_log,
    parse_profile,
    parse_times,
    parse_version,
    run_command,
)
from edgexfer.bench.child import run_child
from edgexfer.bench.device import facts
from edgexfer.bench.emulated import refuse_emulation
from edgexfer.bench.engines import engines_folder
from edgexfer.bench.job import plan_of, read_profile
from edgexfer.core.bundle import Artefact, Manifest
from edgexfer.core.codec import encode
from edgexfer.core.errors import BackendError, InputError
from edgexfer.core.files import make_dir, write_atomic
from edgexfer.core.stats import Quantile

SCHEMA = "edgexfer.trtexec/1"
LIMIT_S = 1800.0
_PROBE_S = 60.0


@dataclass(frozen=True)
class Trial:
    """What trtexec measured of one artefact.

    Attributes:
        schema: ``edgexfer.trtexec/1``.
        artefact: its name.
        tensorrt: version of trtexec's TensorRT, major and minor.
        gpu: the GPU's name as trtexec gives it.
        timing: the settings that were asked for.
        commands: the words of each command, in their order.
        compute: percentiles of the GPU's compute time, in nanoseconds.
        compute_ns: the raw times.
        latency_ns: likewise with the copies.
        enqueue_ns: likewise of the CPU's share.
        layer_types: how many layers run in which precision; ``None`` where it was not told.
        slowest: layers with the largest share of the time.
        warnings: what the reader should know.
        device: facts of the machine.
    """

    schema: str
    artefact: str
    tensorrt: Version
    gpu: Optional[str]
    timing: Timing
    commands: Tuple[Tuple[str, ...], ...]
    compute: Dict[str, Quantile]
    compute_ns: Tuple[int, ...]
    latency_ns: Tuple[int, ...]
    enqueue_ns: Tuple[int, ...]
    layer_types: Optional[Dict[str, int]]
    slowest: Tuple[Dict[str, Any], ...]
    warnings: Tuple[str, ...]
    device: Dict[str, Any] = field(default_factory=dict)


def try_artefact(
    bundle: Path, manifest: Manifest, artefact: Artefact, tool: str, timing: Timing
) -> Trial:
    """Build an engine beside the bundle, time it, and time its layers in a run of their own.

    Raises:
        InputError: the artefact is not for TensorRT.
        BackendError: trtexec is not there, fails, or writes what cannot be believed; or an emulator
            runs this process.
    """
    refuse_emulation("trtexec")
    if artefact.backend != "tensorrt":
        raise InputError(
            f"artefact {artefact.name} is for {artefact.backend}, not for TensorRT",
            "name a TensorRT artefact with --artefact",
        )
    plan = plan_of(artefact, read_profile(bundle, manifest, artefact), 0)
    probe = run_child([tool, "--help"], _PROBE_S)
    version = parse_version(probe.stdout + probe.stderr, tool)
    folder = make_dir(engines_folder(bundle) / "trtexec")
    shapes = _shapes(artefact, manifest)
    base = folder / artefact.name
    engine, times, layers, profile = (
        f"{base}{suffix}" for suffix in (".engine", "-times.json", "-layers.json", "-profile.json")
    )
    files = Files(str(bundle / artefact.files[0].path), engine, str(folder / "timing.cache"))
    commands = [
        build_command(tool, version, files, shapes, plan),
        run_command(tool, version, engine, shapes, times, timing),
        layers_command(tool, version, engine, shapes, (profile, layers)),
    ]
    logs = [_do(words, f"{base}-{i}.log") for i, words in enumerate(commands)]
    log = parse_log(logs[1], f"{base}-1.log")
    found = parse_times(_read(times), times)
    if found.transfers and not timing.transfers:
        raise BackendError(
            f"{times}: holds copies, which were switched off", "use the trtexec of this TensorRT"
        )
    _, layer_times = parse_profile(_read(profile), profile)
    ranked = sorted(layer_times, key=lambda layer: -layer.share_pct)
    doubt = disagreement(found, log)
    return Trial(
        schema=SCHEMA,
        artefact=artefact.name,
        tensorrt=version,
        gpu=log.device,
        timing=timing,
        commands=tuple(tuple(words) for words in commands),
        compute=found.quantiles(),
        compute_ns=found.compute_ns,
        latency_ns=found.latency_ns,
        enqueue_ns=found.enqueue_ns,
        layer_types=parse_layers(_read(layers), layers).types,
        slowest=tuple(encode(layer) for layer in ranked[:10]),
        warnings=(*log.warnings, *([doubt] if doubt else [])),
        device=facts(),
    )


def _shapes(artefact: Artefact, manifest: Manifest) -> Optional[str]:
    """Return the word for batch 1, ``None`` where the file's own batch is fixed."""
    (spec,) = artefact.inputs
    if -1 not in spec.shape:
        return None
    height, width = manifest.preprocess.size
    return f"{spec.name}:1x3x{height}x{width}"


def _do(words: List[str], log: str) -> str:
    """Run one command, keep its output, and refuse one that failed."""
    done = run_child(words, LIMIT_S)
    text = done.stdout + done.stderr
    write_atomic(log, text)
    if done.code is None:
        raise BackendError(
            f"trtexec did not end within {LIMIT_S:.0f} s", f"read {log}, or choose a smaller model"
        )
    parse_log(text, log)
    if done.code != 0:
        raise BackendError(f"trtexec ended with exit code {done.code}", f"read {log}")
    return text


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError as error:
        raise BackendError(
            f"{path}: trtexec did not write it ({error.strerror})", "read the log beside it"
        ) from error
