"""What is added to a model's weights while they themselves stand still, and merged in the end.

An adapted weight is a function of the one that was there (``torch.nn.utils.parametrize``): every
layer that reads its weight is served, also those that do more with it than torch's own (``peft``
wraps whole layers, which those do not survive), and merging writes down the very weight that the
layer computed with. Which layers there are to adapt is found here; who adapts them are the
strategies of ``transfer``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgexfer.core.errors import EdgexferError, ModelError
from edgexfer.models.head import belongs, head_names
from edgexfer.models.layers import find_layer

#: Kinds of layers, by which they can be named.
KINDS = ("attention", "linear", "conv", "pointwise")


@dataclass(frozen=True)
class Site:
    """A weight that can be adapted.

    Attributes:
        layer: dotted name of its layer.
        tensor: name of the weight in it.
        kinds: those of ``KINDS`` that the layer is of.
    """

    layer: str
    tensor: str
    kinds: frozenset[str]


class LowRank(nn.Module):
    """W + alpha / rank * B A, with W flattened to (outputs, rest) as a matrix.

    A is uniform within 1 / sqrt(columns), B zero: it begins as W. (Hu et al., "LoRA", ICLR 2022;
    the initial values are those of its authors' code.)
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        """Make the two factors for a weight; a rank above that of the matrix becomes that."""
        super().__init__()
        rows, columns = weight.shape[0], weight[0].numel()
        rank = min(rank, rows, columns)
        self.scale = alpha / rank
        self.a = nn.Parameter(torch.empty(rank, columns).uniform_(-1, 1) / math.sqrt(columns))
        self.b = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight to compute with, in float32 also under autocast."""
        with torch.autocast(weight.device.type, enabled=False):
            return weight + (self.scale * (self.b @ self.a)).view(weight.shape)


class Beside(nn.Module):
    """W and a 1x1 convolution beside it, which is its central tap; a matrix beside a matrix.

    It begins as W. (Rebuffi, Bilen and Vedaldi, "Efficient Parametrization of Multi-domain Deep
    Neural Networks", CVPR 2018, parallel adapters: the same stride and groups.)
    """

    def __init__(self, weight: Tensor) -> None:
        """Make the convolution for a weight whose kernel has a centre."""
        super().__init__()
        self.beside = nn.Parameter(weight.new_zeros(weight.shape[:2]))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight to compute with."""
        if weight.ndim == 2:
            return weight + self.beside
        down, right = weight.shape[2] // 2, weight.shape[3] // 2
        return weight + F.pad(self.beside[:, :, None, None], (right, right, down, down))


def has_centre(weight: Tensor) -> bool:
    """Say whether a weight is a matrix, or a kernel of odd height and width."""
    return all(side % 2 for side in weight.shape[2:])


def choose_sites(
    model: nn.Module,
    targets: Sequence[str] | None,
    where: str,
    suits: Callable[[Tensor], bool] = lambda _: True,
) -> list[Site]:
    """Return the weights of the backbone that are meant.

    Args:
        model: its head is never among them.
        targets: kinds of layers, numbers of stages or names of modules, in which all layers are
            meant; ``None`` takes every layer that suits.
        where: who asks, which opens the text of an error.
        suits: says of a weight whether it can be adapted.

    Raises:
        ModelError: a target is unknown, or nothing in it can be adapted.
    """
    known = _sites(model)
    good = [s for s in known if suits(model.get_submodule(s.layer).get_parameter(s.tensor))]
    if targets is None:
        chosen = set(good)
    else:
        chosen = {site for target in targets for site in _meant(model, good, target, where)}
    if not chosen:
        raise ModelError(
            f"{where}: {type(model).__name__} has no layer that can be adapted",
            "name convolutions or linear layers, or use --strategy freeze",
        )
    return [site for site in known if site in chosen]


def attach(
    model: nn.Module, sites: Sequence[Site], make: Callable[[Tensor], nn.Module], *, seed: int
) -> None:
    """Adapt weights; they are frozen, and what is made for them trains.

    Args:
        model: changed in place.
        sites: which weights.
        make: returns for a weight the module that adapts it.
        seed: of the random values in it; torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for site in sites:
            layer = model.get_submodule(site.layer)
            weight = layer.get_parameter(site.tensor).requires_grad_(False)
            parametrize.register_parametrization(layer, site.tensor, make(weight))


def merge(model: nn.Module, sites: Sequence[Site]) -> None:
    """Write each adapted weight into the layer, which is then what it was built as."""
    for site in sites:
        layer = model.get_submodule(site.layer)
        parametrize.remove_parametrizations(layer, site.tensor)
        # What comes back comes last: the others follow it, in the order of the architecture.
        for name, parameter in list(layer.named_parameters(recurse=False)):
            if name != site.tensor:
                delattr(layer, name)
                layer.register_parameter(name, parameter)


def _sites(model: nn.Module) -> list[Site]:
    heads = head_names(model)
    attention = tuple(
        n for n, m in model.named_modules() if n and "attention" in type(m).__name__.lower()
    )
    found = []
    for name, module in model.named_modules():
        kinds = _kinds(module)
        if not kinds or belongs(name, heads):
            continue
        if "linear" in kinds and belongs(name, attention):
            kinds = kinds | {"attention"}
        tensor = "in_proj_weight" if isinstance(module, nn.MultiheadAttention) else "weight"
        found.append(Site(name, tensor, kinds))
    return found


def _kinds(module: nn.Module) -> frozenset[str]:
    if isinstance(module, nn.Conv2d):
        return frozenset({"conv", "pointwise"} if module.kernel_size == (1, 1) else {"conv"})
    # Queries, keys and values in one matrix; torch leaves it out where they differ in width.
    packed = isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None
    return frozenset({"linear"} if packed or isinstance(module, nn.Linear) else ())


def _meant(model: nn.Module, good: Sequence[Site], target: str, where: str) -> list[Site]:
    if target in KINDS:
        found = [site for site in good if target in site.kinds]
        if not found:
            raise ModelError(
                f"{where}: {type(model).__name__} has no layer of the kind {target!r} to adapt",
                f"name others of {', '.join(KINDS)}, or a layer",
            )
        return found
    try:
        layer = find_layer(model, target, where)
    except EdgexferError as error:
        raise ModelError(error.what, f"{error.fix}; kinds: {', '.join(KINDS)}") from None
    found = [site for site in good if belongs(site.layer, (layer,))]
    if not found:
        kind = type(model.get_submodule(layer)).__name__
        raise ModelError(
            f"{where}: layer {layer!r} is a {kind}, in which there is nothing to adapt",
            "name a convolution or a linear layer below the head, or what holds some",
        )
    return found
