"""Means over the whole image as poolings, which the DLA runs and reductions it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgexfer.export.passes.editor import Editor, attribute

if TYPE_CHECKING:
    from onnx import NodeProto

# The largest window of a pooling on the DLA. Source: NvInfer.h of TensorRT 10.3.
WINDOW = 8


def means_to_pooling(edit: Editor) -> None:
    """Write ReduceMean over height and width, and GlobalAveragePool, as AveragePool.

    Where the image is larger than the DLA's window, several poolings follow each other, each as
    large as its stride, so that every pixel keeps its weight. A size that has no such factors stays
    a GlobalAveragePool. Axes may be an attribute or a constant input.

    Source: the DLA takes AveragePool, and neither ReduceMean nor GlobalAveragePool (NVIDIA
    Deep-Learning-Accelerator-SW, operators; TensorRT 8.6 on Orin).
    """
    from onnx import helper

    for node in edit.of("ReduceMean", "GlobalAveragePool"):
        shape = edit.shape(node.input[0])
        if shape is None or len(shape) != 4 or None in shape[2:] or not _over_image(edit, node):
            continue
        keeps = node.op_type == "GlobalAveragePool" or attribute(node, "keepdims", 1)
        last = node.output[0] if keeps else edit.fresh(node, "pooled")
        windows = _windows(shape[2] or 0, shape[3] or 0)
        if windows is None:
            pools = [helper.make_node("GlobalAveragePool", node.input[:1], [last])]
        else:
            steps = [edit.fresh(node, "pooling") for _ in windows[1:]]
            names = [node.input[0], *steps, last]
            pools = [
                helper.make_node(
                    "AveragePool", [names[i]], [names[i + 1]], kernel_shape=w, strides=w
                )
                for i, w in enumerate(windows)
            ]
        if not keeps:
            pools.append(helper.make_node("Flatten", [last], node.output, axis=1))
        edit.replace(node, pools)


def reshapes_to_flatten(edit: Editor) -> None:
    """Write a Reshape of (batch, channels, 1, 1) to (batch, channels) as Flatten.

    Source: the target's parser then sees that the batch stays what it is, also where the exporter
    wrote the batch as -1 or as a computed shape.
    """
    from onnx import helper

    for node in edit.of("Reshape"):
        before, after = edit.shape(node.input[0]), edit.shape(node.output[0])
        if before is None or after is None or len(before) != 4 or len(after) != 2:
            continue
        if before[1] is not None and before[1] == after[1] and before[2:] == (1, 1):
            edit.replace(node, [helper.make_node("Flatten", node.input[:1], node.output, axis=1)])


def _over_image(edit: Editor, node: NodeProto) -> bool:
    if node.op_type == "GlobalAveragePool":
        return True
    axes = attribute(node, "axes")
    if axes is None:
        found = edit.constant(node, 1, "axes")
        axes = [] if found is None else found.tolist()
    return sorted(axis % 4 for axis in axes) == [2, 3]


def _windows(height: int, width: int) -> list[list[int]] | None:
    """Return windows of at most ``WINDOW`` whose product is the image; ``None`` if there are none.

    The windows of both sides are paired from the largest on; a side that is done has windows of 1.
    """
    sides = [_factors(height), _factors(width)]
    if None in sides:
        return None
    tall, wide = (list(side or ()) for side in sides)
    count = max(len(tall), len(wide), 1)
    tall += [1] * (count - len(tall))
    wide += [1] * (count - len(wide))
    return [list(pair) for pair in zip(tall, wide, strict=True)]


def _factors(size: int) -> list[int] | None:
    """Split a size greedily into factors of at most ``WINDOW``."""
    found = []
    while size > 1:
        factor = next((f for f in range(WINDOW, 1, -1) if size % f == 0), None)
        if factor is None:
            return None
        found.append(factor)
        size //= factor
    return found
