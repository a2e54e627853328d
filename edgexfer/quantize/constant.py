"""Channels of a layer that give the same whatever they see: their weights are all 0.

Such a channel has no range to make a scale of. It gets the scale 1, on which 0 is exact, and its
bias stays floating point: INT8 takes nothing from it.
"""

from __future__ import annotations

from pathlib import Path

from edgexfer.quantize.placement import WEIGHTED, weight_axis

_SHOWN = 5


def constant_channels(model: Path) -> dict[str, tuple[int, ...]]:
    """Return the constant output channels of each weighted layer of a float ONNX file, by node."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(model).graph
    constants = {t.name: t for t in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type not in WEIGHTED or node.input[1] not in constants:
            continue
        weight = numpy_helper.to_array(constants[node.input[1]])
        axis = weight_axis(node, 1, weight.ndim)
        if axis is None:
            continue
        others = tuple(i for i in range(weight.ndim) if i != axis)
        dead = np.flatnonzero(~weight.any(axis=others))
        if len(dead):
            found[node.name] = tuple(int(i) for i in dead)
    return found


def in_words(found: dict[str, tuple[int, ...]]) -> str:
    """Return constant channels on one line: how many in which layers, the first ones by number."""
    layers = [
        f"{name} ({', '.join(str(i) for i in channels[:_SHOWN])}"
        f"{', ...' if len(channels) > _SHOWN else ''})"
        for name, channels in found.items()
    ]
    more = f" and {len(layers) - _SHOWN} more layers" if len(layers) > _SHOWN else ""
    count = sum(len(channels) for channels in found.values())
    return f"{count} constant channels stay as they are: {', '.join(layers[:_SHOWN])}{more}"
