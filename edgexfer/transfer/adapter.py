"""Strategy ``adapter``: a 1x1 convolution beside each convolution trains, merged in the end.

Parallel residual adapters: y = f(x) + a * x, with f a frozen k x k convolution and a one of 1x1, of
the same stride and groups, which is the central tap of f's kernel and so merges exactly; norms
train with their statistics (Rebuffi, Bilen and Vedaldi, "Efficient Parametrization of Multi-domain
Deep Neural Networks", CVPR 2018, section 3.1). A linear layer has a linear one beside it: as many
weights as in full, but weight decay pulls towards the former ones. The head trains in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from edgexfer.models.adapters import Beside, attach, choose_sites, has_centre, merge
from edgexfer.models.freeze import freeze_backbone
from edgexfer.models.layers import norm_parameters
from edgexfer.transfer.plan import STRICT, Plan, Subject

MULTI_TASK = True
NEEDS_WEIGHTS = True


@dataclass(frozen=True)
class Options:
    """What changes.

    Attributes:
        targets: layers that change, of the kinds attention, linear, conv, pointwise, or by the name
            or number of a stage or layer: [attention, layer3]; unset takes all below the head whose
            kernel has a centre.
        norms: train the normalising layers, with their statistics, too.
    """

    __pydantic_config__ = STRICT

    targets: tuple[str, ...] | None = None
    norms: bool = True


def prepare(subject: Subject) -> Plan:
    """Freeze all but the head and the norms, and put the adapters beside the weights.

    Raises:
        ModelError: a target is unknown, or nothing in it can be adapted.
    """
    options: Options = subject.options
    model = subject.built.model
    sites = choose_sites(model, options.targets, "strategy adapter", has_centre)
    frozen = freeze_backbone(model)
    if options.norms:
        frozen = []
        for parameter in norm_parameters(model):
            parameter.requires_grad_(True)
    attach(model, sites, Beside, seed=subject.section.train.seed)
    return Plan(frozen=frozen, finish=partial(merge, model, sites))
