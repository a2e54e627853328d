"""A ``tensorrt`` that has the names, arguments and properties of one version, and nothing else.

``make_tensorrt`` reads them from ``tensorrt_api.json`` (see ``tools/tensorrt_api.py``). A name that
the version does not have is an ``AttributeError``, a call with other arguments a ``TypeError``, as
in the real bindings. What the objects do stands in
``fake_builder`` and ``fake_engine``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.backends import fake_builder, fake_engine
from tests.backends.fake_cudart import FakeCudart

API: dict[str, Any] = json.loads(Path(__file__).with_name("tensorrt_api.json").read_text())
VERSIONS: tuple[str, ...] = tuple(API["versions"])
SEVERITY = "ILogger.Severity"


class Member:
    """A member of an enumeration; like pybind's it is no int, but can be made one."""

    def __init__(self, kind: str, name: str, value: int) -> None:
        self.kind, self.name, self.value = kind, name, value

    def __int__(self) -> int:
        return self.value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Member) and (self.kind, self.value) == (other.kind, other.value)

    def __hash__(self) -> int:
        return hash((self.kind, self.value))

    def __repr__(self) -> str:
        return f"{self.kind}.{self.name}"


def make_tensorrt(version: str, cudart: FakeCudart | None = None, **world: Any) -> Any:
    """Return the module as it is in a version; ``world`` sets fields of ``fake_builder.World``."""
    index = VERSIONS.index(version)
    trt: Any = ModuleType("tensorrt")
    trt.__version__ = version
    trt.world = fake_builder.World(trt, cudart or FakeCudart(), **world)
    for name, members in API["enums"].items():
        there = {m: int(v) for m, values in members.items() for v in _there(values, index)}
        if there:
            made = {m: Member(name, m, v) for m, v in there.items()}
            setattr(trt, name.rpartition(".")[2], type(name, (), made))
    for name, spec in _by_bases(API["classes"]):
        if spec["methods"] or spec["properties"]:
            _add_class(trt, name, spec, index)
    for name, member in vars(trt.Severity).items():
        if isinstance(member, Member):
            setattr(trt.ILogger, name, member)
    return trt


def install(trt: Any, modules: dict[str, Any] | None = None) -> None:
    """Make ``import tensorrt`` and ``ctypes.CDLL("libcudart...")`` find the fakes, for good."""
    import ctypes

    (sys.modules if modules is None else modules)["tensorrt"] = trt
    real: Any = ctypes.CDLL

    def load(name: Any, *args: Any, **words: Any) -> Any:
        return trt.world.cudart if "libcudart" in str(name) else real(name, *args, **words)

    ctypes.CDLL = load  # type: ignore[assignment,misc]


def write_site(folder: Path, version: str, world: str = "") -> Path:
    """Write a folder for ``PYTHONPATH`` whose module ``tensorrt`` is the fake of a version.

    ``world`` is added to the call of ``make_tensorrt``, such as ``dla_cores=2``.
    """
    folder.mkdir(exist_ok=True)
    root = str(Path(__file__).resolve().parents[2])
    lines = (
        "import sys",
        f"sys.path.append({root!r})",
        "from tests.backends.fake_tensorrt import install, make_tensorrt",
        f"install(make_tensorrt({version!r}, {world}))",
    )
    (folder / "tensorrt.py").write_text("\n".join(lines) + "\n")
    return folder


def _there(spans: dict[str, str], index: int) -> list[str]:
    """Return the keys that exist in the version of an index; spans are such as ``0-4 6``."""
    found = []
    for key, text in spans.items():
        for span in text.split():
            first, _, last = span.partition("-")
            if int(first) <= index <= int(last or first):
                found.append(key)
    return found


def _by_bases(classes: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield classes so that a base comes before what derives from it."""
    yield from sorted(classes.items(), key=lambda item: (bool(item[1]["bases"]), item[0]))


def _add_class(trt: Any, name: str, spec: Any, index: int) -> None:
    behaviour = getattr(fake_builder, name, getattr(fake_engine, name, None))
    body: dict[str, Any] = {"__module__": "tensorrt", "_world": trt.world}
    for method, signatures in spec["methods"].items():
        texts = _there(signatures, index)
        if texts:
            body[method] = _method(trt, name, method, texts, getattr(behaviour, method, None))
    for prop, access in spec["properties"].items():
        kinds = _there(access, index)
        if kinds:
            body[prop] = _property(prop, kinds[0] == "rw", getattr(behaviour, prop, None))
    if len(body) == 2:
        return
    body["__setattr__"] = _guarded_setattr
    if name == "IHostMemory":  # a buffer, which Python classes can be from 3.12 on
        body.pop("__init__", None)
        setattr(trt, name, type(name, (bytes,), body))
        return
    bases = tuple(getattr(trt, b) for b in _there_bases(spec, index)) or (object,)
    setattr(trt, name, type(name, bases, body))


def _there_bases(spec: Any, index: int) -> list[str]:
    return [base for base, spans in spec["bases"].items() if _there(spans, index)]


def _guarded_setattr(self: Any, name: str, value: Any) -> None:
    """Refuse what the version does not have; a Python class derived from it may have its own."""
    derived = type(self).__module__ != "tensorrt"
    if not derived and not name.startswith("_") and not hasattr(type(self), name):
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
    object.__setattr__(self, name, value)


def _property(name: str, writable: bool, default: Any) -> property:
    def get(self: Any) -> Any:
        stored = vars(self).get(f"_{name}")
        if stored is None and default is not None:
            return default(self) if callable(default) else default
        return stored

    def put(self: Any, value: Any) -> None:
        object.__setattr__(self, f"_{name}", value)

    return property(get, put if writable else None)


def _method(trt: Any, owner: str, name: str, signatures: list[str], work: Any) -> Any:
    parsed = [_parse(text) for text in signatures if text != "-"]

    def call(self: Any, *args: Any, **words: Any) -> Any:
        if not parsed:
            raise TypeError(f"{owner}: No constructor defined!")
        for parameters in parsed:
            bound = _bind(trt, parameters, args, words)
            if bound is not None:
                trt.world.calls.append(f"{owner}.{name}")
                if work is None and name != "__init__":
                    raise NotImplementedError(f"the fake has no {owner}.{name}")
                return work(self, **bound) if work else None
        shown = ", ".join([*(repr(a)[:40] for a in args), *words])
        raise TypeError(f"{owner}.{name}(): incompatible function arguments: {shown}")

    return call


def _parse(text: str) -> list[tuple[str, str, bool]]:
    """Turn ``flags:int=, config:`` into names, types and whether there is a default."""
    parts = [part.partition(":") for part in text.split(", ") if part]
    return [(name, kind.rstrip("="), kind.endswith("=")) for name, _, kind in parts]


def _bind(
    trt: Any, parameters: list[tuple[str, str, bool]], args: Any, words: dict[str, Any]
) -> dict[str, Any] | None:
    if len(args) > len(parameters):
        return None
    bound = {name: value for (name, _, _), value in zip(parameters, args, strict=False)}
    if set(bound) & set(words) or not set(words) <= {name for name, _, _ in parameters}:
        return None
    bound.update(words)
    for name, kind, has_default in parameters:
        if name not in bound and not has_default:
            return None
        if name in bound and not _fits(trt, kind, bound[name]):
            return None
    return bound


def _fits(trt: Any, kind: str, value: Any) -> bool:
    plain: dict[str, Any] = {
        "int": int,
        "float": (int, float),
        "str": str,
        "tuple": tuple,
        "list": list,
        "Dims": (tuple, list),
        "buffer": (bytes, bytearray, memoryview),
        "bool": bool,
    }
    if kind in plain:
        return isinstance(value, plain[kind]) and (kind == "bool" or not isinstance(value, bool))
    if kind in API["enums"]:
        return isinstance(value, Member) and value.kind == kind
    if kind and hasattr(trt, kind):
        return isinstance(value, getattr(trt, kind))
    return True
