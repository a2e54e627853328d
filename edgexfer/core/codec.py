"""Frozen dataclasses to plain JSON values and back, strictly and without a library.

Used for what machines write (manifest, record, job, run). What people write (recipe, profile) is
validated on the host with pydantic over the same dataclasses, which reports all faults at once.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from typing import Any, Dict, List, Literal, Tuple, Type, TypeVar, Union, get_type_hints

from edgexfer.core.errors import InputError, nearest

T = TypeVar("T")
# What ``X | None`` is from Python 3.10 on.
_UNION_TYPES = tuple(getattr(types, name) for name in ("UnionType",) if hasattr(types, name))


def encode(value: Any) -> Any:
    """Turn a dataclass, and everything in it, into values that ``json.dumps`` takes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(cls: Type[T], value: Any, where: str) -> T:
    """Build a dataclass from a JSON value; unknown, missing and mistyped keys are refused.

    Args:
        cls: the dataclass to build.
        value: what ``json.loads`` gave.
        where: the file the value came from; it opens the text of every error.

    Raises:
        InputError: with the path of the key that is wrong.
    """
    result: T = _decode(cls, value, where, "")
    return result


def _decode(kind: Any, value: Any, where: str, key: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where, key)
    origin = getattr(kind, "__origin__", None)
    if kind is Any:
        return value
    if origin is Union or isinstance(kind, _UNION_TYPES):
        return _decode_union(kind, value, where, key)
    if origin is Literal:
        _expect(value in kind.__args__, " or ".join(map(repr, kind.__args__)), value, where, key)
        return value
    if origin in (tuple, Tuple):
        return _decode_tuple(kind, value, where, key)
    if origin in (dict, Dict):
        _expect(isinstance(value, dict), kind, value, where, key)
        inner = kind.__args__[1]
        return {k: _decode(inner, v, where, _join(key, k)) for k, v in value.items()}
    if kind is float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        _expect(number and abs(value) <= sys.float_info.max, kind, value, where, key)
        return float(value)
    _expect(type(value) is kind, kind, value, where, key)
    return value


def _decode_dataclass(cls: Any, value: Any, where: str, key: str) -> Any:
    _expect(isinstance(value, dict), cls, value, where, key)
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for name in value:
        if name not in fields:
            raise InputError(f"{where}: unknown key {_join(key, name)}", nearest(name, fields))
    missing = [
        name
        for name, f in fields.items()
        if name not in value
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"{where}: key {_join(key, missing[0])} is missing", "make the file again")
    items = {n: _decode(hints[n], v, where, _join(key, n)) for n, v in value.items()}
    return cls(**items)


def _decode_union(kind: Any, value: Any, where: str, key: str) -> Any:
    options = [option for option in kind.__args__ if option is not type(None)]
    if value is None and len(options) < len(kind.__args__):
        return None
    for option in options[:-1]:
        try:
            return _decode(option, value, where, key)
        except InputError:
            continue
    return _decode(options[-1], value, where, key)


def _decode_tuple(kind: Any, value: Any, where: str, key: str) -> Any:
    _expect(isinstance(value, list), kind, value, where, key)
    args = kind.__args__
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_decode(args[0], v, where, f"{key}[{i}]") for i, v in enumerate(value))
    _expect(len(value) == len(args), kind, value, where, key)
    both = zip(args, value)
    return tuple(_decode(a, v, where, f"{key}[{i}]") for i, (a, v) in enumerate(both))


def _expect(good: bool, kind: Any, value: Any, where: str, key: str) -> None:
    if not good:
        name = getattr(kind, "__name__", None) or str(kind).replace("typing.", "")
        shown = repr(value) if len(repr(value)) <= 40 else repr(value)[:37] + "..."
        raise InputError(
            f"{where}: {key or 'the document'} is {shown}, expected {name}", "make the file again"
        )


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else str(name)


__all__: List[str] = ["decode", "encode"]
