"""Nodes that no pass has touched: are they the same in the older opset?

That is read from the operators' own definitions, which the ``onnx`` package holds for every opset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgexfer.export.passes.editor import Editor

if TYPE_CHECKING:
    from onnx import NodeProto
    from onnx.defs import OpSchema

# Values of attributes that are younger than the attribute itself, and one whose meaning changed:
# before opset 19 a pooling that is rounded up may begin beside the image.
_YOUNG_VALUES: tuple[tuple[str, str, object, int], ...] = (
    ("AveragePool", "ceil_mode", 1, 19),
    ("Pad", "mode", b"wrap", 19),
    ("Resize", "coordinate_transformation_mode", b"half_pixel_symmetric", 19),
)


def conform(edit: Editor, node: NodeProto, written: int, opset: int) -> None:
    """Bring a node into the form that an older opset has, or refuse it.

    An attribute that the older form lacks is dropped where it says what that form does anyway.

    Args:
        edit: the model, whose types are still those of the newer opset.
        node: of a standard operator; others are left alone.
        written: the opset that the node was written in.
        opset: the older one.

    Raises:
        ModelError: the older opset lacks the operator, an attribute, an input or a type.
    """
    from onnx import defs

    if node.domain not in ("", "ai.onnx"):
        return
    if any(a.HasField("g") or a.graphs for a in node.attribute):
        raise edit.refusal(node, "it holds a graph of its own")
    if not defs.has(node.op_type):
        raise edit.refusal(node, "ONNX has no such operator")
    older = _schema(node.op_type, opset)
    if older is None:
        raise edit.refusal(node, f"opset {opset} has none")
    newer = _schema(node.op_type, written) or older
    if newer.since_version == older.since_version:
        return
    _conform_attributes(edit, node, newer, older, opset)
    while node.input and not node.input[-1]:
        node.input.pop()
    if len(node.input) > older.max_input or len(node.output) > older.max_output:
        raise edit.refusal(node, f"opset {opset} takes fewer inputs")
    _check_types(edit, node, older, opset)


def _schema(kind: str, opset: int) -> OpSchema | None:
    from onnx import defs

    try:
        return defs.get_schema(kind, opset)
    except defs.SchemaError:
        return None


def _conform_attributes(
    edit: Editor, node: NodeProto, newer: OpSchema, older: OpSchema, opset: int
) -> None:
    from onnx import helper

    for found in list(node.attribute):
        value = helper.get_attribute_value(found)
        if found.name not in older.attributes:
            if not _is_default(found.name, value, newer):
                raise edit.refusal(node, f"opset {opset} has no {found.name}")
            node.attribute.remove(found)
        for kind, name, young, since in _YOUNG_VALUES:
            if (node.op_type, found.name, value) == (kind, name, young) and opset < since:
                raise edit.refusal(node, f"opset {opset} has no such {name}")


def _is_default(name: str, value: Any, newer: OpSchema) -> bool:
    from onnx import helper

    if name == "dilations":  # the specification gives this default in words alone
        return set(value) == {1}
    known = newer.attributes.get(name)
    if known is None or not known.default_value.name:
        return False
    return bool(helper.get_attribute_value(known.default_value) == value)


def _check_types(edit: Editor, node: NodeProto, older: OpSchema, opset: int) -> None:
    from onnx import TensorProto

    for names, formal in ((node.input, older.inputs), (node.output, older.outputs)):
        for index, name in enumerate(names):
            kind = edit.dtype(name) if name else None
            if kind is None:
                continue
            spelt = f"tensor({TensorProto.DataType.Name(kind).lower()})"
            if spelt not in formal[min(index, len(formal) - 1)].types:
                raise edit.refusal(node, f"opset {opset} does not take {spelt}")
