"""What quantization does to every layer: its weights, what it takes and gives, and the answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgexfer.core.explanation import LayerNoise
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.observe import run_batches, with_outputs
from edgexfer.quantize.sensitivity import (
    DEQUANTIZE,
    EQUAL_DB,
    QUANTIZE,
    Sensitivity,
    measure_nodes,
    quantized_nodes,
)

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def measure_layers(quantized: Path, model: Path, images: Calibration) -> list[LayerNoise]:
    """Compare a Q/DQ file with its float file, layer by layer.

    Args:
        quantized: with every node of ``model``.
        model: the FP32 ONNX file.
        images: few are enough.

    Returns:
        In the order of the graph.

    Raises:
        BackendError: ONNX Runtime cannot run a graph.
    """
    import onnx

    made, base = onnx.load(quantized), onnx.load(model)
    alone = {found.node: found for found in measure_nodes(quantized, model, images)}
    nodes = {node.name: node for node in made.graph.node}
    twins = {node.name: node for node in base.graph.node}
    sources = _sources(made)
    pairs: dict[tuple[str, str], str] = {}
    for name, _ in quantized_nodes(made):
        pairs[name, "output"] = nodes[name].output[0]
        taken = [i for i in nodes[name].input if i in sources]
        if taken:
            pairs[name, "input"] = taken[0]
    wanted = {
        key: twins[key[0]].output[0] if key[1] == "output" else sources[tensor]
        for key, tensor in pairs.items()
    }
    ratios = _compare_tensors(made, base, pairs, wanted, images)
    weights = _weight_ratios(made, base)
    return [_layer(nodes[name], alone[name], ratios, weights) for name, _ in quantized_nodes(made)]


def responsible(layers: list[LayerNoise], share_pct: float = 80.0) -> list[LayerNoise]:
    """Return the fewest layers that make up a share of the noise, the worst first."""
    found: list[LayerNoise] = []
    for layer in sorted(layers, key=lambda one: -one.share_pct):
        if layer.share_pct <= 0.0 or sum(one.share_pct for one in found) >= share_pct:
            break
        found.append(layer)
    return found


def _layer(
    node: NodeProto,
    alone: Sensitivity,
    ratios: Mapping[tuple[str, str], float | None],
    weights: Mapping[str, float | None],
) -> LayerNoise:
    return LayerNoise(
        node=node.name,
        op_type=node.op_type,
        weight_db=next((weights[name] for name in node.input if name in weights), None),
        input_db=ratios.get((node.name, "input")),
        output_db=ratios.get((node.name, "output")),
        alone_db=alone.alone_db,
        share_pct=alone.share_pct,
    )


def _sources(made: ModelProto) -> dict[str, str]:
    """Return for each dequantized activation the float tensor that it stands for."""
    makers = {name: node for node in made.graph.node for name in node.output}
    found = {}
    for node in made.graph.node:
        before = makers.get(node.input[0]) if node.op_type == DEQUANTIZE else None
        if before is not None and before.op_type == QUANTIZE:
            found[node.output[0]] = before.input[0]
    return found


def _compare_tensors(
    made: ModelProto,
    base: ModelProto,
    pairs: Mapping[tuple[str, str], str],
    wanted: Mapping[tuple[str, str], str],
    images: Calibration,
) -> dict[tuple[str, str], float | None]:
    """Compare tensors of two graphs over all images; memory holds those of one batch."""
    names = (sorted(set(wanted.values())), sorted(set(pairs.values())))
    power: dict[tuple[str, str], float] = dict.fromkeys(pairs, 0.0)
    noise: dict[tuple[str, str], float] = dict.fromkeys(pairs, 0.0)
    for floats, integers in _both(
        with_outputs(base, names[0]), with_outputs(made, names[1]), images
    ):
        first = dict(zip(names[0], floats, strict=True))
        second = dict(zip(names[1], integers, strict=True))
        for key in pairs:
            y = first[wanted[key]].astype(np.float64)
            power[key] += float(np.square(y).sum())
            noise[key] += float(np.square(y - second[pairs[key]]).sum())
    return {key: _decibels(power[key], noise[key]) for key in pairs}


def _both(
    first: ModelProto, second: ModelProto, images: Calibration
) -> Iterator[tuple[list[Any], list[Any]]]:
    yield from zip(
        run_batches(first, images, "FP32"), run_batches(second, images, "INT8"), strict=True
    )


def _weight_ratios(made: ModelProto, base: ModelProto) -> dict[str, float | None]:
    """Return how near each dequantized weight is to the float one, by the dequantized name."""
    from onnx import numpy_helper

    constants = {t.name: t for t in made.graph.initializer}
    floats = {t.name: t for t in base.graph.initializer}
    found: dict[str, float | None] = {}
    for node in made.graph.node:
        name = str(node.input[0]).removesuffix("_quantized") if node.input else ""
        if node.op_type != DEQUANTIZE or node.input[0] not in constants or name not in floats:
            continue
        y = numpy_helper.to_array(floats[name]).astype(np.float64)
        if y.ndim < 2:
            continue  # a bias
        integers, scale = (numpy_helper.to_array(constants[i]) for i in node.input[:2])
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        wide = [-1 if scale.size > 1 and i == axis else 1 for i in range(y.ndim)]
        error = y - integers.astype(np.float64) * scale.astype(np.float64).reshape(wide)
        found[node.output[0]] = _decibels(float(np.square(y).sum()), float(np.square(error).sum()))
    return found


def _decibels(power: float, noise: float) -> float | None:
    if noise == 0.0:
        return None
    return 10.0 * float(np.log10(power / noise)) if power > 0.0 else -EQUAL_DB
