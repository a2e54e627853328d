"""Strategy ``full``: every layer trains, the backbone at ``backbone_lr`` times the head's rate.

The usual fine-tuning; with some thousands of images it is the most accurate. A ``backbone_lr`` of
0.1 keeps pre-trained features from being overwritten while the new head is still random.
"""

from __future__ import annotations

from edgexfer.transfer.plan import Plan, Subject

MULTI_TASK = True
NEEDS_WEIGHTS = False


def prepare(subject: Subject) -> Plan:
    """Freeze nothing."""
    del subject
    return Plan()
