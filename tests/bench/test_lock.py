"""Who may measure on one machine at the same time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from edgexfer.bench.__main__ import main
from edgexfer.bench.lock import NAME, Busy, no_host_beside, take_board
from edgexfer.core.errors import MachineError
from edgexfer.recipe import BenchSection
from edgexfer.remote.bench import How, bench_bundles
from tests.bundles import make_bundle


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lock of a machine of this test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / NAME


def test_hosts_have_a_board_one_after_another(board: Path) -> None:
    first = take_board({"holder": "anna@desk"}, board)
    with pytest.raises(Busy) as caught:
        take_board({"holder": "bob@desk"}, board)
    assert caught.value.holder["holder"] == "anna@desk"
    os.close(first)
    os.close(take_board({"holder": "bob@desk"}, board))


def test_no_host_measures_beside_what_the_machine_measures_itself(board: Path) -> None:
    with no_host_beside(), no_host_beside(), pytest.raises(Busy) as caught:
        take_board({"holder": "anna@desk"}, board)
    assert caught.value.holder["holder"] == f"process {os.getpid()}"
    os.close(take_board({"holder": "anna@desk"}, board))


def test_a_machine_that_a_host_measures_on_is_not_measured_by_itself(
    board: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handle = take_board({"holder": "anna@desk"}, board)
    once = BenchSection(processes=1, seconds=0.01, samples=20, threads=1)
    with pytest.raises(MachineError) as caught:
        bench_bundles([bundle], tmp_path / "out", How(None, once))
    assert caught.value.what == "this machine: anna@desk measures on it over ssh"
    assert caught.value.fix == "wait until that has ended, or its load would be in the figures"
    assert main(["bench", str(bundle), "--out", str(tmp_path / "own")]) == 3
    assert caught.value.what in capsys.readouterr().err
    os.close(handle)


def test_something_else_in_the_place_of_the_lock_is_one_error(board: Path, tmp_path: Path) -> None:
    board.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineError, match="its lock cannot be taken") as caught, no_host_beside():
        pass
    assert str(board) in caught.value.what
    assert caught.value.fix == "see who put something else there, and take it away"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.ort
def test_trtexec_waits_its_turn_too(
    board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle(tmp_path / "engines", ["tensorrt-fp32"])
    handle = take_board({"holder": "anna@desk"}, board)
    assert main(["trtexec", str(bundle), "--tool", "/bin/false"]) == 3
    assert "anna@desk measures on it over ssh" in capsys.readouterr().err
    os.close(handle)
