from __future__ import annotations

import pytest

from edgexfer.export.measure import _summary
from tests.bench.made import make_record

CPU = {"cpu": "Example CPU"}


def test_a_level_that_moves_is_a_doubt_and_no_obstacle_to_a_choice() -> None:
    moved = make_record(
        [[10, 20, 30], [11, 21, 31]],
        status="invalid",
        reasons=("nonstationary: the level changes by +9 % at sample 40",),
        device=CPU,
    )
    found = _summary([moved])
    assert found.obstacle is None
    assert found.medians_ns == {"made": (20, 21)}
    assert found.doubts == moved.reasons


@pytest.mark.parametrize(
    ("status", "reasons"),
    [
        ("failed", ("it broke; fix: mend it",)),
        ("invalid", ("outputs differ",)),
        ("invalid", ("nonstationary: the level changes", "outputs differ")),
    ],
)
def test_what_is_worthless_leaves_nothing_to_choose_by(
    status: str, reasons: tuple[str, ...]
) -> None:
    found = _summary([make_record([[1]], status=status, reasons=reasons, device=CPU)])
    assert found.obstacle == "; ".join(reasons)
    assert found.medians_ns == {}
