"""Strategy ``probe``: a new head on a backbone that stays as it is (linear probing).

The cheapest transfer, and the yardstick of the others: it cannot forget and hardly overfits. Its
accuracy says how good the features are for the new classes (Kornblith et al., "Do Better ImageNet
Models Transfer Better?", 2019).
"""

from __future__ import annotations

from edgexfer.models.freeze import freeze_backbone
from edgexfer.transfer.plan import Plan, Subject

NEEDS_WEIGHTS = True


def prepare(subject: Subject) -> Plan:
    """Freeze all but the head."""
    return Plan(frozen=freeze_backbone(subject.built.model))
