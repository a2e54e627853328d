"""Hardware profiles: finding them by name, checking them, and making one of this machine.

A profile is one YAML file; its types live in ``core/profile.py``. Nothing here imports a runtime or
touches a device: the facts of a machine are handed in by whoever read them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgexfer.core.backend import BACKENDS
from edgexfer.core.codec import encode
from edgexfer.core.errors import ProfileError, nearest
from edgexfer.core.files import PathLike
from edgexfer.core.profile import Fact, HardwareProfile
from edgexfer.yamlio import dump_yaml, key_lines, line_of, read_yaml, validate

# Where in the file, what is wrong, and the mend.
_Fault = tuple[tuple[Any, ...], str, str]

_HERE = Path(__file__).parent
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
# Facts of a machine that hold tomorrow too.
_LASTING = ("board", "cpu", "cpu_flags", "cores", "memory_bytes", "max_mhz", "os", "l4t", "glibc")
# CPU flags of instructions that multiply and add uint8 by int8 without saturating.
_DOT_PRODUCTS = {"avx_vnni", "avx512_vnni", "amx_int8"}
_PROBED = "read on this machine by `edgexfer profiles probe`"
# Which quantization scheme each runtime can run; a runtime that is not named runs no INT8 artefact.
_SCHEMES = {"onnxruntime": "qdq", "tensorrt": "qdq", "openvino": "nncf"}


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
    return [check_profile(path) for path in sorted(profiles_dir().glob("*.yaml"))]


def find_profile(name_or_path: PathLike) -> HardwareProfile:
    """Return a profile by name, alias or path of a YAML file.

    Raises:
        ProfileError: there is none, with the nearest names; or it is wrong, with every fault.
    """
    text = str(name_or_path)
    if Path(text).suffix in (".yaml", ".yml") or "/" in text:
        return check_profile(text)
    place = profiles_dir() / f"{text}.yaml"
    if _NAME.fullmatch(text) and place.is_file():
        return check_profile(place)
    known = list_profiles()
    for profile in known:
        if text in profile.aliases:
            return profile
    names = [n for profile in known for n in (profile.name, *profile.aliases)]
    raise ProfileError(
        f"profile {text!r} is unknown", f"{nearest(text, names)} (`edgexfer profiles list`)"
    )


def check_profile(path: PathLike) -> HardwareProfile:
    """Read a profile and check everything that can be said without the device.

    Raises:
        ProfileError: every fault at once, each with its key and, where it has one, its line.
    """
    place = Path(path)
    value = read_yaml(place, ProfileError)
    lines = key_lines(place)
    profile = validate(HardwareProfile, value, place, ProfileError, lines)
    faults = _contradictions(profile, place.stem)
    if faults:
        what = "; ".join(f"{fault}{line_of(loc, lines)}" for loc, fault, _ in faults)
        raise ProfileError(f"{place}: {what}", "; ".join(fix for _, _, fix in faults[:3]))
    return profile


def probe(
    facts: Mapping[str, Any], backend: str = "onnxruntime", name: str | None = None
) -> HardwareProfile:
    """Make a profile of the machine that ``facts`` were read from.

    Args:
        facts: what ``bench.device.facts`` gave; what is absent (``None``) is left out, and so is
            what says how the machine was at that moment.
        backend: the runtime that the profile is for.
        name: of the profile; ``None`` makes one of the board or processor and the backend.

    Raises:
        ProfileError: the backend is unknown, or the name holds other characters than a-z, 0-9, -.
    """
    if backend not in BACKENDS:
        raise ProfileError(f"backend {backend!r} is unknown", nearest(backend, BACKENDS))
    if name is not None and not _NAME.fullmatch(name):
        raise ProfileError(f"{name!r} is no name of a profile", "use a-z, 0-9 and -")
    machine = str(facts.get("machine") or "unknown")
    title = str(facts.get("board") or facts.get("cpu") or machine)
    lasting = {key: facts[key] for key in _LASTING if facts.get(key) is not None}
    scheme = _SCHEMES.get(backend)
    value: dict[str, Any] = {
        "name": name or f"{_slug(title)}-{backend}",
        "title": f"{title}, {backend}",
        "backend": backend,
        "device": "GPU" if backend == "tensorrt" else "CPU",
        "compile_on": "device" if backend == "tensorrt" else "host",
        "machine": machine,
        "seen_on_hardware": False,  # its facts were read, but no benchmark has run
        "precisions": ["int8", "fp32"] if scheme else ["fp32"],
        "facts": {k: encode(Fact(v, "measured", _PROBED)) for k, v in lasting.items()},
    }
    if scheme:
        value["quantization"] = {"scheme": scheme, **_int8_for(machine, backend, facts)}
    return validate(HardwareProfile, value, Path("probe"), ProfileError)


def _int8_for(machine: str, backend: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Choose INT8 types: uint8 by int8 is what x86 multiplies, int8 by int8 what all others do."""
    if backend != "onnxruntime" or machine != "x86_64":
        return {"activations": "int8"}
    flags = facts.get("cpu_flags")
    saturates = flags is not None and not _DOT_PRODUCTS & set(flags)
    return {"activations": "uint8", "reduce_range": saturates}


def to_yaml(profile: HardwareProfile) -> str:
    """Write a profile as YAML that ``check_profile`` reads back to an equal one."""
    return dump_yaml(encode(profile))


def profile_schema() -> str:
    """Return the JSON Schema of a profile, for editors."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(HardwareProfile).json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2) + "\n"


def _contradictions(profile: HardwareProfile, stem: str) -> list[_Fault]:
    """Return what the types cannot tell."""
    defaults = [row.name for row in profile.stack if row.default]
    scheme = _SCHEMES.get(profile.backend)
    quantized = "int8" in profile.precisions and profile.backend in BACKENDS
    checks: tuple[tuple[bool, _Fault], ...] = (
        (
            profile.name == stem,
            (("name",), f"name is {profile.name!r}", f"name it {stem!r}, like its file"),
        ),
        (
            profile.backend in BACKENDS,
            (
                ("backend",),
                f"backend is {profile.backend!r}",
                nearest(profile.backend, BACKENDS),
            ),
        ),
        (
            "fp32" in profile.precisions,
            (("precisions",), "precisions has no fp32", "list fp32, the reference of the others"),
        ),
        (
            not quantized or scheme is None or profile.quantization.scheme == scheme,
            (
                ("quantization", "scheme"),
                f"quantization.scheme is {profile.quantization.scheme!r}",
                f"backend {profile.backend} takes {scheme!r}",
            ),
        ),
        (
            not quantized or scheme is not None,
            (
                ("precisions",),
                f"precisions lists int8, which backend {profile.backend} cannot run",
                "take int8 out of precisions",
            ),
        ),
        (
            len(defaults) <= 1,
            (("stack",), f"stack has {len(defaults)} default rows", "mark one row as default"),
        ),
    )
    faults = [fault for good, fault in checks if not good]
    return faults + _unheard(profile) + _repeated(profile) + _misnamed(profile)


def _unheard(profile: HardwareProfile) -> list[_Fault]:
    """Return what the profile asks of its quantizer and the quantizer cannot do."""
    asked = profile.quantization
    if "int8" not in profile.precisions:
        return []
    wrong: list[tuple[str, Any, str]] = []
    if profile.backend == "tensorrt" and asked.activations != "int8":
        wrong.append(("activations", asked.activations, "TensorRT takes 'int8' alone"))
    if asked.scheme == "nncf" and asked.weights != "int8-per-channel":
        wrong.append(("weights", asked.weights, "NNCF makes 'int8-per-channel' alone"))
    if asked.scheme == "nncf" and asked.reduce_range:
        wrong.append(("reduce_range", True, "leave it out, NNCF decides on it itself"))
    return [
        (("quantization", key), f"quantization.{key} is {value!r}", fix)
        for key, value, fix in wrong
    ]


def _repeated(profile: HardwareProfile) -> list[_Fault]:
    groups: tuple[tuple[str, Sequence[str]], ...] = (
        ("aliases", (profile.name, *profile.aliases)),
        ("precisions", profile.precisions),
        ("stack", [row.name for row in profile.stack]),
    )
    return [
        ((key,), f"{key} holds {item!r} twice", f"name {item!r} once")
        for key, values in groups
        for item, times in Counter(values).items()
        if times > 1
    ]


def _misnamed(profile: HardwareProfile) -> list[_Fault]:
    names: list[tuple[tuple[Any, ...], str]] = [(("name",), profile.name)]
    names += [(("aliases", i), alias) for i, alias in enumerate(profile.aliases)]
    faults: list[_Fault] = [
        (loc, f"{loc[0]}: {name!r} is no name", "use a-z, 0-9 and -, such as jetson-orin-nano")
        for loc, name in names
        if not _NAME.fullmatch(name)
    ]
    for key, fact in profile.facts.items():
        if not fact.source.strip():
            fault = f"facts.{key}.source is empty"
            faults.append((("facts", key, "source"), fault, "say where the figure stands"))
    return faults


def _slug(text: str) -> str:
    """Turn a chip's name into a profile's: lower case, words joined by ``-``, no trade marks."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"\((r|tm)\)|\bcpu\b|@.*", " ", text.lower()))
    return "-".join(words) or "machine"
