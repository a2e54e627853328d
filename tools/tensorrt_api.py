"""Write ``tests/backends/tensorrt_api.json``: names and arguments of TensorRT's Python API.

It takes one JSON file per version, as introspection of the public bindings gives it, and keeps what
a builder and a runner may touch: facts of the public API alone, no text of NVIDIA's. ``--check``
compares instead of writing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parent.parent / "tests/backends/tensorrt_api.json"
CLASSES = (
    *("Builder", "IBuilderConfig", "INetworkDefinition", "IOptimizationProfile", "ILayer"),
    *("ITensor", "OnnxParser", "ParserError", "ILogger", "Logger", "ITimingCache", "IHostMemory"),
    *("Runtime", "ICudaEngine", "IExecutionContext", "EngineInspector", "IInt8Calibrator"),
    *("IInt8EntropyCalibrator2",),
)
ENUMS = (
    *("BuilderFlag", "DataType", "DeviceType", "ILogger.Severity", "LayerInformationFormat"),
    *("LayerType", "MemoryPoolType", "NetworkDefinitionCreationFlag", "ProfilingVerbosity"),
    *("TensorIOMode", "TensorLocation", "HardwareCompatibilityLevel"),
)
# What Python's own machinery calls, and what makes layers one by one.
LEFT_OUT = re.compile(r"__(del|enter|exit|nonzero|bool)__|add_(?!optimization_profile)")
TYPES = {
    "typing.SupportsInt": "int",
    "typing.SupportsFloat": "float",
    "typing_extensions.Buffer": "buffer",
    "buffer": "buffer",
    **{name: name for name in ("int", "str", "bool", "float", "tuple", "list", "Dims")},
    **{name: name for name in (*CLASSES, *ENUMS)},
}
NO_CONSTRUCTOR = "-"


def compact(sources: list[Path]) -> dict[str, Any]:
    """Return the compact form; each item says from which version to which it is there."""
    documents = [json.loads(path.read_text()) for path in sources]
    documents.sort(key=lambda d: _number(d["version"]))
    versions = [d["version"] for d in documents]
    classes: dict[str, Any] = {}
    enums: dict[str, Any] = {}
    for index, document in enumerate(documents):
        for name in CLASSES:
            if name in document["classes"]:
                _add_class(classes, name, document["classes"][name], index)
        for name in ENUMS:
            for member, value in document["enums"].get(name, {}).items():
                _mark(enums.setdefault(name, {}).setdefault(member, {}), str(value), index)
    return {"versions": versions, "classes": _spans(classes), "enums": _spans(enums)}


def _add_class(classes: dict[str, Any], name: str, found: dict[str, Any], index: int) -> None:
    into = classes.setdefault(name, {"bases": {}, "methods": {}, "properties": {}})
    for base in found.get("bases", []):
        _mark(into["bases"].setdefault(base, {}), "", index)
    for method, signatures in found.get("methods", {}).items():
        if LEFT_OUT.match(method):
            continue
        for text in [signatures] if isinstance(signatures, str) else signatures:
            _mark(into["methods"].setdefault(method, {}), _arguments(text), index)
        if not signatures:
            _mark(into["methods"].setdefault(method, {}), NO_CONSTRUCTOR, index)
    for prop, (_, access) in found.get("properties", {}).items():
        _mark(into["properties"].setdefault(prop, {}), access, index)


def _arguments(signature: str) -> str:
    """Turn ``(self: A, flags: int = 0) -> B`` into ``flags:int=``."""
    inside = signature[1 : signature.rindex(")")]
    parts = []
    for part in re.split(r", (?![^\[]*\])", inside)[1:]:
        match = re.match(r"(\w+)(?:: ([^=]+?))?( = .*)?$", part)
        if match is None:
            raise ValueError(f"a signature that is not understood: {signature}")
        name, kind, default = match.groups()
        known = TYPES.get(kind or "", "")
        parts.append(f"{name}:{known}{'=' if default else ''}")
    return ", ".join(parts)


def _mark(into: dict[str, Any], key: str, index: int) -> None:
    into.setdefault(key, []).append(index)


def _spans(tree: Any) -> Any:
    """Turn lists of versions into texts such as ``0-4 6``."""
    if isinstance(tree, dict):
        return {key: _spans(value) for key, value in sorted(tree.items())}
    spans: list[list[int]] = []
    for index in tree:
        if spans and spans[-1][1] == index - 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def _number(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


def main() -> int:
    """Write or check the file; returns 1 where it differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="holds VERSION.json of each version")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    text = json.dumps(compact(sorted(args.folder.glob("*.json"))), indent=1) + "\n"
    if args.check:
        return int(OUT.read_text() != text)
    OUT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
