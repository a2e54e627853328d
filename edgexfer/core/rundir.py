"""The run: the folder that one training writes, what it says of itself, and its lock.

::

    RUN/run.json        who made it, with which settings, on which data, how it ended
    RUN/metrics.jsonl   one line per event, append-only
    RUN/checkpoints/    what is needed to go on after a kill
    RUN/model/          the finished model: model.json, weights.safetensors
    RUN/.lock           held while somebody works in it

Only the frame lives here; what a checkpoint holds is known to ``training/``.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Dict, List, Optional, Type, TypeVar

from edgexfer.core.codec import decode, encode
from edgexfer.core.errors import EdgexferError, RunError
from edgexfer.core.files import (
    PathLike,
    disk_errors,
    make_dir,
    read_json,
    write_atomic,
    write_json,
)

SCHEMA = "edgexfer.run/1"
INFO = "run.json"
METRICS = "metrics.jsonl"
T = TypeVar("T")


@dataclass(frozen=True)
class RunInfo:
    """What a run says of itself.

    Attributes:
        schema: ``edgexfer.run/1``.
        kind: ``finetune``, ``distill``, ``control`` or ``pretrain``.
        status: ``running``, ``interrupted``, ``failed`` or ``done``.
        config: every setting that decides the result; a changed one makes it another run.
        data: how to open the data set again, see ``DataSection`` of the recipe.
        data_fingerprint: hash of the data set's files and classes.
        parents: hashes of what it was made from, such as the teacher's weights.
        lineage: versions, git commit, machine, seed.
        result: figures of the finished run.
        created_utc: ISO 8601.
    """

    schema: str
    kind: str
    status: str
    config: Dict[str, Any]
    data: Dict[str, Any]
    data_fingerprint: str
    parents: Dict[str, str] = field(default_factory=dict)
    lineage: Dict[str, Any] = field(default_factory=dict)
    result: Dict[str, Any] = field(default_factory=dict)
    created_utc: str = ""


class RunDir:
    """A run folder that this process holds the lock of; use it as a context manager."""

    def __init__(self, path: Path, info: RunInfo, lock: Optional[IO[str]]) -> None:
        """Use ``open_run``; this only keeps what it found."""
        self.path, self.info, self._lock = path, info, lock

    def __enter__(self) -> RunDir:
        """Return the run itself."""
        return self

    def __exit__(self, kind: Optional[type], *_: object) -> None:
        """Say how it ended, unless it is done, and let go of the lock."""
        if self.info.status != "done" and kind is not None:
            interrupted = getattr(kind, "exit_code", 1) == 130 or kind is KeyboardInterrupt
            # The disk that stopped the run may not take the note either.
            with suppress(EdgexferError):
                self.set(status="interrupted" if interrupted else "failed")
        self.close()

    @property
    def done(self) -> bool:
        """Whether the run was finished before."""
        return self.info.status == "done"

    def set(self, **changes: Any) -> None:
        """Change fields of ``run.json`` atomically."""
        self.info = replace(self.info, **changes)
        if self._lock is not None:
            write_json(self.path / INFO, encode(self.info))

    def log(self, event: Dict[str, Any]) -> None:
        """Append one event to ``metrics.jsonl``; values must be finite or ``None``."""
        if self._lock is None:
            return
        line = json.dumps(event, allow_nan=False) + "\n"
        place = self.path / METRICS
        with disk_errors(place), place.open("ab+") as stream:
            stream.write(b"\n" * _is_torn(stream) + line.encode())

    def rewind_log(self, step: int) -> None:
        """Drop events after ``step``, which a resumed training is going to write again."""
        place = self.path / METRICS
        if self._lock is None or not place.exists():
            return
        kept = [e for e in read_events(self.path) if e.get("step", 0) <= step]
        write_atomic(place, "".join(json.dumps(e) + "\n" for e in kept))

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def open_run(
    path: PathLike,
    wanted: RunInfo,
    *,
    leader: bool = True,
    defaults: Optional[Dict[str, Any]] = None,
) -> RunDir:
    """Create a run folder, or take up the one that is there.

    A run that failed before it kept anything, as one whose settings were refused, is begun anew.

    Args:
        path: the folder.
        wanted: what the run is to be; kind, config, data and parents must match one that has kept
            something.
        leader: ``False`` for the other processes of one distributed training, which never write.
        defaults: values assumed for settings that did not exist when the run was begun.

    Raises:
        RunError: the folder holds something else, other settings, or another process works in it.
        DiskError: the folder cannot be written.
    """
    place = Path(path)
    if not leader:
        return RunDir(place, wanted, None)
    if place.is_dir() and not (place / INFO).exists() and _foreign(place):
        raise RunError(f"{place}: is not empty and holds no run", "choose another --out")
    make_dir(place)
    lock = _take_lock(place)
    try:
        found = read_run(place) if (place / INFO).exists() else None
        if found is not None and not (found.status == "failed" and _is_bare(place)):
            _refuse_changes(place, found, wanted, defaults or {})
            run = RunDir(place, found, lock)
            if found.status not in ("done", "running"):
                run.set(status="running")
            return run
        (place / METRICS).unlink(missing_ok=True)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        run = RunDir(place, replace(wanted, created_utc=stamp), lock)
        run.set(status="running")
        return run
    except BaseException:
        lock.close()
        raise


def read_run(path: PathLike) -> RunInfo:
    """Read ``run.json``.

    Raises:
        RunError: the folder is no run, or the file is damaged or of another schema.
    """
    place = Path(path) / INFO
    if not place.is_file():
        raise RunError(f"{path}: is not a run ({INFO} is missing)", "name a run's folder")
    return read_as(RunInfo, place, SCHEMA, "delete the folder and run the stage again")


def read_as(kind: Type[T], place: Path, schema: str, fix: str) -> T:
    """Read a JSON file of a dataclass that says its schema.

    Args:
        kind: the dataclass.
        place: the file.
        schema: the one that this edgexfer reads.
        fix: what helps where it is another, or the file is damaged.

    Raises:
        RunError: the file is damaged or of another schema.
    """
    try:
        content = read_json(place)
        # First: what another schema has besides is no fault of the file.
        found = content.get("schema", schema) if isinstance(content, dict) else schema
        info = decode(kind, content, str(place)) if found == schema else None
    except EdgexferError as error:
        raise RunError(error.what, fix) from error
    if info is None:
        raise RunError(f"{place}: schema is {found!r}, expected {schema!r}", fix)
    return info


def read_events(path: PathLike) -> List[Dict[str, Any]]:
    """Return the events of ``metrics.jsonl``; a last line that a kill cut short is left out."""
    place = Path(path) / METRICS
    if not place.exists():
        return []
    events = []
    for line in place.read_text().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return events


def differences(old: Any, new: Any, key: str = "") -> List[str]:
    """List where two JSON values differ, one ``key: old -> new`` each."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for name in sorted(set(old) | set(new)):
            inner = f"{key}.{name}" if key else name
            found += differences(old.get(name), new.get(name), inner)
        return found
    return [] if old == new else [f"{key}: {old!r} -> {new!r}"]


def _refuse_changes(place: Path, found: RunInfo, wanted: RunInfo, defaults: Dict[str, Any]) -> None:
    if found.kind != wanted.kind:
        raise RunError(f"{place}: is a {found.kind} run, not {wanted.kind}", "choose another --out")
    changes = differences(_filled(found.config, defaults), encode(wanted.config))
    changes += differences(found.parents, wanted.parents, "made from")
    if found.data_fingerprint != wanted.data_fingerprint:
        changes.append("data: the images, labels or splits have changed")
    if changes:
        more = f" (+{len(changes) - 3} more)" if len(changes) > 3 else ""
        raise RunError(
            f"{place}: was begun with other settings: {'; '.join(changes[:3])}{more}",
            "choose another --out, or go back to the old settings",
        )


def _filled(config: Dict[str, Any], defaults: Dict[str, Any]) -> Dict[str, Any]:
    """Return a config with the defaults of what it does not name, in nested sections too."""
    found = {**defaults, **config}
    for name, inner in defaults.items():
        if isinstance(inner, dict) and isinstance(found[name], dict):
            found[name] = _filled(found[name], inner)
    return found


def _foreign(place: Path) -> bool:
    # A kill before the first run.json was whole leaves the lock and a temporary file.
    ours = (".lock", f".{INFO}.tmp.")
    return any(not p.name.startswith(ours) for p in place.iterdir())


def _is_torn(stream: IO[bytes]) -> bool:
    """Whether a kill cut the last line of a file short."""
    if stream.seek(0, os.SEEK_END) == 0:
        return False
    stream.seek(-1, os.SEEK_END)
    return stream.read(1) != b"\n"


def _is_bare(place: Path) -> bool:
    """Whether a run holds nothing but what it says of itself."""
    return {p.name for p in place.iterdir()} <= {".lock", INFO, METRICS}


def _take_lock(place: Path) -> IO[str]:
    with disk_errors(place):
        lock = (place / ".lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        lock.close()
        raise RunError(
            f"{place}: {holder} works in this run", "wait for it, or choose another --out"
        ) from error
    lock.seek(0)
    lock.truncate()
    lock.write(f"process {os.getpid()}, since {time.strftime('%Y-%m-%d %H:%M:%S')},")
    lock.flush()
    return lock
