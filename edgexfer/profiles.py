"""Hardware profiles: finding them by name, and checking them.

A profile is one YAML file; its types live in ``core/profile.py``, and one of a machine is made in
``remote/profile.py``. Nothing here imports a runtime or touches a device.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgexfer.core.backend import BACKENDS
from edgexfer.core.codec import encode
from edgexfer.core.errors import ProfileError, nearest
from edgexfer.core.files import PathLike
from edgexfer.core.profile import HardwareProfile, Stack
from edgexfer.yamlio import (
    Fault,
    dump_yaml,
    examine,
    json_schema,
    key_lines,
    line_of,
    mends,
    read_yaml,
)

_HERE = Path(__file__).parent
NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
# Which quantization scheme each runtime can run; a runtime that is not named runs no INT8 artefact.
SCHEMES = {"onnxruntime": "qdq", "tensorrt": "qdq", "openvino": "nncf"}
_PRECISIONS = {
    "onnxruntime": ("fp32", "int8"),
    "openvino": ("fp32", "fp16", "bf16", "int8"),
    "tensorrt": ("fp32", "fp16", "int8"),
    "torch": ("fp32",),
    "null": ("fp32",),
}
_DEVICES = {
    "onnxruntime": ("CPU", "CUDA"),
    "openvino": ("CPU", "GPU", "NPU"),
    "tensorrt": ("GPU", "DLA"),
    "torch": ("CPU",),
    "null": ("CPU",),
}
# ONNX opset 7 is the oldest that any parser here takes; far above the newest is a slip of the hand.
_OPSETS = (7, 40)
_VERSION = re.compile(r"\d+(\.\d+)*")
# What the key of a number may end in.
_UNITS = (
    *("count", "cores", "bit", "bytes", "kib", "mib", "gib", "mb", "gb", "mhz", "ghz", "w", "ms"),
    *("gb_s", "gflop_s", "tflop_s", "gop_s", "top_s", "flop_per_cycle_core", "op_per_cycle_core"),
)
_PEAK = re.compile(
    r"(?P<float>fp32|fp16|bf16)_(dense_)?peak_(?P<flop>[gt])flop_s"
    r"|(?P<int>int8)_(dense_)?peak_(?P<op>[gt])op_s"
)
_FACTORS = {"g": 1e9, "t": 1e12}
# What the roofline reads besides the peaks.
_READ = ("memory_bandwidth_gb_s", "memory_gb", "memory_bytes", "cache_mib")
_SOME_UNITS = "_gb, _gb_s, _mhz, _w, _count, _gflop_s, _top_s or another unit"


def profiles_dir() -> Path:
    """Return the folder of the profiles that come with edgexfer.

    A wheel carries them inside the package; in a source checkout they stand beside it.
    """
    packed = _HERE / "_profiles"
    return packed if packed.is_dir() else _HERE.parent / "profiles"


def list_profiles() -> list[HardwareProfile]:
    """Return the profiles that come with edgexfer, by name.

    Raises:
        ProfileError: one of them is wrong.
    """
    return list(_read_all(profiles_dir()))


@functools.cache
def _read_all(folder: Path) -> tuple[HardwareProfile, ...]:
    """Read all profiles of a folder; each alias that is looked up needs them all."""
    paths = sorted(folder.glob("*.yaml"), key=lambda path: path.stem)
    return tuple(check_profile(path) for path in paths)


def find_profile(name_or_path: PathLike) -> HardwareProfile:
    """Return a profile by name, alias or path of a YAML file.

    Raises:
        ProfileError: there is none, with the nearest names; or it is wrong, with every fault.
    """
    text = str(name_or_path)
    if Path(text).suffix in (".yaml", ".yml") or "/" in text:
        return check_profile(text)
    place = profiles_dir() / f"{text}.yaml"
    if NAME.fullmatch(text) and place.is_file():
        return check_profile(place)
    known = list_profiles()
    for profile in known:
        if text in profile.aliases:
            return profile
    raise ProfileError(f"profile {text!r} is unknown", _like(text, known))


def _like(text: str, known: Sequence[HardwareProfile]) -> str:
    """Say which profiles an unknown name may mean: by part of a name or title, else by letters."""
    words = text.lower().replace("_", "-").replace(" ", "-")
    found = [p.name for p in known if words and words in _searched(p)]
    if found:
        more = ", ..." if len(found) > 6 else ""
        return f"did you mean {', '.join(found[:6])}{more}? (`edgexfer profiles list`)"
    names = [n for profile in known for n in (profile.name, *profile.aliases)]
    close = nearest(text, names)
    if close.startswith("did you mean"):
        return f"{close} (`edgexfer profiles list`)"
    return "see `edgexfer profiles list`, or write your own: `edgexfer profiles probe -o FILE`"


def _searched(profile: HardwareProfile) -> str:
    return " ".join((profile.name, *profile.aliases, profile.title.lower().replace(" ", "-")))


def check_profile(path: PathLike) -> HardwareProfile:
    """Read a profile and check everything that can be said without the device.

    Raises:
        ProfileError: every fault at once, each with its key and, where it has one, its line.
    """
    place = Path(path)
    value = read_yaml(place, ProfileError)
    lines = key_lines(place)
    profile, faults = examine(HardwareProfile, value, place, ProfileError, lines)
    wrong = {_part(loc) for loc, _, _ in faults}
    rest = profile or _without(value, wrong, place)
    for loc, fault, fix in contradictions(rest, place.stem) if rest else ():
        if _part(loc) not in wrong:
            faults.append((loc, f"{fault}{line_of(loc, lines)}", fix))
    if faults or profile is None:
        what = "; ".join(fault for _, fault, _ in faults)
        raise ProfileError(f"{place}: {what}", mends(faults))
    return profile


def _part(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the part of a profile that a fault spoils: one fact, or one key of the file."""
    return loc[:2] if loc[0] == "facts" else loc[:1]


def _without(
    value: Mapping[str, Any], wrong: set[tuple[Any, ...]], place: Path
) -> HardwareProfile | None:
    """Return what a file says besides its wrong parts, so that its sense is checked all the same.

    What is wrong is empty here, and what is said of it is none of the user's faults; ``None`` where
    the rest is no profile.
    """
    empty = {key: "" for key in ("title", "backend", "device", "machine")}
    kept = {key: item for key, item in value.items() if (key,) not in wrong}
    if isinstance(facts := kept.get("facts"), dict):
        kept["facts"] = {key: item for key, item in facts.items() if ("facts", key) not in wrong}
    if ("precisions",) in wrong:
        kept["precisions"] = []
    whole = {"name": place.stem, "seen_on_hardware": False, **empty, **kept}
    return examine(HardwareProfile, whole, place, ProfileError)[0]


def read_peak(key: str) -> tuple[str, float] | None:
    """Return the precision and the unit, in operations per second, of a fact that is a peak.

    ``None`` for any other fact. A multiplication and an addition are two operations.
    """
    match = _PEAK.fullmatch(key)
    if match is None:
        return None
    return match["float"] or match["int"], _FACTORS[match["flop"] or match["op"]]


def to_yaml(profile: HardwareProfile) -> str:
    """Write a profile as YAML that ``check_profile`` reads back to an equal one."""
    return dump_yaml(encode(profile))


def profile_schema() -> str:
    """Return the JSON Schema of a profile, for editors."""
    return json_schema(HardwareProfile)


def contradictions(profile: HardwareProfile, stem: str) -> list[Fault]:
    """Return what the types cannot tell."""
    topics = (_misnamed, _impossible, _unheard, _untrue_rows, _unmeasured, _unkept, _repeated)
    faults = [fault for topic in topics for fault in topic(profile)]
    if profile.name != stem:
        fault = f"name is {profile.name!r}"
        faults.insert(0, (("name",), fault, f"name it {stem!r}, like its file"))
    return faults


def _misnamed(profile: HardwareProfile) -> Iterator[Fault]:
    names: list[tuple[tuple[Any, ...], str]] = [(("name",), profile.name)]
    names += [(("aliases", i), alias) for i, alias in enumerate(profile.aliases)]
    for loc, name in names:
        if not NAME.fullmatch(name):
            fix = "use a-z, 0-9 and -, such as jetson-orin-nano"
            yield loc, f"{loc[0]}: {name!r} is not a valid name", fix


def _impossible(profile: HardwareProfile) -> Iterator[Fault]:
    """Yield what the backend or the chip does not have."""
    if profile.backend not in BACKENDS:
        fault = f"backend is {profile.backend!r}"
        yield ("backend",), fault, nearest(profile.backend, BACKENDS)
    devices = _DEVICES.get(profile.backend, ())
    if devices and profile.device.split(".")[0] not in devices:
        fault = f"device is {profile.device!r}"
        yield ("device",), fault, f"backend {profile.backend} runs on {' or '.join(devices)}"
    for place, precision in enumerate(profile.precisions):
        loc = ("precisions", place)
        if precision not in _PRECISIONS.get(profile.backend, (precision,)):
            fault = f"precisions lists {precision}, which backend {profile.backend} cannot run"
            yield loc, fault, f"take {precision} out of precisions"
        elif profile.arithmetic and precision not in profile.arithmetic:
            fault = f"precisions lists {precision}, which the chip lacks"
            yield loc, fault, f"list {' or '.join(profile.arithmetic)}, as in arithmetic"
    # A chip without fp32, such as an NPU, has no fp32 artefact.
    if "fp32" not in profile.precisions and "fp32" in (profile.arithmetic or ("fp32",)):
        fix = "list fp32, the reference of the others"
        yield ("precisions",), "precisions has no fp32", fix


def _unheard(profile: HardwareProfile) -> Iterator[Fault]:
    """Yield what the profile asks of its quantizer and the quantizer cannot do."""
    asked, scheme = profile.quantization, SCHEMES.get(profile.backend)
    if "int8" not in profile.precisions or scheme is None:
        return
    wrong: list[tuple[str, Any, str]] = []
    if asked.scheme != scheme:
        wrong.append(("scheme", asked.scheme, f"backend {profile.backend} takes {scheme!r}"))
    if profile.backend == "tensorrt" and asked.activations != "int8":
        wrong.append(("activations", asked.activations, "TensorRT takes 'int8' alone"))
    if asked.scheme == "nncf" and asked.weights != "int8-per-channel":
        wrong.append(("weights", asked.weights, "NNCF makes 'int8-per-channel' alone"))
    if asked.scheme == "nncf" and asked.reduce_range:
        wrong.append(("reduce_range", True, "leave it out, NNCF decides on it itself"))
    for key, value, fix in wrong:
        yield ("quantization", key), f"quantization.{key} is {value!r}", fix


def _untrue_rows(profile: HardwareProfile) -> Iterator[Fault]:
    """Yield what no release of the runtime can be."""
    defaults = [row.name for row in profile.stack if row.default]
    if len(defaults) > 1:
        yield ("stack",), f"stack has {len(defaults)} default rows", "mark one row as default"
    for place, row in enumerate(profile.stack):
        for key in ("runtime_version", "python", "glibc"):
            version = getattr(row, key)
            if not _VERSION.fullmatch(version):
                fault = f"stack.{place}.{key} is {version!r}"
                yield ("stack", place, key), fault, "give numbers with dots, such as 10.3.0"
        if not _OPSETS[0] <= row.onnx_opset_max <= _OPSETS[1]:
            fault = f"stack.{place}.onnx_opset_max is {row.onnx_opset_max}"
            fix = f"give an opset of {_OPSETS[0]} to {_OPSETS[1]}"
            yield ("stack", place, "onnx_opset_max"), fault, fix
        mend = _typing_fix(profile.backend, row)
        if mend is not None:
            fault = f"stack.{place}.typing is {row.typing!r} for {row.runtime_version}"
            yield ("stack", place, "typing"), fault, mend
        if row.dla and "dla_cores" in profile.facts and not profile.facts["dla_cores"].value:
            fault = f"stack.{place}.dla is true, facts.dla_cores is 0"
            yield ("stack", place, "dla"), fault, "take dla out of the row"


def _typing_fix(backend: str, row: Stack) -> str | None:
    """Say what is wrong with a row's typing, ``None`` where it can be."""
    if backend not in BACKENDS:
        return None
    if backend != "tensorrt":
        return None if row.typing == "strong" else "leave it out, it is a choice of TensorRT alone"
    major = row.runtime_version.partition(".")[0]
    if row.typing == "weak" and major.isdecimal() and int(major) >= 11:
        return "TensorRT 11 has strong typing alone"
    if row.typing == "strong" and major.isdecimal() and int(major) < 10:
        return "TensorRT has strong typing since 10.0, say weak"
    return None


def _unmeasured(profile: HardwareProfile) -> Iterator[Fault]:
    """Yield facts without source, unit or sense."""
    peaks: dict[str, str] = {}
    for key, fact in profile.facts.items():
        loc, value = ("facts", key), fact.value
        if not fact.source.strip():
            yield (*loc, "source"), f"facts.{key}.source is empty", "say where the figure stands"
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        peak = read_peak(key)
        if (peak or key in _READ) and not (number and value > 0):
            fault = f"facts.{key} is {value!r}, expected a number above 0"
            yield loc, fault, f"leave out {key} while it is not known"
        if number and not any(key == unit or key.endswith(f"_{unit}") for unit in _UNITS):
            yield loc, f"facts.{key} has no unit", f"end its key in {_SOME_UNITS}"
        elif peak is None and "_peak_" in key:
            fix = "name it like int8_peak_top_s or fp16_dense_peak_tflop_s"
            yield loc, f"facts.{key} is not a peak that can be read", fix
        elif peak is not None and peaks.setdefault(peak[0], key) != key:
            yield loc, f"facts.{key} is another peak than {peaks[peak[0]]}", "keep one of the two"


def _unkept(profile: HardwareProfile) -> Iterator[Fault]:
    """Yield limits that nothing can keep."""
    for key, value in vars(profile.limits).items():
        if value is not None and (value < 0 or (value == 0 and key != "accuracy_drop_pt")):
            fix = f"give {key} a number above 0, or leave it out"
            yield ("limits", key), f"limits.{key} is {value!r}", fix


def _repeated(profile: HardwareProfile) -> Iterator[Fault]:
    groups: tuple[tuple[str, Sequence[str]], ...] = (
        ("aliases", (profile.name, *profile.aliases)),
        ("precisions", profile.precisions),
        ("arithmetic", profile.arithmetic),
        ("stack", [row.name for row in profile.stack]),
    )
    for key, values in groups:
        for item, times in Counter(values).items():
            if times > 1:
                yield (key,), f"{key} holds {item!r} twice", f"name {item!r} once"
