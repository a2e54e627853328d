"""Splits by hash: stable, stratified, and never without a training image."""

from __future__ import annotations

import pytest

from edgexfer.data.split import Entry, divide, keep


def entries(n: int, classes: int = 4) -> list[Entry]:
    return [Entry(f"{c}/{i}.jpg", str(c)) for c in range(classes) for i in range(n)]


def places(divided: dict[str, tuple[Entry, ...]]) -> dict[str, str]:
    return {e.key: name for name, found in divided.items() for e in found}


def test_every_image_is_in_one_split_and_shares_are_met() -> None:
    divided = divide(entries(500), {"test": 0.2, "val": 0.08}, 0)
    assert sum(map(len, divided.values())) == 2000
    assert len(places(divided)) == 2000
    assert abs(len(divided["test"]) - 400) < 60
    assert abs(len(divided["val"]) - 160) < 40


def test_an_added_image_moves_no_other() -> None:
    before = places(divide(entries(200), {"test": 0.2, "val": 0.1}, 0))
    after = places(divide(entries(260), {"test": 0.2, "val": 0.1}, 0))
    assert {key: after[key] for key in before} == before


def test_the_seed_decides() -> None:
    assert divide(entries(50), {"test": 0.2}, 0) == divide(entries(50), {"test": 0.2}, 0)
    assert divide(entries(50), {"test": 0.2}, 0) != divide(entries(50), {"test": 0.2}, 1)


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("seed", range(20))
def test_tiny_classes_are_in_train_first_and_then_in_the_others(n: int, seed: int) -> None:
    divided = divide(entries(n), {"test": 0.2, "val": 0.1}, seed)
    counts = {name: {e.label for e in found} for name, found in divided.items()}
    assert counts["train"] == {"0", "1", "2", "3"}
    assert counts["test"] == {"0", "1", "2", "3"}
    if n > 3:
        assert counts["val"] | counts["train"] == {"0", "1", "2", "3"}


def test_a_share_of_nothing_takes_nothing() -> None:
    divided = divide(entries(10), {"test": 0.0, "val": 0.0}, 0)
    assert divided["test"] == divided["val"] == ()
    assert len(divided["train"]) == 40


def test_a_limit_takes_evenly_from_the_classes_and_keeps_the_order() -> None:
    found = keep(entries(50), 10, 0)
    assert len(found) == 10
    per_class = [sum(e.label == str(c) for e in found) for c in range(4)]
    assert sorted(per_class) == [2, 2, 3, 3]
    assert list(found) == sorted(found, key=entries(50).index)
    assert set(keep(entries(50), 10, 0)) < set(keep(entries(50), 20, 0))
    assert keep(entries(2), 100, 0) == tuple(entries(2))


def test_a_limit_fills_up_from_large_classes_where_small_ones_end() -> None:
    mixed = [*entries(2, 1), *[Entry(f"9/{i}", "9") for i in range(50)]]
    found = keep(mixed, 20, 0)
    assert [sum(e.label == c for e in found) for c in ("0", "9")] == [2, 18]
