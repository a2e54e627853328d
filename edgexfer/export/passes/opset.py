"""Lowering a model to an older opset, for runtimes whose parser knows no newer one.

onnx's own version converter is not used: from 18 to 17 it fails on ReduceMean, whose axes became an
input, and from 20 to 13 on HardSwish, LayerNormalization and Relu (onnx 1.23).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgexfer.core.errors import ModelError, first_line
from edgexfer.export.passes.conform import conform
from edgexfer.export.passes.decompose import (
    split_gelu,
    split_group_norm,
    split_hard_swish,
    split_layer_norm,
    split_mish,
)
from edgexfer.export.passes.editor import LOWER, Editor
from edgexfer.export.passes.forms import (
    axes_to_attributes,
    forget_allowed_zeros,
    forget_idle_ceilings,
    pad_all_sides,
    rename_sampling_modes,
    slice_shapes,
    spell_out_splits,
)

if TYPE_CHECKING:
    from onnx import ModelProto

Pass = Callable[[Editor], None]
# The oldest opset that is written: the first with axes and scales as TensorRT 8 takes them.
OLDEST = 13
# The opset that brought what a pass writes in older words. The newest comes first: what its pass
# writes may need a later one.
_PASSES: tuple[tuple[int, Pass], ...] = (
    (21, split_group_norm),
    (20, split_gelu),
    (20, rename_sampling_modes),
    (19, forget_idle_ceilings),
    (18, axes_to_attributes),
    (18, spell_out_splits),
    (18, pad_all_sides),
    (18, split_group_norm),
    (18, split_mish),
    (17, split_layer_norm),
    (15, slice_shapes),
    (14, split_hard_swish),
    (14, forget_allowed_zeros),
)


def lower_opset(model: ModelProto, opset: int, where: str = "model") -> ModelProto:
    """Write a model in an older opset, with the same inputs, outputs and results.

    Args:
        model: is left as it is.
        opset: 13 or newer; a model of that opset or an older one is returned as it is.
        where: opens the text of an error.

    Raises:
        ModelError: naming the operator that has no older form, or the opset that cannot be written.
    """
    import onnx

    if opset < OLDEST:
        raise ModelError(f"{where}: opset {opset} is too old to be written", f"use {OLDEST} or 17")
    written = opset_of(model, where)
    if written <= opset:
        return model
    lowered = onnx.ModelProto()
    lowered.CopyFrom(model)
    edit = Editor(lowered, where)
    for since, rewrite in _PASSES:
        if written >= since > opset:
            rewrite(edit)
    for node in lowered.graph.node:
        conform(edit, node, written, opset)
    _stamp(lowered, opset)
    try:
        onnx.checker.check_model(lowered, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = first_line(error)
        raise ModelError(
            f"{where}: cannot be lowered to opset {opset} ({reason})", LOWER
        ) from error
    if opset_of(lowered, where) != opset:
        raise ModelError(f"{where}: holds another opset than {opset}, asked for", LOWER)
    return lowered


def opset_of(model: ModelProto, where: str) -> int:
    """Return the opset of the standard operators of a model.

    Raises:
        ModelError: it names none.
    """
    found = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    if len(found) != 1:
        raise ModelError(f"{where}: does not say of which opset it is", "export it again")
    return int(found[0])


def _stamp(model: ModelProto, opset: int) -> None:
    """Stamp opset and file format on a rewritten model, and drop constants that nobody reads."""
    import onnx

    for item in model.opset_import:
        if item.domain in ("", "ai.onnx"):
            item.version = opset
    model.ir_version = min(
        model.ir_version, onnx.helper.find_min_ir_version_for(list(model.opset_import))
    )
    read = {name for node in model.graph.node for name in node.input}
    read |= {value.name for value in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
