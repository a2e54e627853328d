"""``trtexec``, the second route to an engine: its command lines per version, and what it writes.

Commands are lists of words, for no shell. Percentiles are computed here from the raw times
(``core.stats``), so that they mean the same as everywhere else; trtexec's own summary only serves
to check them. Options and formats follow TensorRT's open-source ``samples/common``, 8.2 to 11.1.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from edgexfer.core.backend import Plan
from edgexfer.core.errors import BackendError
from edgexfer.core.stats import Quantile, median, quantile

TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
# Its own default is all the memory there is, which a Jetson shares with everything else.
WORKSPACE_MIB = 1024
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
# Beyond this the times are not those of the log.
_AGREE_PCT = 2.0
_REPEAT = "run the same trtexec command again, and keep its files apart from other runs'"
_LENGTHS = ("h2dMs", "computeMs", "d2hMs", "latencyMs")

Version = Tuple[int, int]


@dataclass(frozen=True)
class Timing:
    """How a run is timed; TensorRT 11 turned the defaults of the first three round.

    Attributes:
        cuda_graph: replay a CUDA graph.
        spin_wait: wait for the GPU with a busy CPU.
        transfers: copy inputs and outputs in every query.
        warmup_ms: untimed at first.
        seconds: least time of the timed part.
        queries: least number of them.
    """

    cuda_graph: bool = True
    spin_wait: bool = True
    transfers: bool = False
    warmup_ms: int = 500
    seconds: int = 10
    queries: int = 200


@dataclass(frozen=True)
class Files:
    """Paths in a command.

    Attributes:
        model: ONNX file.
        engine: the engine.
        timing_cache: kernels' timings, kept for the next build.
    """

    model: str
    engine: str
    timing_cache: str


def build_command(
    tool: str, version: Version, files: Files, shapes: Optional[str], plan: Plan
) -> List[str]:
    """Return the words that build an engine.

    Args:
        tool: path of trtexec.
        version: of its TensorRT, major and minor.
        files: see there.
        shapes: such as ``images:1x3x224x224``; ``None`` for a file with a fixed batch.
        plan: precision, device and the options ``workspace_mib``, ``dla_core``, ``gpu_fallback``
            and ``calibration_cache`` of the tensorrt backend.

    Raises:
        BackendError: the version is too old, or takes no calibration cache.
    """
    if version < (8, 2):
        raise BackendError(
            f"TensorRT {version[0]}.{version[1]} is older than 8.2", "use JetPack 4.6.1 or newer"
        )
    options = plan.options
    words = [tool, f"--onnx={files.model}", f"--saveEngine={files.engine}"]
    words += [f"--shapes={shapes}"] if shapes else []
    # Without a unit it is MiB in every version.
    pool = "--workspace=" if version < (8, 5) else "--memPoolSize=workspace:"
    words.append(f"{pool}{options.get('workspace_mib', WORKSPACE_MIB)}")
    words += [f"--timingCacheFile={files.timing_cache}", "--profilingVerbosity=detailed"]
    words += _precision(version, files, plan)
    if plan.device == "DLA":
        words.append(f"--useDLACore={options.get('dla_core', 0)}")
        words += ["--allowGPUFallback"] if options.get("gpu_fallback", True) else []
    words.append("--buildOnly" if version < (8, 6) else "--skipInference")
    return words


def _precision(version: Version, files: Files, plan: Plan) -> List[str]:
    cache = plan.options.get("calibration_cache")
    if cache and version[0] >= 11:
        raise BackendError(
            f"TensorRT {version[0]} takes no calibration cache", "export with Q/DQ nodes"
        )
    # Up to 10 it sets FP16 itself where it builds for a DLA, which a typed network refuses.
    by_flags = version[0] < 10 or bool(cache) or (version[0] == 10 and plan.device == "DLA")
    if plan.precision == "fp32":
        words = ["--noTF32"]
    elif by_flags:
        words = ["--fp16"] + (["--int8"] if plan.precision == "int8" else [])
    else:
        words = []
    # The option names a file beside the model's.
    words += [f"--calib={Path(files.model).with_name(str(cache))}"] if cache else []
    # TensorRT 11 types every network strongly, and only warns about the option.
    return words + (["--stronglyTyped"] if version[0] == 10 and not by_flags else [])


def run_command(
    tool: str, version: Version, engine: str, shapes: Optional[str], times: str, timing: Timing
) -> List[str]:
    """Return the words that time an engine and write each query's times to ``times``.

    The three settings are said whatever the version; where its default is meant and it has no word
    for that (off, up to TensorRT 10), the default is what they get.
    """
    inverted = version[0] >= 11
    words = [tool, f"--loadEngine={engine}"]
    words += [f"--shapes={shapes}"] if shapes else []
    words += _switch(timing.cuda_graph, "--useCudaGraph", "--noCudaGraph" if inverted else None)
    words += _switch(timing.spin_wait, "--useSpinWait", "--noSpinWait" if inverted else None)
    words += _switch(
        timing.transfers, "--includeDataTransfers" if inverted else None, "--noDataTransfers"
    )
    return [
        *words,
        f"--warmUp={timing.warmup_ms}",
        f"--duration={timing.seconds}",
        f"--iterations={timing.queries}",
        "--avgRuns=100",
        "--percentile=50,90,95,99",
        f"--exportTimes={times}",
    ]


def _switch(on: bool, yes: Optional[str], no: Optional[str]) -> List[str]:
    word = yes if on else no
    return [word] if word else []


def layers_command(
    tool: str, version: Version, engine: str, shapes: Optional[str], out: Tuple[str, str]
) -> List[str]:
    """Return the words that time each layer, in a run of its own since that slows the whole.

    ``out`` names the files for the profile and for the layers' information.
    """
    words = [tool, f"--loadEngine={engine}"]
    words += [f"--shapes={shapes}"] if shapes else []
    words += ["--dumpProfile", f"--exportProfile={out[0]}", f"--exportLayerInfo={out[1]}"]
    words.append("--profilingVerbosity=detailed")
    return words + (["--separateProfileRun"] if version[0] < 11 else [])


@dataclass(frozen=True)
class Times:
    """The queries of a timed run, in their order, in nanoseconds.

    Attributes:
        compute_ns: the GPU's own work.
        latency_ns: that and the copies; not the time spent waiting in a queue.
        enqueue_ns: the CPU's time to hand a query over.
        transfers: whether inputs and outputs were copied.
    """

    compute_ns: Tuple[int, ...]
    latency_ns: Tuple[int, ...]
    enqueue_ns: Tuple[int, ...]
    transfers: bool

    def quantiles(self) -> Dict[str, Quantile]:
        """Return percentiles of ``compute_ns`` with their bounds, as every record has them."""
        return {name: quantile(self.compute_ns, q) for name, q in QUANTILES.items()}


def parse_times(text: str, source: str) -> Times:
    """Read the file of ``--exportTimes``; its keys are the same from 8.2 to 11.

    Raises:
        BackendError: it is no such file, has no query, or one whose parts do not add up.
    """
    try:
        queries: Any = json.loads(text)
        rows = [{key: _milliseconds(query[key]) for key in _LENGTHS} for query in queries]
        enqueue = [query["endEnqMs"] - query["startEnqMs"] for query in queries]
        if not rows:
            raise ValueError("no query")
        for row in rows:
            parts = row["h2dMs"] + row["computeMs"] + row["d2hMs"]
            if row["computeMs"] <= 0 or abs(parts - row["latencyMs"]) > 1e-3 + 1e-3 * parts:
                raise ValueError("a query whose parts do not add up")
    except (ValueError, LookupError, TypeError) as error:
        raise _no(source, "times of trtexec (--exportTimes)", error) from error
    return Times(
        tuple(_ns(row["computeMs"]) for row in rows),
        tuple(_ns(row["latencyMs"]) for row in rows),
        tuple(_ns(value) for value in enqueue),
        any(row["h2dMs"] > 0 or row["d2hMs"] > 0 for row in rows),
    )


@dataclass(frozen=True)
class LayerTime:
    """One layer's time in a profiling run, in nanoseconds; ``median_ns`` from 8.5 on."""

    name: str
    average_ns: int
    median_ns: Optional[int]
    share_pct: float


def parse_profile(text: str, source: str) -> Tuple[int, Tuple[LayerTime, ...]]:
    """Read the file of ``--exportProfile``: how many queries, and each layer's time in them.

    Raises:
        BackendError: it is no such file.
    """
    try:
        head, *rows = json.loads(text)
        count = head["count"]
        if not isinstance(count, int) or count < 1 or not rows:
            raise ValueError("no query or no layer")
        layers = [
            LayerTime(
                str(row["name"]),
                _ns(_milliseconds(row["averageMs"])),
                _ns(_milliseconds(row["medianMs"])) if "medianMs" in row else None,
                float(row["percentage"]),
            )
            for row in rows
        ]
    except (ValueError, LookupError, TypeError) as error:
        raise _no(source, "profile of trtexec (--exportProfile)", error) from error
    return count, tuple(layers)


@dataclass(frozen=True)
class Log:
    """What trtexec printed.

    Attributes:
        version: of TensorRT, major and minor.
        device: the GPU's name; ``None`` where it was not printed.
        compute_median_ns: of its own summary; ``None`` for a build.
        warnings: its remarks on the measurement.
    """

    version: Version
    device: Optional[str]
    compute_median_ns: Optional[int]
    warnings: Tuple[str, ...]


def parse_log(text: str, source: str) -> Log:
    """Read trtexec's output.

    Raises:
        BackendError: it failed (with its first error), was cut off, or is none of trtexec's.
    """
    version = parse_version(text, source)
    if "&&&& PASSED TensorRT.trtexec" not in text:
        errors = re.findall(r"\[E\] (.+)", text)
        reason = " ".join(errors[0].split())[:200] if errors else "its log ends early"
        raise BackendError(
            f"{source}: trtexec of TensorRT {version[0]}.{version[1]} failed ({reason})",
            "mend what it names; options differ from version to version",
        )
    device = re.search(r"\[I\] Selected Device: (.+)", text)
    middle = re.search(r"GPU Compute Time: .*?median = ([\d.]+) ms", text)
    return Log(
        version,
        device.group(1).strip() if device else None,
        _ns(float(middle.group(1))) if middle else None,
        tuple(" ".join(line.split()) for line in re.findall(r"\[W\] \* (.+)", text)),
    )


def parse_version(text: str, source: str) -> Version:
    """Read TensorRT's version from trtexec's first line, such as ``v8502`` or ``v100300``.

    Raises:
        BackendError: there is none.
    """
    found = re.search(r"&&&& RUNNING TensorRT\.trtexec \[TensorRT v(\d{4,6})\]", text)
    if found is None:
        raise BackendError(f"{source}: is not output of trtexec", f"name one such as {TRTEXEC}")
    number = int(found.group(1))
    # Up to 9 a digit each for major and minor, from 10 on two.
    return (number // 1000, number // 100 % 10) if number < 10_000 else divmod(number // 100, 100)


def disagreement(times: Times, log: Log) -> Optional[str]:
    """Say by how much the times' median and that of trtexec's log differ, where it is too much."""
    if log.compute_median_ns is None:
        return "trtexec's log has no summary to check the times with"
    ours = median(times.compute_ns)
    off_pct = 100 * abs(ours / log.compute_median_ns - 1) if log.compute_median_ns else math.inf
    if off_pct <= _AGREE_PCT:
        return None
    return f"the times' median is {off_pct:.1f} % off the one in trtexec's log"


def _milliseconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is not a time")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is not a time")
    return float(value)


def _ns(milliseconds: float) -> int:
    return round(1e6 * milliseconds)


def _no(source: str, what: str, error: Exception) -> BackendError:
    reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
    return BackendError(f"{source}: holds no {what} ({reason})", _REPEAT)
