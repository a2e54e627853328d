"""Rules on what a graph computes: weights that FP16 cannot hold, and layers of a training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgexfer.export.passes.editor import attribute
from edgexfer.export.rules.subject import Finding, Graph, Target, label

if TYPE_CHECKING:
    from onnx import NodeProto

_HALF = np.finfo(np.float16)
# The share of a tensor's weights below FP16's smallest normal number that is worth a word.
_MANY = 0.01
_IEEE = "IEEE 754 binary16"
_THROUGH = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")


def rule_weights(graph: Graph, target: Target) -> Iterator[Finding]:
    """Weights are finite, and FP16 can hold them where the target runs in FP16.

    Source: IEEE 754 binary16: at most 65504, and 6.1e-5 at least with full precision.
    """
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    half = "fp16" in target.profile.precisions or (target.tensorrt and target.version >= (10,))
    for name, tensor in graph.constants.items():
        if tensor.data_type not in floats or name not in graph.readers:
            continue
        value = np.abs(graph.value(name).astype(np.float64))
        op = graph.readers[name][0].op_type
        if not np.isfinite(value).all():
            yield Finding(
                "error",
                "not-finite",
                name,
                op,
                "holds a value that is not finite",
                "train it anew",
                _IEEE,
            )
        elif half and value.max(initial=0) > float(_HALF.max):
            text = f"holds {value.max():.3g}; FP16 ends at {float(_HALF.max):.0f}"
            mend = "scale the layer, or keep it in FP32"
            yield Finding("warning", "fp16-overflow", name, op, text, mend, _IEEE)
        elif half and op in ("Conv", "Gemm", "MatMul", "ConvTranspose"):
            used = value[value > 0]
            share = float((used < float(_HALF.tiny)).mean()) if used.size else 0.0
            if share > _MANY:
                text = f"{100 * share:.0f} % of its weights are subnormal in FP16"
                yield Finding(
                    "note", "fp16-subnormal", name, op, text, "compare its accuracy in FP16", _IEEE
                )


def rule_half_without_it(graph: Graph, target: Target) -> Iterator[Finding]:
    """A file for ONNX Runtime's CPU is typed as FP32 where the target has no FP16.

    Source: ONNX Runtime, core/optimizer/insert_cast_transformer: a node without a kernel for FP16
    gets casts to FP32 and back around it, which cost time and gain none.
    """
    from onnx import TensorProto

    if target.profile.backend != "onnxruntime" or target.profile.device != "CPU":
        return
    if "fp16" in target.profile.precisions:
        return
    found = [n for n in graph.nodes if any(graph.dtype(i) == TensorProto.FLOAT16 for i in n.input)]
    if found:
        nodes = f"{len(found)} node{'s are' if len(found) > 1 else ' is'}"
        yield Finding(
            "note",
            "half-without-it",
            label(found[0]),
            found[0].op_type,
            f"{nodes} typed FP16, which this target does not list: it may cast to FP32 and back",
            "keep it in FP32, as `edgexfer export` does for this target",
            "ONNX Runtime, insert_cast_transformer",
        )


def rule_softmax(graph: Graph, target: Target) -> Iterator[Finding]:  # noqa: ARG001
    """The model ends in logits, or at most in one Softmax.

    Source: a Softmax of probabilities flattens them; the top class stays, so accuracy hides it.
    """
    for output in graph.model.graph.output:
        found = []
        for node in _back_from(graph, output.name):
            if node.op_type not in (*_THROUGH, "Softmax", "LogSoftmax"):
                break
            if node.op_type not in _THROUGH:
                found.append(node)
        if len(found) > 1:
            yield Finding(
                "warning",
                "double-softmax",
                label(found[0]),
                found[0].op_type,
                "is the second Softmax at the end: probabilities are flattened",
                "export the model without its Softmax",
                "ONNX operator specification, Softmax",
            )


def rule_training(graph: Graph, target: Target) -> Iterator[Finding]:  # noqa: ARG001
    """No layer is in training mode.

    Source: ONNX specification, BatchNormalization-15 and Dropout-13.
    """
    for node in graph.of("BatchNormalization", "Dropout"):
        if node.op_type == "BatchNormalization":
            training = attribute(node, "training_mode", 0) == 1
        else:
            mode = graph.value(node.input[2]) if len(node.input) > 2 else None
            training = mode is not None and bool(mode.any())
        if training:
            yield Finding(
                "error",
                "training-mode",
                label(node),
                node.op_type,
                "is in training mode: the result depends on the rest of the batch, or on chance",
                "call model.eval() before the export",
                "ONNX operator specification",
            )


def rule_unfused(graph: Graph, target: Target) -> Iterator[Finding]:  # noqa: ARG001
    """Normalisation that follows a convolution is folded into its weights.

    Source: TensorRT developer guide, explicit quantization: Q/DQ belongs after it is folded.
    """
    for node in graph.of("BatchNormalization"):
        before = graph.writers.get(node.input[0])
        if before is not None and before.op_type in ("Conv", "ConvTranspose", "Gemm"):
            yield Finding(
                "warning",
                "unfused-norm",
                label(node),
                node.op_type,
                f"follows {before.op_type} and is not folded into it",
                "export in eval mode, with constant folding",
                "TensorRT developer guide, explicit quantization",
            )


NUMBER_RULES = (rule_weights, rule_half_without_it, rule_softmax, rule_training, rule_unfused)


def _back_from(graph: Graph, name: str) -> Iterator[NodeProto]:
    """Yield the node that gives a tensor, then the one before it; broken files may have circles."""
    seen: set[str] = set()
    while name in graph.writers and name not in seen:
        seen.add(name)
        yield graph.writers[name]
        name = graph.writers[name].input[0]
