"""Reading an ONNX file that somebody else wrote: nothing outside its own folder is ever opened.

``examine`` does so in a process of its own, which a hostile file may exhaust or crash. What
edgexfer itself writes is in ``onnx.py``.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgexfer.core.bundle import is_safe
from edgexfer.core.errors import ModelError, first_line

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_PLAINER = "write it with operators of ONNX, or define it in the file, as a function"
_WHOLE = "write it as one file: onnx.save(onnx.load(FILE), OUT)"
# Protobuf's own limit; larger models keep their weights beside the file.
_MOST_BYTES = (2 << 30) - 1
# What the child may take: Python with its libraries, and the bytes with their parsed form.
_ROOM_BYTES, _ROOM_TIMES = 2 << 30, 3
_CPU_S = 10
_WALL_S = 60.0
# Without the folder that the user stands in, which may be the file's, on the path.
_PROGRAM = """\
import sys
sys.path[:] = filter(None, sys.path)
from edgexfer.models.onnxfile import trial
sys.exit(trial(*sys.argv[1:]))
"""
# ONNX Runtime takes what stands there for an address in its own memory.
_MEMORY_MARK = "_ORT_MEM_ADDR_"
# Beside ONNX's own operators, those that ONNX Runtime or OpenVINO has: domains, and what stands in
# ONNX's domain without being of it.
_DOMAINS = ("com.microsoft", "com.ms", "org.openvinotoolkit", "org.pytorch", "ai.onnx.")
_EXTRAS = (
    *("Affine", "Crop", "DynamicSlice", "GRUUnit", "GivenTensorFill", "ImageScaler"),
    *("ParametricSoftplus", "Scale", "ScaledTanh", "SimplifiedLayerNormalization"),
)

Check = Literal["", "runnable", "valid"]
"""What is asked of a file that can be parsed: that a runtime may take it, since its inputs have a
rank and each operator is one that some runtime has; that it keeps all rules of ONNX, too."""


def examine(path: Path, *, check: Check = "") -> list[Path]:
    """Parse a file of unknown origin in a process with little memory and time, as a trial.

    Args:
        path: ONNX file.
        check: what is asked of it beyond that.

    Returns:
        The files beside it that hold its weights, sorted by name.

    Raises:
        ModelError: see ``read_onnx`` and ``external_files``; or it needs more than the child has,
            or crashes it; or it does not pass ``check``.
    """
    import edgexfer

    paths = (str(Path(edgexfer.__file__).parent.parent), os.environ.get("PYTHONPATH", ""))
    child = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OPENBLAS_NUM_THREADS": "1",  # each further thread would reserve memory
    }
    argv = [sys.executable, "-c", _PROGRAM, str(path), check]
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **child},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_WALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        done = None
    try:
        said = json.loads(done.stdout if done is not None else b"")
        if done is not None and not done.returncode:
            return [path.parent / name for name in said]
        what, fix = said
    except ValueError:
        what = f"{path}: cannot be parsed within {_CPU_S} s and the memory that its size allows"
        fix = "do not trust it; export the model again"
    raise ModelError(what, fix)


def read_onnx(path: Path) -> ModelProto:
    """Read a file without the weights that it keeps elsewhere.

    Raises:
        ModelError: it is missing, too large, no ONNX, cut short, or without a node.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not path.is_file():
        raise ModelError(f"{path}: no such file", "check the path")
    if path.stat().st_size > _MOST_BYTES:
        raise ModelError(
            f"{path}: is larger than the 2 GiB that an ONNX file can have",
            "keep its weights beside it: onnx.save(MODEL, OUT, save_as_external_data=True)",
        )
    try:
        proto = onnx.load(path, load_external_data=False, format="protobuf")
    except (DecodeError, OSError) as error:
        raise ModelError(
            f"{path}: is not an ONNX file, or was cut short ({error})", "export it again"
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
    if not is_safe(name) or links or _MEMORY_MARK in name:
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


def trial(name: str, check: str) -> int:
    """Parse a file with limits on this process, and print as JSON what ``examine`` is to say.

    That is the names of its other files, or what is wrong and the mend.
    """
    path = Path(name)
    size = path.stat().st_size if path.is_file() else 0
    room = _ROOM_BYTES + _ROOM_TIMES * size
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        proto = read_onnx(path)
        beside = [str(place.relative_to(path.parent)) for place in external_files(path, proto)]
        if check:
            _check_runnable(path, proto)
        if check == "valid":
            _check_rules(path)
    except ModelError as error:
        sys.stdout.write(json.dumps([error.what, error.fix]))
        return error.exit_code
    sys.stdout.write(json.dumps(beside))
    return 0


def _check_runnable(path: Path, proto: ModelProto) -> None:
    from onnx import defs

    weights = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        kind = value.type
        if kind.HasField("tensor_type") and not kind.tensor_type.HasField("shape"):
            if value.name in weights:
                continue
            raise ModelError(
                f"{path}: input {value.name!r} has no shape, not even a number of sides",
                "export it with one, in which sides may stay free",
            )
    # Of an opset newer than the library that is asked here, the operators are not known.
    newer = any(
        o.domain == "" and o.version > defs.onnx_opset_version() for o in proto.opset_import
    )
    own = {(function.domain, function.name) for function in proto.functions}
    bodies = (_nodes(function.node) for function in proto.functions)
    for node in itertools.chain(_nodes(proto.graph.node), *bodies):
        kind_of = (node.domain, node.op_type)
        if kind_of in own or node.domain.startswith(_DOMAINS):
            continue
        if node.domain not in ("", "ai.onnx"):
            raise ModelError(
                f"{path}: operator {node.op_type!r} of {node.domain!r} is in no runtime here",
                _PLAINER,
            )
        if not newer and not defs.has(node.op_type) and node.op_type not in _EXTRAS:
            raise ModelError(f"{path}: {node.op_type!r} is not an ONNX operator", _PLAINER)


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def _check_rules(path: Path) -> None:
    import onnx

    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{path}: is not a valid ONNX graph ({first_line(error, 160)})", "export it again"
        ) from error
