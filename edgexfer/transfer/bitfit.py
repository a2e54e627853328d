"""Strategy ``bitfit``: biases, the norms' scales and the new head train, all weights stay.

Ben Zaken, Goldberg and Ravfogel, "BitFit: Simple Parameter-efficient Fine-tuning for
Transformer-based Masked Language-models", ACL 2022. Their transformers have biases everywhere; a
convolution before a batch norm has its bias in the norm, so norms move in scale and shift here. The
statistics of batch norms stand still: the backbone stays in eval mode.
"""

from __future__ import annotations

from edgexfer.models.freeze import freeze_backbone
from edgexfer.models.layers import norm_parameters
from edgexfer.transfer.plan import Plan, Subject

MULTI_TASK = True
NEEDS_WEIGHTS = True


def prepare(subject: Subject) -> Plan:
    """Freeze all but the head, then free the biases and the norms' parameters."""
    model = subject.built.model
    frozen = freeze_backbone(model)
    biases = [p for n, p in model.named_parameters() if n.endswith("bias")]
    for parameter in [*biases, *norm_parameters(model)]:
        parameter.requires_grad_(True)
    return Plan(frozen=frozen)
