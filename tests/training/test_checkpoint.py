"""Checkpoints: whole or not there, newest first, pruned, swept."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgexfer.core.errors import DiskError
from edgexfer.training import checkpoint
from edgexfer.training.checkpoint import Snapshot

pytestmark = pytest.mark.torch


def snapshot(step: int) -> Snapshot:
    tensors = {"a": torch.arange(6.0).view(2, 3) + step, "b": torch.tensor(step)}
    return Snapshot(step, tensors, {"epoch": step // 10, "text": "é"})


def flip(place: Path, old: str, new: str) -> None:
    assert old in place.read_text()
    place.write_text(place.read_text().replace(old, new))


def names(run: Path) -> list[str]:
    return sorted(p.name for p in (run / checkpoint.FOLDER).iterdir())


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, snapshot(12))
    found, skipped = checkpoint.newest(tmp_path)
    assert found is not None and skipped == []
    assert found.step == 12 and found.state == {"epoch": 1, "text": "é"}
    assert torch.equal(found.tensors["a"], snapshot(12).tensors["a"])
    assert found.tensors["b"].shape == () and int(found.tensors["b"]) == 12


def test_two_are_kept_and_the_pointer_names_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 10, 300):
        checkpoint.save(tmp_path, snapshot(step))
    assert names(tmp_path) == ["LATEST", "step-00000010", "step-00000300"]
    pointer = tmp_path / checkpoint.FOLDER / "LATEST"
    assert pointer.read_text() == "step-00000300\n"
    assert checkpoint.newest(tmp_path)[0].step == 300  # type: ignore[union-attr]


def test_the_same_step_is_replaced(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, snapshot(5))
    checkpoint.save(tmp_path, Snapshot(5, {"a": torch.ones(1)}, {}))
    found, _ = checkpoint.newest(tmp_path)
    assert found is not None and set(found.tensors) == {"a"}


def test_the_same_step_is_there_whenever_its_replacement_breaks_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, snapshot(5))
    rename = Path.rename

    def breaking_off(place: Path, target: Path) -> Path:
        if place.name.startswith(".tmp-"):
            raise KeyboardInterrupt
        return rename(place, target)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "rename", breaking_off)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save(tmp_path, Snapshot(5, {"a": torch.ones(1)}, {}))
    found, skipped = checkpoint.newest(tmp_path)
    assert found is not None and set(found.tensors) == {"a", "b"} and skipped == []
    checkpoint.save(tmp_path, Snapshot(5, {"a": torch.ones(1)}, {}))
    assert names(tmp_path) == ["LATEST", "step-00000005"]


def test_nothing_saved_is_nothing_found(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path) == (None, [])


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda p: (p / "tensors.safetensors").write_bytes(b""), "tensors.safetensors differs"),
        (lambda p: (p / "state.json").write_text("{}"), "state.json differs from MANIFEST.json"),
        (lambda p: (p / "state.json").unlink(), "state.json is missing"),
        (lambda p: (p / "MANIFEST.json").unlink(), "MANIFEST.json: no such file"),
        (lambda p: (p / "MANIFEST.json").write_text("{"), "not readable as JSON"),
        (lambda p: (p / "MANIFEST.json").write_text("[]"), "is of another schema"),
        (lambda p: (p / "MANIFEST.json").write_text('{"schema": "x"}'), "of another schema"),
        (lambda p: flip(p / "MANIFEST.json", '"step": 2', '"step": 3'), "MANIFEST.json is damaged"),
        (lambda p: flip(p / "MANIFEST.json", '"files"', '"filez"'), "MANIFEST.json is damaged"),
        (lambda p: (p / "tensors.safetensors").unlink(), "tensors.safetensors is missing"),
    ],
)
def test_a_damaged_one_is_skipped_and_said_why(
    tmp_path: Path, harm: Callable[[Path], Any], reason: str
) -> None:
    checkpoint.save(tmp_path, snapshot(1))
    newest = checkpoint.save(tmp_path, snapshot(2))
    harm(newest)
    found, skipped = checkpoint.newest(tmp_path)
    assert found is not None and found.step == 1
    assert len(skipped) == 1 and skipped[0].startswith("step-00000002: ")
    assert reason in skipped[0]


def test_a_manifest_that_leaves_a_file_out_is_not_believed(tmp_path: Path) -> None:
    place = checkpoint.save(tmp_path, snapshot(2)) / "MANIFEST.json"
    manifest = json.loads(place.read_text())
    place.write_text(json.dumps({**manifest, "files": {}}))
    found, skipped = checkpoint.newest(tmp_path)
    assert found is None and len(skipped) == 1


def test_strays_of_a_killed_save_are_swept(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, snapshot(1))
    stray = tmp_path / checkpoint.FOLDER / ".tmp-step-00000002-4711"
    stray.mkdir()
    (stray / "tensors.safetensors").write_bytes(b"half")
    assert checkpoint.newest(tmp_path)[0].step == 1  # type: ignore[union-attr]
    checkpoint.sweep(tmp_path)
    assert names(tmp_path) == ["LATEST", "step-00000001"]


def test_clear_leaves_nothing(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, snapshot(1))
    checkpoint.clear(tmp_path)
    assert not (tmp_path / checkpoint.FOLDER).exists()
    checkpoint.clear(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_an_error_with_its_mend(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DiskError) as caught:
        checkpoint.save(tmp_path, snapshot(1))
    assert "cannot be written" in caught.value.what and "--out" in caught.value.fix


def test_files_reach_the_disk_before_the_folder_has_its_name(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    code = (
        "import sys, torch; from pathlib import Path;"
        "from edgexfer.training.checkpoint import Snapshot, save;"
        "save(Path(sys.argv[1]), Snapshot(1, {'a': torch.ones(1)}, {}))"
    )
    traced = [strace, "-f", "-y", "-e", "trace=fsync,rename,renameat,renameat2"]
    done = subprocess.run(
        [*traced, sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in done.stderr and done.returncode:
        pytest.skip("this machine does not allow tracing")
    calls = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    order = [re.sub(r".*/", "", _target(line)) for line in calls]
    first = ["tensors.safetensors", "state.json", "MANIFEST.json"]
    assert order[:3] == first
    assert "fsync" in calls[3] and "rename" in calls[4] and "fsync" in calls[5]


def _target(line: str) -> str:
    found = re.search(r"fsync\(\d+<([^>]*)>", line)
    return found.group(1) if found else line
