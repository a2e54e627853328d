"""What TensorRT tells of an engine's layers, in the JSON of its inspector and of ``trtexec``.

Up to TensorRT 10 a tensor has one field ``Format/Datatype`` in words and the engine a list
``Bindings``; TensorRT 11 has ``DataType`` and ``I/O Tensors``. Engines built without detailed
profiling have layers that are names alone.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

from edgexfer.core.errors import BackendError

_TYPES = {
    "fp32": "fp32",
    "float": "fp32",
    "float32": "fp32",
    "fp16": "fp16",
    "half": "fp16",
    "float16": "fp16",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp8": "fp8",
    "int8": "int8",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
    "uint8": "uint8",
}
_WORD = re.compile(r"\b(" + "|".join(_TYPES) + r")\b", re.IGNORECASE)


@dataclass(frozen=True)
class Layers:
    """An engine's layers.

    Attributes:
        names: of all layers, in their order.
        tensors: names of the inputs and outputs.
        types: how many layers give each element type, by that of the first output; ``None``
            where the engine was built without detailed profiling.
    """

    names: Tuple[str, ...]
    tensors: Tuple[str, ...]
    types: Optional[Dict[str, int]]


def parse_layers(text: str, source: str) -> Layers:
    """Read an inspector's JSON, of the old schema or the new one.

    Args:
        text: the JSON.
        source: its file or engine, for the error.

    Raises:
        BackendError: it is neither.
    """
    try:
        value = json.loads(text)
        tensors = value["I/O Tensors"] if "I/O Tensors" in value else value["Bindings"]
        layers: List[Any] = value["Layers"]
        names = [layer if isinstance(layer, str) else str(layer["Name"]) for layer in layers]
        ends = [t if isinstance(t, str) else str(t["Name"]) for t in tensors]
        detailed = [layer for layer in layers if not isinstance(layer, str)]
        types = _count(detailed) if detailed else None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BackendError(
            f"{source}: is not engine information of TensorRT ({type(error).__name__})",
            "write it with --exportLayerInfo, by TensorRT 8.5 or newer",
        ) from error
    return Layers(tuple(names), tuple(ends), types)


def _count(layers: List[Any]) -> Dict[str, int]:
    counts: Dict[str, int] = {}
    for layer in layers:
        outputs = layer.get("Outputs") or [{}]
        kind = _type_of(outputs[0])
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def _type_of(tensor: Any) -> str:
    found = _WORD.search(str(tensor.get("DataType") or tensor.get("Format/Datatype") or ""))
    return _TYPES[found.group().lower()] if found else "unknown"
