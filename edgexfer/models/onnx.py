"""A model as one ONNX file, with what was really written checked afterwards.

Only the FP32 file is made here, the first of every chain; INT8 lives in ``quantize/`` and FP16 in
``export/half.py``.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgexfer.core.errors import ModelError, first_line
from edgexfer.core.tasks import Task

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT, OUTPUT, BATCH = "images", "logits", "batch"
# The newest opset that TensorRT 10.0 to 10.3 parse. FP16 scales of QuantizeLinear need 19 at least,
# and torch's exporter writes nothing below 18.
OPSET = 20
# What takes a bias, third of its inputs.
_BIASED = ("Conv", "ConvTranspose", "Gemm", "InstanceNormalization", "LayerNormalization")
_CHATTY = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")


def export_onnx(
    model: nn.Module,
    size: tuple[int, int],
    out: Path,
    *,
    opset: int = OPSET,
    metadata: Mapping[str, Any] | None = None,
    tasks: Sequence[Task] = (),
    merge: bool = True,
) -> Path:
    """Write a model as one self-contained FP32 ONNX file.

    The file takes ``images`` (batch, 3, height, width), float32 and normalised, and gives
    ``logits`` (batch, classes), of several tasks ``logits_TASK`` for each; the batch is free, all
    else is fixed.

    Args:
        model: takes and gives just those; its weights and mode are as before afterwards.
        size: height and width of the input in pixels.
        out: file to write.
        opset: ONNX opset, asserted on the file that was written.
        metadata: values that JSON can hold, kept in the file's own metadata.
        tasks: what the model's outputs are about, where that is more than one question.
        merge: make one layer of branches that are apart for training alone, and one weight of what
            is computed of weights alone; ``False`` keeps each of the model's weights in the file.

    Raises:
        ModelError: the model cannot be exported, or another file was written than was asked for.
    """
    import onnx

    still = frozen(model)
    proto = _trace(merged(still) if merge else still, size, opset, fold=merge)
    _strip(proto)
    _own_biases(proto)
    _name_batch(proto)
    if tasks:
        _split_tasks(proto, tasks)
    onnx.helper.set_model_props(
        proto, {k: json.dumps(v, sort_keys=True) for k, v in (metadata or {}).items()}
    )
    onnx.save(proto, out)
    check_onnx(out, opset)
    return out


def check_onnx(path: Path, opset: int | None = None) -> int:
    """Check a file that edgexfer wrote, as the exchange format and as this project's contract.

    Args:
        path: the file.
        opset: the opset that it must be of; ``None`` takes any.

    Returns:
        The opset that it is of.

    Raises:
        ModelError: it is not a valid ONNX, of another opset, of operators that no standard runtime
            has, of several files, or of other inputs and outputs.
    """
    import onnx

    fix = "choose an architecture of standard layers, or report the model's name"
    proto = onnx.load(path, load_external_data=False)
    if any(tensor.data_location for tensor in proto.graph.initializer):
        raise ModelError(f"{path}: keeps its weights in another file", "export it again")
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"{path}: is not a valid ONNX model ({first_line(error)})", fix) from error
    written = {item.domain or "ai.onnx": item.version for item in proto.opset_import}
    if opset is not None and written.get("ai.onnx") != opset:
        raise ModelError(
            f"{path}: holds opset {written.get('ai.onnx')}, asked for {opset}",
            f"use opset {OPSET}, which torch's exporter can write",
        )
    foreign = sorted(set(written) - {"ai.onnx"})
    if foreign or proto.functions:
        raise ModelError(f"{path}: needs operators of {', '.join(foreign) or 'functions'}", fix)
    names = ([i.name for i in proto.graph.input], [o.name for o in proto.graph.output])
    named = names[1] == [OUTPUT] or all(n.startswith(f"{OUTPUT}_") for n in names[1])
    if names[0] != [INPUT] or not named:
        raise ModelError(f"{path}: has inputs and outputs {names}", fix)
    return int(written["ai.onnx"])


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' prints, log lines and deprecation warnings off the terminal."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def frozen(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode, on the CPU, in FP32 and in torch's default memory order.

    From channels-last weights the exporter writes shape arithmetic around each reduction, which
    FP32 survives and quantizers do not.
    """
    still = copy.deepcopy(model).eval().to("cpu", torch.float32)
    return still.to(memory_format=torch.contiguous_format)


def merged(model: nn.Module) -> nn.Module:
    """Make one layer of branches that a network has for training alone; the model is changed.

    The outputs stay the same, to rounding: RepVGG (Ding et al., CVPR 2021), MobileOne (Vasu et al.,
    CVPR 2023) and what is built of their blocks.
    """
    from timm.utils.model import reparameterize_model

    plain: nn.Module = reparameterize_model(model, inplace=True)
    return plain


def _trace(model: nn.Module, size: tuple[int, int], opset: int, *, fold: bool) -> ModelProto:
    from onnxscript.optimizer import fold_constants

    # Two images: torch.export would take a batch of one for a constant.
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                _out_of_place(model, images),
                (images,),
                dynamo=True,
                external_data=False,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim(BATCH)},),
            )
            if program is not None and fold:
                # The exporter folds small constants alone, and no weights that are standardised.
                most = torch.iinfo(torch.int64).max
                fold_constants(program.model, input_size_limit=most, output_size_limit=most)
    except Exception as error:  # the exporter wraps whatever the model's own code raises
        raise ModelError(
            f"model {type(model).__name__} cannot be exported to ONNX ({first_line(error)})",
            "choose an architecture without data-dependent control flow",
        ) from error
    if program is None:
        raise ModelError("torch's exporter gave no program", "export with dynamo=True")
    return program.model_proto


def _out_of_place(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Have layers write beside their input instead of over it, where nothing depends on that.

    The graph is the same; to trace it costs 40 % less where 19 layers are HardSwish.
    """
    inplace = [layer for layer in model.modules() if getattr(layer, "inplace", False)]
    exact = model(images)
    _set_inplace(inplace, False)
    if not torch.equal(model(images), exact):  # a shortcut takes what was written over
        _set_inplace(inplace, True)
    return model


def _set_inplace(layers: Sequence[Any], inplace: bool) -> None:
    for layer in layers:
        layer.inplace = inplace


def _split_tasks(proto: ModelProto, tasks: Sequence[Task]) -> None:
    """Give each task an output of its own, cut from that of the one head."""
    from onnx import TensorProto, helper

    graph = proto.graph
    sizes = [len(task.classes) for task in tasks]
    names = [f"{OUTPUT}_{task.name}" for task in tasks]
    graph.initializer.append(
        helper.make_tensor("task_sizes", TensorProto.INT64, [len(sizes)], sizes)
    )
    graph.node.append(helper.make_node("Split", [OUTPUT, "task_sizes"], names, "tasks", axis=1))
    whole = graph.output.pop()
    graph.value_info.append(whole)
    for name, size in zip(names, sizes, strict=True):
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, size]))


def _strip(proto: ModelProto) -> None:
    """Remove what tells of the machine and not of the model: stack traces, paths, names of modules.

    It is half of a small file, and it makes two exports of one model differ.
    """
    graph = proto.graph
    values = (*graph.value_info, *graph.input, *graph.output, *graph.initializer)
    for item in (proto, graph, *graph.node, *values):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")


def _own_biases(proto: ModelProto) -> None:
    """Give every layer a bias of its own, where the exporter has one for several of equal values.

    ONNX Runtime's quantizer needs copies, and names them without a look at the tensors: that of
    ``val_12`` may be ``val_122``, which another node gives.
    """
    graph = proto.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    taken = set()
    for node in graph.node:
        name = node.input[2] if node.op_type in _BIASED and len(node.input) > 2 else ""
        if name in weights and name in taken:
            node.input[2] = f"{name}_of_{node.name}"
            copied = graph.initializer.add()
            copied.CopyFrom(weights[name])
            copied.name = node.input[2]
        taken.add(name)


def _name_batch(proto: ModelProto) -> None:
    """Call the free dimension ``batch`` in input and output, as the exporter may invent a name."""
    for item in (*proto.graph.input, *proto.graph.output):
        item.type.tensor_type.shape.dim[0].dim_param = BATCH
