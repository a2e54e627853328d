"""Strategy ``scratch``: every layer trains from random weights.

The control of all the others: a transfer that does not beat it has transferred nothing.
"""

from __future__ import annotations

from edgexfer.core.errors import RecipeError
from edgexfer.transfer.plan import Plan, Subject

MULTI_TASK = True
NEEDS_WEIGHTS = False


def prepare(subject: Subject) -> Plan:
    """Freeze nothing.

    Raises:
        RecipeError: weights to start from were asked for as well.
    """
    model = subject.section.model
    if model.pretrained or model.weights:
        raise RecipeError(
            "strategy scratch starts from random weights, but weights were given too",
            "leave out --pretrained and --weights, or use --strategy full",
        )
    return Plan()
