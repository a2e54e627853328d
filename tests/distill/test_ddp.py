"""A distillation in two processes learns what it learns in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgexfer.core.rundir import read_events
from edgexfer.training import checkpoint
from tests.distill.ddp_worker import main

pytestmark = pytest.mark.torch

# Sums of gradients over two processes round differently than over one.
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 1e-4, 1e-4


def curves(path: Path) -> dict[str, list[float]]:
    events = [e for e in read_events(path) if e["event"] == "train"]
    return {name: [e[name] for e in events] for name in ("loss", "kd", "tckd", "cross_entropy")}


def final_weights(path: Path) -> dict[str, torch.Tensor]:
    newest = max((path / checkpoint.FOLDER).glob("step-*"))
    tensors = load_file(newest / checkpoint.TENSORS)
    return {n: t for n, t in tensors.items() if n.startswith("model.")}


def test_two_processes_have_the_loss_curve_of_one_with_the_batch_of_both(tmp_path: Path) -> None:
    main(tmp_path / "1")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "-m", "tests.distill.ddp_worker", str(tmp_path / "2")],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, two = curves(tmp_path / "1"), curves(tmp_path / "2")
    for name, values in one.items():
        assert len(values) == len(two[name]) == 40
        assert two[name] == pytest.approx(values, abs=LOSS_TOLERANCE), name
    assert one["kd"][-1] < 0.7 * one["kd"][0]
    mine, others = final_weights(tmp_path / "1"), final_weights(tmp_path / "2")
    assert mine
    for name, tensor in mine.items():
        torch.testing.assert_close(others[name], tensor, rtol=0, atol=WEIGHT_TOLERANCE)
