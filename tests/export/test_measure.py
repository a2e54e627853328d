from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgexfer.core.bundle import verify_files
from edgexfer.export.measure import Board, _summary, measure_on
from edgexfer.profiles import find_profile
from edgexfer.remote.address import Address
from edgexfer.remote.ssh import Ssh
from tests.bench.made import make_record
from tests.bundles import make_bundle

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


@pytest.mark.ssh
@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh is here")
def test_a_board_that_cannot_be_had_is_an_obstacle_and_no_error(
    tmp_path: Path,
) -> None:
    address = Address("nowhere.invalid")
    board = Board(str(address), lambda scratch: Ssh(address, scratch))
    targets = [find_profile("rpi5"), find_profile("jetson")]
    bundle = make_bundle(tmp_path / "bundle")
    found = measure_on(board, bundle, verify_files(bundle), targets)
    assert list(found) == ["rpi5-onnxruntime", "jetson-orin-nano"]
    for each in found.values():
        assert each.medians_ns == {}
        assert each.board == "ssh:nowhere.invalid"
        assert each.obstacle == "no machine of the name nowhere.invalid is known"
    verify_files(bundle)


def test_a_record_of_a_board_names_the_board_and_its_address() -> None:
    board = Board("ssh:pi5", lambda scratch: Ssh(Address("pi5"), scratch))
    device = {"board": "Raspberry Pi 5", "cpu": "Cortex-A76", "machine": "aarch64"}
    found = _summary([make_record([[1, 2, 3]], device=device)], board)
    assert (found.cpu, found.board) == ("Raspberry Pi 5 at ssh:pi5", "ssh:pi5")
    unnamed = {"cpu": None, "machine": "aarch64"}
    assert _summary([make_record([[1]], device=unnamed)], board).cpu == "aarch64 at ssh:pi5"
    failed = make_record([[1]], status="failed", reasons=("ssh:pi5: it broke",), device=device)
    assert _summary([failed], board).obstacle == "it broke"
