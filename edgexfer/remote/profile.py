"""Making a profile of a machine: from what was read and measured there to the profile's keys.

Reading and measuring is in ``probe.py``; what a profile may say is checked in ``profiles.py``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgexfer.core.backend import BACKENDS
from edgexfer.core.codec import encode
from edgexfer.core.errors import ProfileError, nearest
from edgexfer.core.profile import Fact, HardwareProfile
from edgexfer.profiles import NAME, SCHEMES, list_profiles, read_peak
from edgexfer.remote.probe import KERNEL_OPSET
from edgexfer.yamlio import validate

# Facts of a machine that hold tomorrow too.
_LASTING = (
    *("board", "soc", "cpu", "cpu_flags", "cores", "memory_bytes", "cache_mib", "max_mhz", "gpus"),
    *("os", "l4t", "jetpack", "glibc", "page_bytes"),
)
# CPU flags of instructions that multiply and add uint8 by int8 without saturating.
_DOT_PRODUCTS = {"avx_vnni", "avx512_vnni", "amx_int8"}
_PROBED = "read on this machine by `edgexfer profiles probe`"
# A machine with more load than this has done something else beside the measurement.
IDLE_LOAD = 0.5


def probe(
    facts: Mapping[str, Any],
    backend: str = "onnxruntime",
    name: str | None = None,
    measured: Mapping[str, Fact] | None = None,
) -> HardwareProfile:
    """Make a profile of the machine that ``facts`` were read from.

    Args:
        facts: what ``bench.device.facts`` gave; what is absent (``None``) is left out, and so is
            what says how the machine was at that moment, but for a load that spoils the peaks.
        backend: the runtime that the profile is for.
        name: of the profile; ``None`` makes one of the board or processor and the backend.
        measured: what the runtime reached there. A precision with a peak is one that the chip has;
            the faster is preferred.

    Raises:
        ProfileError: the backend is unknown, or the name holds other characters than a-z, 0-9, -.
    """
    if backend not in BACKENDS:
        raise ProfileError(f"backend {backend!r} is unknown", nearest(backend, BACKENDS))
    if name is not None and not NAME.fullmatch(name):
        raise ProfileError(f"{name!r} is not a valid profile name", "use a-z, 0-9 and -")
    machine = str(facts.get("machine") or "unknown")
    title = str(facts.get("board") or facts.get("cpu") or machine)
    lasting = {key: facts[key] for key in _LASTING if facts.get(key) is not None}
    scheme = SCHEMES.get(backend)
    known = {key: _with_load(key, fact, facts) for key, fact in (measured or {}).items()}
    peaks = {
        peak[0]: fact.value * peak[1]
        for key, fact in known.items()
        if (peak := read_peak(key)) is not None
    }
    found = sorted(peaks, key=lambda precision: -peaks[precision])
    value: dict[str, Any] = {
        "name": name or f"{_slug(title)}-{backend}",
        "title": f"{title}, {backend}",
        "backend": backend,
        "device": "GPU" if backend == "tensorrt" else "CPU",
        "compile_on": "device" if backend == "tensorrt" else "host",
        "machine": machine,
        "seen_on_hardware": False,  # its facts were read, but no benchmark has run
        "precisions": found or (["int8", "fp32"] if scheme else ["fp32"]),
        "stack": _rows(backend, facts, known),
        "facts": {
            **{k: encode(Fact(v, "measured", _PROBED)) for k, v in lasting.items()},
            **encode(known),
        },
    }
    if scheme:
        value["quantization"] = {"scheme": scheme, **_int8_for(machine, backend, facts)}
    return validate(HardwareProfile, value, Path("probe"), ProfileError)


def is_busy(facts: Mapping[str, Any]) -> bool:
    """Tell whether something else ran on the machine before it was measured."""
    return (facts.get("load1") or 0.0) > IDLE_LOAD


def _with_load(key: str, fact: Fact, facts: Mapping[str, Any]) -> Fact:
    """Say in a ceiling's source that the machine was not idle, as the figure may be too low."""
    if not is_busy(facts) or (read_peak(key) is None and key != "memory_bandwidth_gb_s"):
        return fact
    return replace(fact, source=f"{fact.source}; load {facts['load1']} before it, may be too low")


def _rows(
    backend: str, facts: Mapping[str, Any], measured: Mapping[str, Fact]
) -> list[dict[str, Any]]:
    """Return the one release that was found, none where it is not known.

    Of the opset it says what profiles say of this release or an older one, and at least that of the
    files that have just run.
    """
    ran = measured.get(f"{backend}_version")
    installed = facts.get("packages") or {}
    text = str(ran.value) if ran else str(installed.get(backend, ""))
    version = re.search(r"\d+(\.\d+)+", text)
    if version is None or not facts.get("glibc") or not facts.get("python"):
        return []
    known = [row for p in list_profiles() if p.backend == backend for row in p.stack]
    older = [row for row in known if _numbers(row.runtime_version) <= _numbers(version[0])]
    opsets = [row.onnx_opset_max for row in older] + ([KERNEL_OPSET] if ran else [])
    if not opsets:
        return []
    row = {
        "name": f"{backend} {version[0]}",
        "runtime_version": version[0],
        "python": ".".join(str(facts["python"]).split(".")[:2]),
        "glibc": facts["glibc"],
        "onnx_opset_max": max(opsets),
        "default": True,
    }
    if backend == "tensorrt" and _numbers(version[0]) < (10,):
        row["typing"] = "weak"
    return [row]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _int8_for(machine: str, backend: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Choose INT8 types: uint8 by int8 is what x86 multiplies, int8 by int8 what all others do."""
    if backend != "onnxruntime" or machine != "x86_64":
        return {"activations": "int8"}
    flags = facts.get("cpu_flags")
    saturates = flags is not None and not _DOT_PRODUCTS & set(flags)
    return {"activations": "uint8", "reduce_range": saturates}


def _slug(text: str) -> str:
    """Turn a chip's name into a profile's: lower case, words joined by ``-``, no trade marks."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"\((r|tm)\)|\bcpu\b|@.*", " ", text.lower()))
    return "-".join(words) or "machine"
