"""Operators whose older form says the same by other inputs or attributes."""

from __future__ import annotations

import numpy as np

from edgexfer.export.passes.editor import Editor, attribute, drop

# ReduceSum takes its axes as an input since opset 13 already.
_REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean"),
    *("ReduceMin", "ReduceProd", "ReduceSumSquare"),
)


def axes_to_attributes(edit: Editor) -> None:
    """Write the axes of reductions as an attribute, as they were before opset 18.

    Source: ONNX specification, ReduceMean-13 and ReduceMean-18.

    Raises:
        ModelError: the axes are computed when the model runs.
    """
    from onnx import helper

    for node in edit.of(*_REDUCTIONS):
        axes = edit.constant(node, 1, "axes")
        nothing = axes is None or axes.size == 0
        if nothing and attribute(node, "noop_with_empty_axes", 0):
            edit.replace(node, [helper.make_node("Identity", node.input[:1], node.output)])
            continue
        del node.input[1:]
        drop(node, "noop_with_empty_axes")
        if axes is not None and not nothing:
            node.attribute.append(helper.make_attribute("axes", axes.tolist()))


def spell_out_splits(edit: Editor) -> None:
    """Give Split its sizes where opset 18 says only how many parts there are.

    Source: ONNX specification, Split-18: all parts are equal but the last, which may be smaller.

    Raises:
        ModelError: the size of what is split is not fixed.
    """
    for node in edit.of("Split"):
        count = attribute(node, "num_outputs")
        if count is None:
            continue
        shape = edit.shape(node.input[0])
        axis = attribute(node, "axis", 0)
        whole = None if shape is None else shape[axis]
        if whole is None:
            raise edit.refusal(node, "the size of what it splits is not fixed")
        part = -(-whole // count)
        sizes = [part] * (count - 1) + [whole - part * (count - 1)]
        drop(node, "num_outputs")
        del node.input[1:]
        node.input.append(edit.add(node, np.array(sizes, np.int64)))


def pad_all_sides(edit: Editor) -> None:
    """Name the padding of every axis where opset 18 names some axes alone.

    Source: ONNX specification, Pad-13 and Pad-18.

    Raises:
        ModelError: axes or padding are computed, or the rank of what is padded is unknown.
    """
    for node in edit.of("Pad"):
        axes = edit.constant(node, 3, "axes")
        if axes is None:
            continue
        given = edit.constant(node, 1, "padding")
        assert given is not None, "the specification asks for it"
        before, after = np.split(given, 2)
        rank = edit.rank(node)
        pads = np.zeros((2, rank), np.int64)
        pads[0, axes], pads[1, axes] = before, after
        node.input[1] = edit.add(node, pads.reshape(-1))
        del node.input[3:]


def forget_idle_ceilings(edit: Editor) -> None:
    """Drop the rounding up of an AveragePool whose windows fill its image, where it does nothing.

    Before opset 19 a last window may begin beside the image; such a pooling is left to be refused.

    Source: ONNX specification, AveragePool-11 and AveragePool-19.
    """
    for node in edit.of("AveragePool"):
        sides = (edit.shape(node.input[0]) or ())[2:]
        if attribute(node, "auto_pad", b"NOTSET") != b"NOTSET" or not sides or None in sides:
            continue
        count = len(sides)
        pads = attribute(node, "pads", [0] * 2 * count)
        steps = attribute(node, "strides", [1] * count)
        apart = attribute(node, "dilations", [1] * count)
        windows = attribute(node, "kernel_shape")
        left = [
            (side or 0) + pads[i] + pads[i + count] - apart[i] * (windows[i] - 1) - 1
            for i, side in enumerate(sides)
        ]
        if all(size % step == 0 for size, step in zip(left, steps, strict=True)):
            drop(node, "ceil_mode")


def forget_allowed_zeros(edit: Editor) -> None:
    """Drop the permission of zeros (opset 14) where no side of a Reshape's result is zero.

    torch's exporter writes it everywhere. Without it a zero means the size of the input's side,
    which differs for an empty batch alone.

    Source: ONNX specification, Reshape-13 and Reshape-14.

    Raises:
        ModelError: a side is zero.
    """
    for node in edit.of("Reshape"):
        if not attribute(node, "allowzero", 0):
            continue
        sides = edit.shape(node.output[0])
        if sides is None or 0 in sides:
            raise edit.refusal(node, "a side of its result may be zero")
        drop(node, "allowzero")


def rename_sampling_modes(edit: Editor) -> None:
    """Call the modes of GridSample what they were called before opset 20.

    Source: ONNX specification, GridSample-16 and GridSample-20, which also takes volumes.

    Raises:
        ModelError: what is sampled is no image, or of unknown rank.
    """
    from onnx import helper

    for node in edit.of("GridSample"):
        if edit.rank(node) != 4:
            raise edit.refusal(node, "it samples no image")
        mode = attribute(node, "mode", b"linear")
        drop(node, "mode")
        older = {b"linear": "bilinear", b"cubic": "bicubic"}.get(mode, mode)
        node.attribute.append(helper.make_attribute("mode", older))


def slice_shapes(edit: Editor) -> None:
    """Write a Shape of some axes (opset 15) as a Slice of the shape of all.

    Source: ONNX specification, Shape-13 and Shape-15.
    """
    from onnx import helper

    for node in edit.of("Shape"):
        start, end = attribute(node, "start", 0), attribute(node, "end")
        if start == 0 and end is None:
            continue
        whole = edit.fresh(node, "whole")
        last = np.iinfo(np.int64).max if end is None else end
        ends = [edit.add(node, np.array([value], np.int64)) for value in (start, last)]
        nodes = [
            helper.make_node("Shape", node.input, [whole]),
            helper.make_node("Slice", [whole, *ends], node.output),
        ]
        edit.replace(node, nodes)
