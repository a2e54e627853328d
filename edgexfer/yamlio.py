"""YAML that people write, read strictly: YAML 1.2, no anchors, no tags, all faults at once.

Shared by recipes and profiles. Safe against aliases that explode, deep nesting and large files.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from edgexfer.core.errors import InputError, first_line, nearest

T = TypeVar("T")
Lines = Mapping[tuple[Any, ...], int]
# Where in the file, what is wrong with its line, and the mend; empty where there is none.
Fault = tuple[tuple[Any, ...], str, str]
MAX_BYTES = 1 << 20
MAX_DEPTH = 32


def read_yaml(path: Path, error: type[InputError]) -> Any:
    """Read a YAML file into plain values.

    Args:
        path: the file.
        error: class of the error to raise.

    Raises:
        InputError: of the class given, with the line of the fault.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as fault:
        raise error(f"{path}: no such file", "check the path") from fault
    except OSError as fault:
        raise error(f"{path}: cannot be read ({fault.strerror})", "check the path") from fault
    if len(data) > MAX_BYTES:
        raise error(f"{path}: is larger than 1 MiB", "a file of this kind is a few kB")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise error(f"{path}: is not UTF-8 text", "save it as UTF-8") from fault
    value = _parse(text, str(path), error)
    if not isinstance(value, dict):
        raise error(
            f"{path}: holds no keys", "write `key: value` lines, see `edgexfer init --help`"
        )
    return value


def parse_value(text: str, where: str, error: type[InputError]) -> Any:
    """Read one value as YAML, such as the right side of ``--set key=value``."""
    return _parse(text, where, error)


def dump_yaml(value: Any) -> str:
    """Write plain values as YAML in their own order, which ``read_yaml`` reads back."""
    from ruamel.yaml import YAML

    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    writer.width = 100
    text = io.StringIO()
    writer.dump(value, text)
    return text.getvalue()


def key_lines(path: Path) -> dict[tuple[Any, ...], int]:
    """Return the line of every key and item of a YAML file that ``read_yaml`` has accepted.

    The keys are paths such as ``("stack", 0, "name")``; lines count from 1.
    """
    from ruamel.yaml import YAML

    found: dict[tuple[Any, ...], int] = {}

    def walk(node: Any, where: tuple[Any, ...]) -> None:
        inner = node.value if isinstance(node.value, list) else []
        for index, item in enumerate(inner):
            key, value = item if isinstance(item, tuple) else (item, item)
            place = (*where, key.value if isinstance(item, tuple) else index)
            found[place] = key.start_mark.line + 1
            walk(value, place)

    walk(YAML(typ="safe", pure=True).compose(path), ())
    return found


def line_of(loc: tuple[Any, ...], lines: Lines) -> str:
    """Return `` (line N)`` for a key, or for the nearest key around it that stands in the file.

    A line of 0 is that of a key that was set on the command line.
    """
    known = [loc[:depth] for depth in range(len(loc), 0, -1) if loc[:depth] in lines]
    if not known:
        return ""
    return f" (line {lines[known[0]]})" if lines[known[0]] else " (--set)"


def _parse(text: str, where: str, error: type[InputError]) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        _check_events(text, where, error)
        return YAML(typ="safe", pure=True).load(io.StringIO(text))
    except MarkedYAMLError as fault:
        mark = fault.problem_mark or fault.context_mark
        line = f":{mark.line + 1}" if mark else ""
        problem = str(fault.problem or fault.context or "not YAML").splitlines()[0]
        raise error(f"{where}{line}: {problem}", "mend that line") from fault
    except (YAMLError, RecursionError, ValueError) as fault:
        raise error(f"{where}: not YAML ({first_line(fault)})", "mend the file") from fault


def _check_events(text: str, where: str, error: type[InputError]) -> None:
    from ruamel.yaml import YAML

    depth = 0
    for event in YAML(typ="safe", pure=True).parse(io.StringIO(text)):
        kind = type(event).__name__
        line = event.start_mark.line + 1
        if kind in ("MappingStartEvent", "SequenceStartEvent"):
            depth += 1
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            depth -= 1
        if depth > MAX_DEPTH:
            raise error(f"{where}:{line}: nested deeper than {MAX_DEPTH}", "flatten it")
        if kind == "AliasEvent" or getattr(event, "anchor", None):
            raise error(f"{where}:{line}: anchors and aliases are not allowed", "write it out")
        if str(getattr(event, "tag", None) or "").startswith("tag:") or (
            getattr(event, "tag", None) and kind != "ScalarEvent"
        ):
            raise error(f"{where}:{line}: tags are not allowed", "write a plain value")


def set_key(value: Any, override: str, error: type[InputError]) -> tuple[str, ...]:
    """Set one key of plain values by ``key=value``, the key dotted, and return its path.

    Args:
        value: nested dicts, changed in place; those on the way that are missing are made.
        override: such as ``student.train.epochs=3``; what is behind the sign is read as YAML.
        error: class of the error to raise.

    Raises:
        InputError: of the class given: it is not of that form.
    """
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise error(f"--set {override}: is not key=value", "write --set student.train.epochs=3")
    place = value
    for part in parts[:-1]:
        if not isinstance(place.get(part), dict):
            place[part] = {}
        place = place[part]
    place[parts[-1]] = parse_value(text, f"--set {key}", error)
    return tuple(parts)


def validate(
    cls: type[T],
    value: Any,
    path: Path,
    error: type[InputError],
    lines: Lines | None = None,
) -> T:
    """Turn plain values into a dataclass; every fault is reported, each with its key.

    Args:
        cls: the dataclass.
        value: plain values, as ``read_yaml`` gives them.
        path: where they are from; it opens the error.
        error: class of the error to raise.
        lines: what ``key_lines`` gave, to name the line of each fault too.

    Raises:
        InputError: of the class given.
    """
    found, faults = examine(cls, value, path, error, lines)
    if found is not None:
        return found
    what = f"{path}: " + "; ".join(what for _, what, _ in faults[:5])
    if len(faults) > 5:
        what += f"; and {len(faults) - 5} more"
    raise error(what, mends(faults[:5]))


def examine(
    cls: type[T],
    value: Any,
    path: Path,
    error: type[InputError],
    lines: Lines | None = None,
) -> tuple[T | None, list[Fault]]:
    """Turn plain values into a dataclass as ``validate`` does, or return all that is wrong.

    Raises:
        InputError: of the class given: a number is not finite.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(cls).validate_json(_dumps(value, path, error), strict=True), []
    except ValidationError as fault:
        return None, [_describe(cls, item, lines or {}) for item in fault.errors()]


def mends(faults: Sequence[Fault]) -> str:
    """Return the mends of some faults as one line, each once."""
    return "; ".join(dict.fromkeys(fix for _, _, fix in faults if fix)) or (
        "give a value of that type"
    )


def json_schema(cls: type) -> str:
    """Return the JSON Schema of a dataclass, for editors."""
    import json

    from pydantic import TypeAdapter

    schema = TypeAdapter(cls).json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2) + "\n"


def _dumps(value: Any, path: Path, error: type[InputError]) -> str:
    import json

    def plain(item: Any) -> Any:
        if isinstance(item, float) and not math.isfinite(item):
            raise error(f"{path}: {item} is not a finite number", "give a finite number")
        if isinstance(item, dict):
            return {str(k): plain(v) for k, v in item.items()}
        if isinstance(item, list):
            return [plain(v) for v in item]
        if item is None or isinstance(item, (bool, int, float, str)):
            return item
        return str(item)

    return json.dumps(plain(value))


def _describe(cls: type, item: Any, lines: Lines) -> Fault:
    loc = tuple(item["loc"])
    key = ".".join(str(part) for part in loc)
    line = line_of(loc, lines)
    kind = item["type"]
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return loc, f"unknown key {key}{line}", nearest(str(loc[-1]), _keys(cls, loc[:-1]))
    if kind in ("missing", "missing_argument"):
        return loc, f"key {key}{line} is missing", f"add {key}"
    message = str(item["msg"]).removeprefix("Input should be ")
    words = re.findall("'([^']*)'", message) if kind == "literal_error" else []
    fix = f"{key}: {nearest(str(item['input']), words)}" if words else ""
    return loc, f"{key}{line} is {item['input']!r}, expected {message}", fix


def _keys(cls: Any, loc: tuple[Any, ...]) -> list[str]:
    import dataclasses
    import typing

    for part in loc:
        hints = typing.get_type_hints(cls) if dataclasses.is_dataclass(cls) else {}
        inner = hints.get(str(part), cls if isinstance(part, int) else None)
        options = [a for a in typing.get_args(inner) if dataclasses.is_dataclass(a)]
        cls = options[0] if options else inner
    return [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
