"""The rules, one case for each row of their table, and the limits between them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgexfer.advise.distance import Distance, measure
from edgexfer.advise.features import HEAD
from edgexfer.advise.layers import Depth
from edgexfer.advise.strategy import choose
from edgexfer.transfer.plan import strategy_names

NEAR = Depth((), HEAD, HEAD, (HEAD,), 50.0, knows_nothing=False)
EARLIER = replace(NEAR, best="layer2", until="layer2", likely=("layer2",))
NOTHING = replace(NEAR, knows_nothing=True)


def apart(shift: float) -> Distance:
    rng = np.random.default_rng(0)
    return measure(rng.normal(size=(60, 4)), rng.normal(size=(60, 4)) + shift)


ALIKE, STRANGE = apart(0), apart(9)


@pytest.mark.parametrize(
    ("per_class", "depth", "distance", "strategy", "options", "backbone_lr"),
    [
        (5, None, None, "scratch", {}, 1.0),
        (5, NOTHING, None, "full", {}, 1.0),
        (19, NEAR, None, "probe", {}, 1.0),
        (19, NEAR, STRANGE, "probe", {}, 1.0),
        (19, EARLIER, None, "freeze", {"until": "layer2"}, 1.0),
        (20, NEAR, ALIKE, "gradual", {}, 1.0),
        (199, EARLIER, ALIKE, "freeze", {"until": "layer2"}, 1.0),
        (199, NEAR, STRANGE, "freeze", {}, 1.0),
        (200, NEAR, None, "full", {}, 0.1),
        (200, NEAR, STRANGE, "full", {}, 1.0),
        (200, EARLIER, None, "full", {}, 1.0),
    ],
)
def test_each_row_of_the_table(
    per_class: int,
    depth: Depth | None,
    distance: Distance | None,
    strategy: str,
    options: dict[str, str],
    backbone_lr: float,
) -> None:
    found = choose(per_class, depth, distance)
    assert (found.strategy, found.options, found.backbone_lr) == (strategy, options, backbone_lr)
    assert found.guard == (depth is NOTHING)
    assert found.strategy in strategy_names()
    assert found.why


def test_a_probe_of_several_tasks_is_one_that_can_be_trained() -> None:
    assert choose(5, NEAR, None, several=True).options == {"head": "trained"}
