"""An ONNX graph under the hands of a pass: what is known of it, and how a node is replaced.

A pass is a function of an editor. It looks at nodes of one kind, and puts others in their place
that give tensors of the same names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgexfer.core.errors import ModelError, first_line

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TypeProto

Array = NDArray[Any]
LOWER = "choose a target with a newer runtime, or another architecture"


class Editor:
    """A model that is rewritten in place.

    Attributes:
        model: what is rewritten.
        where: opens the text of an error.
    """

    def __init__(self, model: ModelProto, where: str) -> None:
        """Infer the types of all tensors.

        Args:
            model: will be changed.
            where: the file, or what else tells a reader which model is meant.

        Raises:
            ModelError: the model's shapes contradict each other.
        """
        import onnx

        self.model, self.where = model, where
        try:
            known = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
        except (onnx.shape_inference.InferenceError, RuntimeError) as error:
            reason = first_line(error)
            raise ModelError(
                f"{where}: its shapes contradict each other ({reason})", "export it again"
            ) from error
        self._types = {v.name: v.type for v in (*known.input, *known.value_info, *known.output)}
        self._taken = {name for n in model.graph.node for name in (*n.input, *n.output)}
        self._constants = {t.name: t for t in model.graph.initializer}
        for node in model.graph.node:
            value = next((a.t for a in node.attribute if a.name == "value"), None)
            if node.op_type == "Constant" and value is not None:
                self._constants[node.output[0]] = value

    def of(self, *kinds: str) -> Iterator[NodeProto]:
        """Yield the nodes of some operators; they may be replaced meanwhile."""
        for node in list(self.model.graph.node):
            if node.op_type in kinds and node.domain in ("", "ai.onnx"):
                yield node

    def constant(self, node: NodeProto, index: int, what: str) -> Array | None:
        """Return the value of an input that must be a constant; ``None`` where it is absent.

        Args:
            node: whose input it is.
            index: which of its inputs.
            what: its name, for the error.

        Raises:
            ModelError: it is computed when the model runs.
        """
        from onnx import numpy_helper

        if len(node.input) <= index or not node.input[index]:
            return None
        tensor = self._constants.get(node.input[index])
        if tensor is None:
            raise self.refusal(node, f"its {what} is not a constant")
        value: Array = numpy_helper.to_array(tensor)
        return value

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Return a tensor's shape, ``None`` for free sides; ``None`` where its rank is unknown."""
        if name in self._constants:
            return tuple(self._constants[name].dims)
        kind = self._types.get(name)
        if kind is None or not kind.tensor_type.HasField("shape"):
            return None
        dims = kind.tensor_type.shape.dim
        return tuple(d.dim_value if d.HasField("dim_value") else None for d in dims)

    def rank(self, node: NodeProto) -> int:
        """Return the number of dimensions of a node's first input.

        Raises:
            ModelError: it is unknown.
        """
        found = self.shape(node.input[0])
        if found is None:
            raise self.refusal(node, "the rank of its input is unknown")
        return len(found)

    def dtype(self, name: str) -> int | None:
        """Return a tensor's element type as ONNX numbers it; ``None`` where it is unknown."""
        if name in self._constants:
            return int(self._constants[name].data_type)
        kind: TypeProto | None = self._types.get(name)
        return int(kind.tensor_type.elem_type) if kind and kind.tensor_type.elem_type else None

    def like(self, node: NodeProto, value: Sequence[float] | float) -> str:
        """Add a constant of the element type of a node's first input, and return its name.

        Raises:
            ModelError: that type is unknown.
        """
        from onnx import helper

        kind = self.dtype(node.input[0])
        if kind is None:
            raise self.refusal(node, "the type of its input is unknown")
        return self.add(node, np.asarray(value, helper.tensor_dtype_to_np_dtype(kind)))

    def add(self, node: NodeProto, value: Array) -> str:
        """Add a constant that a node's replacement needs, and return its name."""
        from onnx import numpy_helper

        name = self.fresh(node, "constant")
        tensor = numpy_helper.from_array(value, name)
        self.model.graph.initializer.append(tensor)
        self._constants[name] = tensor
        return name

    def fresh(self, node: NodeProto, what: str) -> str:
        """Return the name of a new tensor, after the node's own output."""
        stem = f"{node.output[0]}_{what}"
        name, count = stem, 1
        while name in self._taken:
            name, count = f"{stem}_{count}", count + 1
        self._taken.add(name)
        return name

    def replace(self, node: NodeProto, others: Sequence[NodeProto]) -> None:
        """Put others in the place of a node; the last of them gives its output."""
        nodes = self.model.graph.node
        # A tensor is written once, so that its name tells which node writes it.
        name = next(name for name in node.output if name)
        place = next(i for i, candidate in enumerate(nodes) if name in candidate.output)
        label = node.name or name
        nodes.pop(place)
        for index, other in enumerate(others):
            other.name = other.output[0] if index + 1 < len(others) else label
            nodes.insert(place + index, other)

    def refusal(self, node: NodeProto, reason: str) -> ModelError:
        """Return the error of a node that cannot be rewritten."""
        name = node.name or (node.output[0] if node.output else "")
        return ModelError(
            f"{self.where}: operator {node.op_type} ({name}) cannot be lowered, {reason}", LOWER
        )


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Return the value of a node's attribute."""
    from onnx import helper

    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def drop(node: NodeProto, *names: str) -> None:
    """Remove attributes of a node."""
    kept = [a for a in node.attribute if a.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)
