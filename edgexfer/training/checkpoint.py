"""Checkpoints that are either whole or not there.

::

    RUN/checkpoints/step-00000120/tensors.safetensors
    RUN/checkpoints/step-00000120/state.json           everything that is not a tensor
    RUN/checkpoints/step-00000120/MANIFEST.json        size and sha256 of both; written last
    RUN/checkpoints/LATEST                             name of the newest, for people

A checkpoint is written into a hidden folder, each file is flushed to the disk, and only then the
folder gets its name; only then an older one is removed, of the same step too. Reading verifies
hashes, newest first, and takes the first whole one. What the tensors mean is known to ``state.py``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from edgexfer.core.errors import DiskError, EdgexferError
from edgexfer.core.files import (
    disk_errors,
    fsync_dir,
    make_dir,
    read_json,
    sha256_bytes,
    write_atomic,
)

FOLDER = "checkpoints"
SCHEMA = "edgexfer.checkpoint/1"
TENSORS, STATE, MANIFEST, LATEST = "tensors.safetensors", "state.json", "MANIFEST.json", "LATEST"
KEEP = 2
_TEMP = ".tmp-"
# Ends the name of one that another of the same step replaces: until then it is the newest.
_ASIDE = "-old"


@dataclass(frozen=True)
class Snapshot:
    """The state of a training after a step.

    Attributes:
        step: steps done in all.
        tensors: by name, on the CPU.
        state: the rest, plain JSON values.
    """

    step: int
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save(run: Path, snapshot: Snapshot) -> Path:
    """Write a checkpoint and prune the old ones.

    Args:
        run: the run's folder.
        snapshot: what to write; an older checkpoint of the same step is replaced.

    Returns:
        The checkpoint's folder.

    Raises:
        DiskError: the disk is full, also after stray files were removed, or cannot be written; the
            checkpoints before are intact.
    """
    from safetensors.torch import save as pack

    folder = make_dir(run / FOLDER)
    data = pack(dict(snapshot.tensors))
    try:
        final = _write(folder, snapshot, data)
    except DiskError:
        sweep(run)
        final = _write(folder, snapshot, data)
    write_atomic(folder / LATEST, final.name + "\n")
    for old in _all(folder)[KEEP:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def newest(run: Path) -> tuple[Snapshot | None, list[str]]:
    """Read the newest checkpoint that is whole.

    Returns:
        The snapshot, ``None`` where there is none; and for each newer one that was skipped its name
        and what is wrong with it.
    """
    skipped: list[str] = []
    for place in _all(run / FOLDER):
        try:
            return _read(place), skipped
        except EdgexferError as error:
            skipped.append(f"{place.name}: {error.what}")
    return None, skipped


def sweep(run: Path) -> None:
    """Remove what an interrupted save has left behind; the caller holds the run's lock."""
    for stray in (run / FOLDER).glob(f"{_TEMP}*"):
        shutil.rmtree(stray, ignore_errors=True)
    for stray in (run / FOLDER).glob(f".{LATEST}.tmp.*"):
        stray.unlink(missing_ok=True)


def clear(run: Path) -> None:
    """Remove all checkpoints of a run, once its model is stored."""
    shutil.rmtree(run / FOLDER, ignore_errors=True)


def _write(folder: Path, snapshot: Snapshot, data: bytes) -> Path:
    final = folder / _name(snapshot.step)
    temp = folder / f"{_TEMP}{final.name}-{os.getpid()}"
    try:
        with disk_errors(folder):
            temp.mkdir()
            files = {TENSORS: data, STATE: _json(snapshot.state)}
            for name, content in files.items():
                _put(temp / name, content)
            entries = {name: _entry(content) for name, content in files.items()}
            _put(
                temp / MANIFEST,
                _json({"schema": SCHEMA, "step": snapshot.step, "files": entries}),
            )
            fsync_dir(temp)
            aside = folder / f"{final.name}{_ASIDE}"
            if final.exists():
                shutil.rmtree(aside, ignore_errors=True)
                final.rename(aside)
            temp.rename(final)
            fsync_dir(folder)
            shutil.rmtree(aside, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temp, ignore_errors=True)
        raise
    return final


def _read(place: Path) -> Snapshot:
    from safetensors.torch import load

    manifest = read_json(place / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise DiskError(f"{MANIFEST} is of another schema", "start anew with another --out")
    step, entries = manifest.get("step"), manifest.get("files")
    if not isinstance(step, int) or not isinstance(entries, dict) or _name(step) != _own(place):
        raise DiskError(f"{MANIFEST} is damaged", "restore it")
    contents = {name: _checked(place / name, entries.get(name)) for name in (TENSORS, STATE)}
    return Snapshot(step, load(contents[TENSORS]), json.loads(contents[STATE]))


def _checked(file: Path, entry: Any) -> bytes:
    if not file.is_file():
        raise DiskError(f"{file.name} is missing", "restore it")
    data = file.read_bytes()
    if _entry(data) != entry:
        raise DiskError(f"{file.name} differs from {MANIFEST} (size or sha256)", "restore it")
    return data


def _put(place: Path, data: bytes) -> None:
    # Without a rename of its own: the whole folder gets its name at once.
    with place.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(dict(value), indent=2, allow_nan=False).encode()


def _entry(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": sha256_bytes(data)}


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _own(place: Path) -> str:
    """Return the name that a checkpoint has where none of the same step has replaced it."""
    return place.name.removesuffix(_ASIDE)


def _all(folder: Path) -> list[Path]:
    """Return the checkpoints by their names, newest first."""
    places = (p for p in folder.glob("step-*") if p.is_dir())
    return sorted(places, key=lambda p: (_own(p), p.name == _own(p)), reverse=True)
