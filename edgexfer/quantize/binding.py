"""Which weights of a torch model the initialisers of its ONNX file were made from.

The exporter copies most weights, transposes some, and folds batch norms into the convolutions
before them. Here each is found again and computed from the model's own parameters, so that training
the file's weights trains the model's. Batch norms keep the statistics that they have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgexfer.core.errors import ModelError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Array = npt.NDArray[Any]
WEIGHTED = ("Conv", "Gemm", "MatMul")
# Folding is four float32 operations; the exporter may do them in another order.
_CLOSE = 1e-5


@dataclass(frozen=True)
class Copied:
    """An initialiser that holds a weight as it is.

    Attributes:
        name: of the weight in the model.
        transposed: whether the file has it transposed.
    """

    name: str
    transposed: bool = False

    def value(self, model: nn.Module) -> Tensor:
        """Return what the initialiser is to hold."""
        tensor = _tensor(model, self.name)
        return tensor.mT if self.transposed else tensor

    def parameters(self, model: nn.Module) -> Iterator[Tensor]:
        """Yield what it is made of; a buffer is not trained."""
        tensor = _tensor(model, self.name)
        if isinstance(tensor, nn.Parameter):
            yield tensor


@dataclass(frozen=True)
class _Folded:
    """A convolution and the batch norm behind it.

    Attributes:
        conv: name of the convolution.
        norm: name of the batch norm.
    """

    conv: str
    norm: str


class FoldedWeight(_Folded):
    """The weight of a convolution times what the batch norm behind it multiplies with."""

    def value(self, model: nn.Module) -> Tensor:
        """Return what the initialiser is to hold."""
        conv, norm = _layers(model, self.conv, self.norm)
        return conv.weight * _factor(norm).view(-1, 1, 1, 1)

    def parameters(self, model: nn.Module) -> Iterator[Tensor]:
        """Yield what it is made of."""
        conv, norm = _layers(model, self.conv, self.norm)
        yield from (conv.weight, norm.weight)


class FoldedBias(_Folded):
    """What a convolution and the batch norm behind it add."""

    def value(self, model: nn.Module) -> Tensor:
        """Return what the initialiser is to hold."""
        conv, norm = _layers(model, self.conv, self.norm)
        mean = norm.running_mean
        assert mean is not None
        shift = -mean if conv.bias is None else conv.bias - mean
        return norm.bias + shift * _factor(norm)

    def parameters(self, model: nn.Module) -> Iterator[Tensor]:
        """Yield what it is made of."""
        conv, norm = _layers(model, self.conv, self.norm)
        yield norm.bias
        if conv.bias is not None:
            yield conv.bias


Bound = Copied | FoldedWeight | FoldedBias


def bind(model: nn.Module, file: ModelProto, images: Tensor) -> dict[str, Bound]:
    """Say from which weights of a model each initialiser of its FP32 file was made.

    Args:
        model: in eval mode, on the CPU.
        file: the model as FP32 ONNX.
        images: normalised float32 (B, 3, H, W), to see what follows what.

    Returns:
        By the initialiser's name; constants of the graph are left out.

    Raises:
        ModelError: a layer's weight or bias is made of none of the model's.
    """
    from onnx import numpy_helper

    arrays = {t.name: numpy_helper.to_array(t) for t in file.graph.initializer}
    held = {n: t.detach().numpy() for n, t in model.state_dict().items()}
    norms = _norms(model, images)
    bound: dict[str, Bound] = {}
    for node in file.graph.node:
        if node.op_type == "Conv":
            bound.update(_fold(model, node, arrays, norms))
    for name, array in arrays.items():
        found = _find(name, array, held) if array.ndim and name not in bound else None
        if found is not None:
            bound[name] = found
    for node in file.graph.node:
        for name in node.input[1:] if node.op_type in WEIGHTED else ():
            if name in arrays and name not in bound:
                raise ModelError(
                    f"{type(model).__name__}: {name} of its ONNX file is none of its weights",
                    "leave out --qat-for, or choose another architecture",
                )
    return bound


def _norms(model: nn.Module, images: Tensor) -> dict[str, str]:
    """Return by the name of each convolution that of the batch norm that takes its output."""
    names = {module: name for name, module in model.named_modules()}
    # Tensors are kept, not their ids, which a later tensor may get again.
    made: list[tuple[Tensor, str]] = []
    found: dict[str, str] = {}

    def note(module: nn.Module, _: Any, output: Tensor) -> None:
        made.append((output, names[module]))

    def match(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.update({conv: names[module] for output, conv in made if output is inputs[0]})

    hooks = [m.register_forward_hook(note) for m in names if isinstance(m, nn.Conv2d)]
    hooks += [
        m.register_forward_pre_hook(match)
        for m in names
        if isinstance(m, _BatchNorm) and m.affine and m.track_running_stats
    ]
    try:
        with torch.no_grad():
            model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _fold(
    model: nn.Module, node: NodeProto, arrays: Mapping[str, Array], norms: Mapping[str, str]
) -> dict[str, Bound]:
    """Bind a convolution that a batch norm was folded into; nothing where none was."""
    conv = node.input[1].removesuffix(".weight")
    if conv not in norms or node.input[1] not in arrays:
        return {}
    parts: list[Bound] = [FoldedWeight(conv, norms[conv]), FoldedBias(conv, norms[conv])]
    # The exporter leaves out a bias of zeros.
    both = dict(zip(node.input[1:], parts, strict=False))
    for name, part in both.items():
        value = part.value(model).detach().numpy()
        wanted = arrays[name]
        if value.shape != wanted.shape:
            return {}
        if not np.allclose(value, wanted, rtol=_CLOSE, atol=_CLOSE * np.abs(wanted).max()):
            return {}
    return both


def _find(name: str, array: Array, held: Mapping[str, Array]) -> Copied | None:
    """Find the weight of that name, else the only one of these values; it may lie transposed."""
    if name in held and np.array_equal(held[name], array):
        return Copied(name)
    for transposed in (False, True):
        wanted = array.T if transposed else array
        same = [n for n, value in held.items() if np.array_equal(value, wanted)]
        if len(same) == 1:
            return Copied(same[0], transposed)
    return None


def _factor(norm: _BatchNorm) -> Tensor:
    variance = norm.running_var
    assert variance is not None
    return norm.weight / torch.sqrt(variance + norm.eps)


def _layers(model: nn.Module, conv: str, norm: str) -> tuple[nn.Conv2d, _BatchNorm]:
    both = (model.get_submodule(conv), model.get_submodule(norm))
    assert isinstance(both[0], nn.Conv2d)
    assert isinstance(both[1], _BatchNorm)
    return both[0], both[1]


def _tensor(model: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(path), leaf)
    return tensor
