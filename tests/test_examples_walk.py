"""The walk from a few hundred pictures to a device goes through, on fewer and plainer ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgexfer.core.bundle import read_manifest
from edgexfer.core.record import read_record
from edgexfer.recipe import load_recipe
from tests.pictures import write_folder

WALK = Path(__file__).resolve().parent.parent / "examples" / "transfer" / "walk" / "walk.py"
OTHERS = {"amber": (230, 180, 30), "grey": (120, 120, 120), "pink": (230, 130, 160)}


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.ort
def test_the_walk(tmp_path: Path) -> None:
    few, many = write_folder(tmp_path / "few", 60), write_folder(tmp_path / "many", 60, OTHERS)
    out = tmp_path / "out"
    argv = [sys.executable, str(WALK), str(few), str(many), str(out), "--epochs", "12"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    verbs = [line.split()[2] for line in done.stdout.splitlines() if line.startswith("$ edgexfer")]
    assert verbs == ["finetune", "advise", "finetune", "distill", "export", "bench", "report"]
    assert "Did the source weights help?" in done.stdout
    assert load_recipe(out / "advice.yaml").teacher is not None
    targets = {artefact.target for artefact in read_manifest(out / "bundle").artefacts}
    assert targets == {"x86-onnxruntime", "jetson-orin-nano"}
    records = [read_record(place) for place in (out / "bench").glob("*.json")]
    assert records and "failed" not in {record.status for record in records}
    assert "resnet8" in (out / "report.html").read_text()
