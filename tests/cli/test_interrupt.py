"""Ctrl-C at the command line: exit code 130, the state saved, and the same command goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.bad import finetune
from tests.pictures import write_folder


def start(argv: list[str]) -> subprocess.Popen[str]:
    """Start edgexfer as a person's shell would."""
    command = [sys.executable, "-m", "edgexfer", *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_steps(run: Path, limit_s: float = 120.0) -> None:
    """Wait until the training has logged some steps."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        metrics = run / "metrics.jsonl"
        if metrics.exists() and '"val"' in metrics.read_text():
            return
        time.sleep(0.05)
    raise AssertionError("the training did not begin")


def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    pictures = write_folder(tmp_path / "pictures")
    argv = finetune(pictures, "--batch-size", "8", "--epochs", "60", out=tmp_path / "run")

    child = start(argv)
    wait_for_steps(tmp_path / "run")
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)

    assert child.returncode == 130, err
    assert out == ""
    last = err.strip().splitlines()[-2:]
    assert last[0].startswith("error: ")
    assert "the state is saved" in last[0]
    assert last[1] == "  fix: type the same command again to go on from there"
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["status"] == "interrupted"

    child = start(argv)
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["status"] == "done"
    assert 0 < info["result"]["fit"]["resumed_from"] < info["result"]["fit"]["steps"]
