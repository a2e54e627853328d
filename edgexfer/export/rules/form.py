"""Rules on the file itself: opset, operators, shapes, types, and where its weights are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgexfer.export.passes.editor import attribute
from edgexfer.export.rules.subject import Finding, Graph, Target, label

_OPERATORS = "onnx-tensorrt docs/operators.md and Changelog.md"
_ONNX = "ONNX operator specification"
_NARROW = "store it in 32 bits"
_SHAPES = {
    "tensorrt": "TensorRT developer guide, dynamic shapes",
    "onnxruntime": "ONNX Runtime documentation, make dynamic input shape fixed",
    "openvino": "OpenVINO documentation, dynamic shapes",
}
# Operators that no parser from 8.2 to 10.6 takes.
_NEVER = frozenset(
    (
        *("AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr"),
        *("BitwiseXor", "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence"),
        *("ConvInteger", "DFT", "Det", "DynamicQuantizeLinear", "ImageDecoder", "MatMulInteger"),
        *("MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "Multinomial"),
        *("NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement", "OptionalHasElement"),
        *("QLinearConv", "QLinearMatMul", "RegexFullMatch", "SequenceAt", "SequenceConstruct"),
        *("SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap"),
        *("SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat", "StringNormalizer"),
        *("StringSplit", "TfIdfVectorizer", "Unique"),
    )
)
# The first version that takes an operator.
_SINCE = {
    **dict.fromkeys(("GridSample", "MeanVarianceNormalization", "Mod", "NonZero"), (8, 5)),
    **dict.fromkeys(("RandomNormal", "RoiAlign", "Trilu"), (8, 5)),
    **dict.fromkeys(("GroupNormalization", "HardSwish", "IsInf", "LayerNormalization"), (8, 6)),
    **dict.fromkeys(("Gelu", "Mish"), (10, 0)),
    "Hardmax": (9, 2),
    "DeformConv": (10, 1),
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow"), (10, 4)),
    "STFT": (10, 5),
}


def rule_opset(graph: Graph, target: Target) -> Iterator[Finding]:
    """The opset is one that the runtime's parser knows.

    Source: the profile's stack row, ``onnx_opset_max``.
    """
    limit = target.row.onnx_opset_max
    if graph.opset > limit:
        yield Finding(
            "error",
            "opset",
            "",
            "",
            f"opset {graph.opset} is newer than {limit}, which {target.runtime} parses at most",
            f"`{target.export}` lowers it; or export with an older opset_version",
            f"profile {target.profile.name}, {target.row.name}",
        )


def rule_domain(graph: Graph, target: Target) -> Iterator[Finding]:
    """Every operator is of the standard domain, or defined in the file by a function.

    ONNX Runtime brings operators of its own. Source: onnx-tensorrt takes others through plugins
    alone; its Changelog has functions since TensorRT 9.0.
    """
    own = {"com.microsoft", "ai.onnx.ml"} if target.profile.backend == "onnxruntime" else set()
    defined = {(f.domain, f.name) for f in graph.model.functions}
    if target.tensorrt and target.version < (9,):
        defined = set()
    for node in graph.nodes:
        known = node.domain in ("", "ai.onnx") or node.domain in own
        if not known and (node.domain, node.op_type) not in defined:
            yield Finding(
                "error",
                "custom-domain",
                label(node),
                node.op_type,
                f"is an operator of {node.domain}, which {target.runtime} does not have",
                "export the model in standard operators alone",
                _OPERATORS if target.tensorrt else _ONNX,
            )


def rule_unknown_operator(graph: Graph, target: Target) -> Iterator[Finding]:  # noqa: ARG001
    """Every standard operator exists in the file's opset.

    Source: ONNX operator specification, as the ``onnx`` package holds it.
    """
    from onnx import defs

    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx"):
            continue
        try:
            defs.get_schema(node.op_type, graph.opset or 1)
        except defs.SchemaError:
            yield Finding(
                "error",
                "unknown-operator",
                label(node),
                node.op_type,
                f"opset {graph.opset} has no such operator",
                "check the exporter's opset, or write the node in standard operators",
                _ONNX,
            )


def rule_parser_operator(graph: Graph, target: Target) -> Iterator[Finding]:
    """TensorRT's parser of that version has an importer for the operator.

    Source: onnx-tensorrt docs/operators.md of 8.4, 8.5 and 10.6, and its Changelog.
    """
    if not target.tensorrt:
        return
    for node in graph.of(*_NEVER, *_SINCE):
        since = _SINCE.get(node.op_type)
        if since is not None and target.version >= since:
            continue
        when = f"before {since[0]}.{since[1]}" if since else f"{target.row.runtime_version}"
        yield Finding(
            "error",
            "parser-operator",
            label(node),
            node.op_type,
            f"TensorRT {when} does not take it",
            f"`{target.export}` writes it in older operators"
            if since
            else "choose an architecture without it",
            _OPERATORS,
        )


def rule_parser_form(graph: Graph, target: Target) -> Iterator[Finding]:
    """Resizing and pooling are of a form that TensorRT's parser takes.

    Source: onnx-tensorrt docs/operators.md of 10.6: Resize by nearest or linear, without
    antialiasing; poolings without dilation and without the indices of MaxPool.
    """
    if not target.tensorrt:
        return
    for node in graph.of("AveragePool", "MaxPool", "Resize"):
        checks = (
            ("resizes by cubic", attribute(node, "mode") == b"cubic"),
            ("resizes with antialiasing", attribute(node, "antialias", 0) == 1),
            ("has a dilation", any(side != 1 for side in attribute(node, "dilations", []))),
            ("gives indices", len(node.output) > 1 and bool(node.output[1])),
        )
        for text, wrong in checks:
            if wrong:
                mend = "choose an architecture without it"
                yield Finding(
                    "error", "parser-form", label(node), node.op_type, text, mend, _OPERATORS
                )


def rule_dynamic(graph: Graph, target: Target) -> Iterator[Finding]:
    """Ranks are known, and of the input's sides the batch alone is free.

    Source: TensorRT developer guide, dynamic shapes: every free side needs an optimisation profile;
    onnx-tensorrt needs the rank when it parses. ONNX Runtime and OpenVINO plan and fuse by sizes
    that they know, as their own documentation has it.
    """
    source = _SHAPES.get(target.profile.backend, _ONNX)
    for name in graph.inputs():
        shape = graph.shape(name)
        if shape is None:
            yield Finding(
                "error" if target.tensorrt else "warning",
                "dynamic-rank",
                name,
                "",
                "the number of the input's dimensions is not fixed",
                "export with an input of fixed rank",
                source,
            )
        elif None in shape[1:]:
            yield Finding(
                "warning",
                "dynamic-size",
                name,
                "",
                f"sides {[i for i, side in enumerate(shape) if side is None]} of the input are "
                "free; kernels are chosen for a range of sizes",
                "export with a fixed size; the batch alone may be free",
                source,
            )


def rule_unknown_shape(graph: Graph, target: Target) -> Iterator[Finding]:
    """The rank of every tensor follows from the input.

    Source: TensorRT developer guide, data-dependent shapes: buffers are sized when the engine runs.
    """
    if not target.tensorrt:
        return
    for node in graph.of("NonZero", "NonMaxSuppression", "Compress", "Unique"):
        yield Finding(
            "warning",
            "data-dependent-shape",
            label(node),
            node.op_type,
            "the size of its result depends on the values that it reads",
            "leave it out of the model and do it on the CPU",
            "TensorRT developer guide, data-dependent shapes",
        )


def rule_wide_types(graph: Graph, target: Target) -> Iterator[Finding]:
    """No value is lost where 64-bit types are cast down.

    Source: onnx-tensorrt docs/operators.md: before 9.0 INT64 becomes INT32 and DOUBLE becomes FLOAT
    in every version, values beyond their range clamped.
    """
    from onnx import TensorProto

    if not target.tensorrt:
        return
    for name, tensor in graph.constants.items():
        if tensor.data_type == TensorProto.DOUBLE:
            text = "DOUBLE is cast to FLOAT"
            yield Finding("warning", "wide-type", name, "", text, _NARROW, _OPERATORS)
        elif target.version < (9,) and _beyond_int32(graph, name):
            text = "INT64 beyond INT32 is clamped"
            yield Finding("error", "wide-type", name, "", text, _NARROW, _OPERATORS)
    for name in graph.inputs():
        if graph.dtype(name) == TensorProto.INT64 and target.version < (9,):
            yield Finding(
                "warning",
                "wide-type",
                name,
                "",
                "the engine takes INT32 where the file says INT64",
                "feed INT32, or export the input so",
                _OPERATORS,
            )


def rule_external_data(graph: Graph, target: Target) -> Iterator[Finding]:  # noqa: ARG001
    """The file holds its own weights.

    Source: ONNX external data: the weights are lost where one file is copied without the other.
    """
    if graph.beside:
        yield Finding(
            "warning",
            "external-data",
            "",
            "",
            f"keeps weights in {', '.join(graph.beside[:3])}, which must travel with it",
            "write it as one file: onnx.save(onnx.load(FILE), OUT)",
            "ONNX external data",
        )


def rule_order(graph: Graph, target: Target) -> Iterator[Finding]:  # noqa: ARG001
    """Every node takes what stands before it, so that there is no cycle either.

    Source: ONNX intermediate representation, "Graphs": nodes are topologically sorted.
    """
    for node, name in graph.unsorted():
        yield Finding(
            "error",
            "node-order",
            label(node),
            node.op_type,
            f"takes {name}, which no node before it makes",
            "sort the nodes by their data; where they form a circle, export again",
            "ONNX intermediate representation, Graphs",
        )


FORM_RULES = (
    rule_opset,
    rule_order,
    rule_domain,
    rule_unknown_operator,
    rule_parser_operator,
    rule_parser_form,
    rule_dynamic,
    rule_unknown_shape,
    rule_wide_types,
    rule_external_data,
)


def _beyond_int32(graph: Graph, name: str) -> bool:
    """Whether a constant loses values as INT32; the ends of a Slice are as good when clamped."""
    from onnx import TensorProto

    readers = graph.readers.get(name, [])
    if graph.dtype(name) != TensorProto.INT64 or all(n.op_type == "Slice" for n in readers):
        return False
    limits, value = np.iinfo(np.int32), graph.value(name)
    return bool(((value > limits.max) | (value < limits.min)).any())
