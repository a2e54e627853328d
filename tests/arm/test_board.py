"""An Arm board behind a real ssh: the packed device side runs there in an emulated aarch64 Python.

``tools/arm_emulation.py`` makes the interpreter. No board was involved, and no latency is taken.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgexfer.core.record import read_record
from edgexfer.recipe import BenchSection
from edgexfer.remote.bench import How, bench_bundles
from edgexfer.remote.ssh import Ssh
from edgexfer.remote.verify import verify
from tests.bundles import make_bundle
from tests.remote.conftest import Board, keys, run_sshd

__all__ = ["keys"]

pytestmark = [pytest.mark.arm, pytest.mark.ssh, pytest.mark.slow, pytest.mark.ort]

PYTHON = os.environ.get("EDGEXFER_ARM_PYTHON", "")
SECTION = BenchSection(processes=1, seconds=0.01, samples=10, threads=1)


@pytest.fixture
def board(keys: Path, tmp_path: Path) -> Iterator[Board]:
    with run_sshd(keys, tmp_path / "board", "arm-board") as found:
        yield found
        found.settle()


def test_a_bundle_is_verified_and_benched_on_an_arm_board(board: Board, tmp_path: Path) -> None:
    kinds = {"onnxruntime": "aarch64", "null": "x86_64"}
    bundle = make_bundle(tmp_path / "bundle", ["onnxruntime-int8", "null-fp32"], machines=kinds)

    def reach(scratch: Path) -> Ssh:
        return board.reach(scratch, python=PYTHON)

    findings = {finding.name: finding for finding in verify(bundle, transport=reach)}
    assert findings["x86-onnxruntime-int8"].status == "ok", findings
    assert findings["x86-null-fp32"].detail == "is for x86_64, this is aarch64"

    (path,) = bench_bundles([bundle], tmp_path / "out", How(None, SECTION, transport=reach))
    record = read_record(path)
    assert record.status == "invalid"
    assert re.fullmatch(r"emulated: this aarch64 is .+, a program for x86", record.reasons[0])
    assert record.device["machine"] == "aarch64"
    assert record.device["on"] == "ssh:arm-board"
    assert record.accuracy is not None
    assert record.processes == ()
    assert board.leftovers() == []
