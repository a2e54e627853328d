"""What a rule looks at, and what it says: a graph, a target, a finding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from edgexfer.core.profile import HardwareProfile, Stack
from edgexfer.export.flavour import export_command

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that a rule found.

    Attributes:
        severity: ``error`` where the target refuses the file or computes something else,
            ``warning`` where it is slower or riskier, ``note`` for what one should know.
        rule: name of the rule.
        node: name of the node or tensor; empty where the whole file is meant.
        op: its operator; empty where it is none.
        text: what is wrong.
        mend: what to do.
        source: where it is documented.
    """

    severity: Severity
    rule: str
    node: str
    op: str
    text: str
    mend: str
    source: str


@dataclass(frozen=True)
class Target:
    """What a file is linted for.

    Attributes:
        profile: the hardware target.
        row: the software release.
    """

    profile: HardwareProfile
    row: Stack

    @property
    def tensorrt(self) -> bool:
        """Whether TensorRT runs it."""
        return self.profile.backend == "tensorrt"

    @property
    def dla(self) -> bool:
        """Whether it runs on the DLA."""
        return self.tensorrt and self.profile.device == "DLA"

    @property
    def version(self) -> tuple[int, ...]:
        """The runtime's version, as numbers."""
        return tuple(int(part) for part in self.row.runtime_version.split("."))

    @property
    def runtime(self) -> str:
        """The runtime and its version, for people."""
        names = {"tensorrt": "TensorRT", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
        name = names.get(self.profile.backend, self.profile.backend)
        return f"{name} {self.row.runtime_version}"

    @property
    def export(self) -> str:
        """The command that makes files for it from a run."""
        return export_command(self.profile, self.row)


class Graph:
    """A model to look at: its nodes, constants, types, and who writes and reads each tensor.

    Attributes:
        model: the model, its weights loaded.
        nodes: all nodes, those of inner graphs too.
        constants: tensors that stand in the file, by name.
        writers: the node that writes each tensor.
        readers: the nodes that read each tensor.
        beside: names of the files that hold weights beside the model.
    """

    def __init__(self, model: ModelProto, beside: tuple[str, ...] = ()) -> None:
        """Walk the model; shapes that cannot be inferred are unknown, which is no fault here."""
        import onnx

        self.model, self.beside = model, beside
        self.nodes = list(_walk(model.graph))
        self.constants = {t.name: t for t in model.graph.initializer}
        for node in self.nodes:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value":
                    self.constants[node.output[0]] = attribute.t
        self.writers = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        try:
            known = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        except (onnx.shape_inference.InferenceError, RuntimeError):
            known = model.graph
        self._types = {v.name: v.type for v in (*known.input, *known.value_info, *known.output)}

    @property
    def opset(self) -> int:
        """Opset of the standard operators; 0 where the file does not say."""
        found = [i.version for i in self.model.opset_import if i.domain in ("", "ai.onnx")]
        return int(found[0]) if found else 0

    def of(self, *kinds: str) -> list[NodeProto]:
        """Return the nodes of some standard operators."""
        return [n for n in self.nodes if n.op_type in kinds and n.domain in ("", "ai.onnx")]

    def unsorted(self) -> Iterator[tuple[NodeProto, str]]:
        """Yield nodes with the first tensor that each takes before it is made, if ever."""
        yield from _unsorted(self.model.graph, set())

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Return a tensor's shape, ``None`` for free sides; ``None`` where its rank is unknown."""
        if name in self.constants:
            return tuple(self.constants[name].dims)
        kind = self._types.get(name)
        if kind is None or not kind.tensor_type.HasField("shape"):
            return None
        dims = kind.tensor_type.shape.dim
        return tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)

    def dtype(self, name: str) -> int:
        """Return a tensor's element type as ONNX numbers it; 0 where it is unknown."""
        if name in self.constants:
            return int(self.constants[name].data_type)
        kind = self._types.get(name)
        return int(kind.tensor_type.elem_type) if kind is not None else 0

    def value(self, name: str) -> Any:
        """Return a constant as an array; ``None`` where it is none."""
        from onnx import numpy_helper

        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def inputs(self) -> list[str]:
        """Return the names of what the model is fed."""
        return [i.name for i in self.model.graph.input if i.name not in self.constants]


def label(node: NodeProto) -> str:
    """Return a node's name, or that of its first output where it has none."""
    return str(node.name or next((name for name in node.output if name), ""))


def _unsorted(graph: Any, outer: set[str]) -> Iterator[tuple[NodeProto, str]]:
    """Look at a graph whose nodes also see the tensors ``outer`` of the graphs around it."""
    made = outer | {""} | {value.name for value in graph.input}
    made |= {tensor.name for tensor in graph.initializer}
    made |= {tensor.values.name for tensor in graph.sparse_initializer}
    for node in graph.node:
        missing = next((name for name in node.input if name not in made), None)
        if missing is not None:
            yield node, missing
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _unsorted(inner, made)
        made.update(node.output)


def _walk(graph: Any) -> Iterator[NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _walk(inner)
