"""Reading an ONNX file that somebody else wrote: nothing outside its own folder is ever opened.

What edgexfer itself writes is in ``onnx.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgexfer.core.bundle import is_safe
from edgexfer.core.errors import ModelError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

_WHOLE = "write it as one file: onnx.save(onnx.load(FILE), OUT)"


def read_onnx(path: Path) -> ModelProto:
    """Read a file without the weights that it keeps elsewhere.

    Raises:
        ModelError: it is missing, no ONNX, cut short, or without a node.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not path.is_file():
        raise ModelError(f"{path}: no such file", "check the path")
    try:
        proto = onnx.load(path, load_external_data=False, format="protobuf")
    except (DecodeError, OSError) as error:
        raise ModelError(
            f"{path}: is no ONNX file, or was cut short ({error})", "export it again"
        ) from error
    if not proto.graph.node:
        raise ModelError(f"{path}: is an empty ONNX file", "export it again")
    return proto


def external_files(path: Path, proto: ModelProto) -> list[Path]:
    """Return the files that hold weights beside an ONNX file, sorted by name.

    Raises:
        ModelError: one of them lies outside the file's own folder, is a link of either kind, is
            missing, or is shorter than a tensor in it.
    """
    files: dict[str, Path] = {}
    for tensor in (t for t in tensors(proto) if t.data_location):
        said = {entry.key: entry.value for entry in tensor.external_data}
        name = said.get("location", "")
        place = path.parent / name
        _refuse_unsafe(path, name, place)
        try:
            offset, length = int(said.get("offset", 0)), int(said.get("length", 0))
        except ValueError:
            offset = length = -1
        if min(offset, length) < 0 or offset + length > place.stat().st_size:
            raise ModelError(f"{place}: does not hold all of {tensor.name!r}", "copy it anew")
        files[name] = place
    return [files[name] for name in sorted(files)]


def tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor that a runtime would load."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def _refuse_unsafe(path: Path, name: str, place: Path) -> None:
    links = [p for p in (place, *place.parents) if p.is_symlink() and path.parent in p.parents]
    if not is_safe(name) or links:
        raise ModelError(f"{path}: keeps weights at the unsafe place {name!r}", _WHOLE)
    if not place.is_file():
        raise ModelError(f"{place}: is missing; {path.name} has weights there", "copy it too")
    # Under another name the same file may be one that the user would never hand over.
    if place.stat().st_nlink != 1:
        raise ModelError(f"{path}: keeps weights in {name!r}, a hard link", _WHOLE)


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[TensorProto]:
    for attribute in (a for node in nodes for a in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _graph_tensors(graph)
