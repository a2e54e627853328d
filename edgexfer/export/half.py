"""FP16 typing of an ONNX file, for runtimes that take every precision from the file itself."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from edgexfer.core.errors import ModelError, first_line
from edgexfer.models.onnx import check_onnx

if TYPE_CHECKING:
    from onnx import GraphProto


def to_half(model: Path, out: Path) -> Path:
    """Type the inside of an FP32 ONNX file as FP16; inputs and outputs stay float32.

    Q/DQ files are taken too: their scales become FP16, their INT8 weights stay as they are.
    Values beyond FP16's range are clamped to it, which the parity ladder then judges.

    Raises:
        ModelError: the file cannot be typed so.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one for each weight below FP16's smallest number
            typed = convert_float_to_float16(onnx.load(model), keep_io_types=True)
        _drop_repeated(typed.graph)
        # The converter appends its casts at the end; ONNX wants nodes in the order of their data.
        OnnxModel.graph_topological_sort(typed.graph, is_deterministic=True)
    except Exception as error:  # the converter raises what its helpers raise, of many classes
        raise ModelError(
            f"{model.name}: cannot be typed as FP16 ({first_line(error)})",
            "export with --precision fp32, or choose another architecture",
        ) from error
    onnx.save(typed, out)
    check_onnx(out)
    return out


def _drop_repeated(graph: GraphProto) -> None:
    """Keep one of the casts that the converter makes, under one name, for each node that takes it.

    Nodes that it leaves in FP32, such as two CumSum of one input, have the same cast each.
    """
    made: set[str] = set()
    for node in list(graph.node):
        if node.op_type == "Cast" and node.output[0] in made:
            graph.node.remove(node)
        made.update(node.output)
