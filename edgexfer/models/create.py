"""Models by name: timm's, and edgexfer's own networks for 32x32 images.

The same name, options and seed give the same weights to the bit, and torch's global generator is
left as it was.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from edgexfer.core.errors import MachineError, ModelError, first_line, nearest
from edgexfer.core.files import sha256_file
from edgexfer.core.preprocess import INTERPOLATIONS, Preprocess
from edgexfer.models import bottleneck, cifar, mobilenet, shufflenet, vgg, wide
from edgexfer.models.head import HIDDEN, add_hidden, belongs, head_names, output_names
from edgexfer.models.weights import fit_weights, read_trained, read_weights, weights_file

#: edgexfer's own architectures: name to what makes one for a number of classes. None is a name of
#: timm's, so that no name ever means two networks.
ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    **cifar.NETWORKS,
    **bottleneck.NETWORKS,
    **wide.NETWORKS,
    **vgg.NETWORKS,
    **shufflenet.NETWORKS,
    **mobilenet.NETWORKS,
}
# Mean and standard deviation of the CIFAR-10 training images.
_CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR_STD = (0.2470, 0.2435, 0.2616)


def create_model(
    name: str,
    num_classes: int,
    *,
    options: Mapping[str, Any] | None = None,
    pretrained: bool = False,
    weights: Path | None = None,
    seed: int = 0,
) -> tuple[nn.Module, str]:
    """Make a model, with weights from ``seed``, from timm's hub or from a file.

    Args:
        name: one of edgexfer's own, or a timm name, with its tag where one is wanted.
        num_classes: outputs of the head; a head of another size is made anew.
        options: further keyword arguments of the architecture; ``head_hidden`` gives any one with a
            linear head a hidden layer of so many units there, which is made anew unless loaded.
        pretrained: fetch timm's weights from its hub.
        weights: a finished run, safetensors file or timm checkpoint to start from.
        seed: of everything that is not loaded.

    Returns:
        The model on the CPU, and where its weights are from: ``scratch``, ``pretrained:TAG`` or
        ``file:SHA256``.

    Raises:
        ModelError: the name or an option is unknown, or the weights do not fit.
        RunError: the weights are those of a run that holds no finished model.
        MachineError: the hub cannot be reached.
    """
    if pretrained and weights is not None:
        raise ModelError(
            f"model {name}: both --pretrained and --weights {weights} are given", "give one of them"
        )
    check_name(name, pretrained=pretrained)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if weights is None:
            model = _build(name, num_classes, options or {}, pretrained=pretrained)
            return model, f"pretrained:{_tag(name)}" if pretrained else "scratch"
        model = _load(name, num_classes, options or {}, weights)
        return model, f"file:{sha256_file(weights_file(weights))}"


def head_classes(
    name: str,
    *,
    options: Mapping[str, Any] | None = None,
    pretrained: bool = False,
    weights: Path | None = None,
) -> int | None:
    """Return how many classes the head of weights was trained for; ``None`` where it was not.

    Args:
        name: as ``create_model`` takes it, and so the others.
        options: of the architecture.
        pretrained: whether it is timm's weights that are meant.
        weights: a run or file, where it is not.

    Raises:
        ModelError, RunError: as ``create_model`` raises them.
    """
    tensors = {} if weights is None else _read(name, weights)
    check_name(name, pretrained=pretrained)
    if pretrained:
        from timm.models import get_pretrained_cfg

        cfg = get_pretrained_cfg(name)
        return (cfg.num_classes if cfg is not None else 0) or None
    last = output_names(_build(name, 2, options or {}))[0]
    weight = tensors.get(f"{last}.weight")
    # One output is what stands in for a head where a model has learned without labels.
    return None if weight is None or len(weight) < 2 else len(weight)


def default_preprocess(
    name: str, size: int | None = None, options: Mapping[str, Any] | None = None
) -> Preprocess:
    """Return how a model is fed: timm's own settings, or 32 pixels for edgexfer's networks.

    Args:
        name: as ``create_model`` takes it.
        size: height and width in pixels; ``None`` takes the architecture's own.
        options: of the architecture; ``img_size`` among them is its own size.

    Raises:
        ModelError: the name is unknown, or the size is not positive.
    """
    check_name(name)
    if size is not None and size < 1:
        raise ModelError(f"model {name}: size {size} is not positive", "give the size in pixels")
    if name in ARCHITECTURES:
        side = size or 32
        return Preprocess((side, side), side, mean=_CIFAR_MEAN, std=_CIFAR_STD)
    from timm.models import get_pretrained_cfg

    found = get_pretrained_cfg(name)
    cfg: dict[str, Any] = found.to_dict() if found is not None else {}
    own = (options or {}).get("img_size") or cfg.get("input_size", (3, 224, 224))[1:]
    height, width = _pair(size or own)
    filter_ = cfg.get("interpolation", "bicubic")
    return Preprocess(
        size=(height, width),
        # timm's rule: the crop is `crop_pct` of the resized image, rounded down.
        resize=max(math.floor(max(height, width) / cfg.get("crop_pct", 0.875)), height, width),
        mode="squash" if cfg.get("crop_mode") == "squash" else "shortest",
        interpolation=filter_ if filter_ in INTERPOLATIONS else "bicubic",
        mean=cfg.get("mean", (0.485, 0.456, 0.406)),
        std=cfg.get("std", (0.229, 0.224, 0.225)),
    )


def complete_options(
    name: str, options: Mapping[str, Any] | None = None, size: int | None = None
) -> dict[str, Any]:
    """Return an architecture's options with all that a size other than its own needs.

    Architectures of fixed size (vision transformers) take ``img_size``; the others need nothing.
    """
    completed = dict(options or {})
    check_name(name)
    if size is None or name in ARCHITECTURES:
        return completed
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(name)
    if cfg is not None and cfg.fixed_input_size:
        completed.setdefault("img_size", size)
    return completed


def check_name(name: str, *, pretrained: bool = False) -> None:
    """Refuse a name that is none of an architecture.

    Args:
        name: a name, with or without timm's tag behind a dot.
        pretrained: whether there must be weights of it.

    Raises:
        ModelError: with the nearest names, or the known tags.
    """
    if name in ARCHITECTURES:
        if pretrained:
            raise ModelError(
                f"model {name}: there are no pre-trained weights of edgexfer's own models",
                "leave --pretrained out, or give a file with --weights",
            )
        return
    import timm

    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise ModelError(
            f"model {name!r} is unknown", nearest(base, [*ARCHITECTURES, *timm.list_models()])
        )
    tags = [n.partition(".")[2] for n in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise ModelError(f"model {name!r}: {base} has no weights tag {tag!r}", nearest(tag, tags))
    if pretrained and not timm.is_model_pretrained(name):
        raise ModelError(
            f"model {name}: timm has no pre-trained weights of it",
            "leave --pretrained out, or give a file with --weights",
        )


def _load(name: str, num_classes: int, options: Mapping[str, Any], weights: Path) -> nn.Module:
    tensors = _read(name, weights)
    model = _build(name, num_classes, options)
    own = model.state_dict()
    for head in head_names(model):
        mine = {n: t for n, t in own.items() if belongs(n, (head,))}
        theirs = {n: t for n, t in tensors.items() if belongs(n, (head,))}
        if {n: t.shape for n, t in mine.items()} != {n: t.shape for n, t in theirs.items()}:
            tensors = {n: t for n, t in tensors.items() if n not in theirs} | mine
    fit_weights(model, tensors, str(weights))
    return model


def _read(name: str, weights: Path) -> dict[str, Tensor]:
    if not weights.is_dir():
        return read_weights(weights)
    tensors, card = read_trained(weights)
    # A tag of timm's names weights, no architecture.
    if card.name.partition(".")[0] != name.partition(".")[0]:
        raise ModelError(
            f"{weights}: is a run of {card.name}, but {name} is to start from its weights",
            f"name {card.name} as the model, or a run of {name}",
        )
    return tensors


def _build(
    name: str, num_classes: int, options: Mapping[str, Any], *, pretrained: bool = False
) -> nn.Module:
    own = {key: value for key, value in options.items() if key != HIDDEN}
    model = _build_plain(name, num_classes, own, pretrained=pretrained)
    if HIDDEN in options:
        add_hidden(model, options[HIDDEN])
    return model


def _build_plain(
    name: str, num_classes: int, options: Mapping[str, Any], *, pretrained: bool
) -> nn.Module:
    if name in ARCHITECTURES:
        if options:
            raise ModelError(
                f"model {name}: takes no options, but got {', '.join(sorted(options))}",
                "leave them out",
            )
        return ARCHITECTURES[name](num_classes)
    import timm

    make: Callable[..., nn.Module] = timm.create_model
    if pretrained:
        return _fetch(lambda: make(name, pretrained=True, num_classes=num_classes, **options), name)
    try:
        return make(name, pretrained=False, num_classes=num_classes, **options)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ModelError(
            f"model {name}: refuses its options {dict(options)} ({first_line(error)})",
            "see timm's documentation of that architecture",
        ) from error


def _fetch(make: Callable[[], nn.Module], name: str) -> nn.Module:
    """Run ``make``, which downloads; turn what the network says into one line."""
    try:
        with _cache_alone_without_network():
            return make()
    except (OSError, RuntimeError) as error:
        # Network errors derive from OSError, some of huggingface_hub's from RuntimeError.
        raise MachineError(
            f"model {name}: its weights cannot be fetched from timm's hub ({first_line(error)})",
            "connect to the internet, or copy the weights here and give the file with --weights",
        ) from error
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"model {name}: refuses its options ({first_line(error)})",
            "see timm's documentation of that architecture",
        ) from error


@contextmanager
def _cache_alone_without_network() -> Iterator[None]:
    """Have the hub's client look at its cache alone where the hub's name does not resolve.

    It would try each file again and again, for most of a minute. Behind a proxy the name need not
    resolve here, and nothing is changed.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    if not getproxies():
        try:
            socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)
        except OSError:
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _tag(name: str) -> str:
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(name)
    return str(cfg.tag) if cfg is not None and cfg.tag else name


def _pair(size: Any) -> tuple[int, int]:
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))
