"""The board's end of a host's conversation: files come in by hash, jobs run on without the host.

The host sends the source of this very file to ``python3`` on the board and then asks one question a
line, in JSON; every answer is one frame, ``NONCE LENGTH`` and so much JSON, so that a banner or a
library's chatter on the same pipe is no harm. Nothing is installed, and no text of a user is read
by a shell. So this file needs the standard library alone: of the package it has only what came as a
file before, which is the packed device side with ``runner.py``. The host's end is
``remote/ssh.py``.

::

    CACHE/files/SHA256              what was sent once; SHA256.part is still on its way
    CACHE/trees/KEY/                folders made of such files, and KEY-engines built there
    CACHE/sessions/KEY/jobs/ID/     a job of one command of one host, until it is collected
    CACHE/sessions/KEY/out/         what its jobs write
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import re
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Pattern

# A host that says nothing for so long has gone; one that has not comes back by itself.
IDLE_S = 120
CHUNK = 1 << 20
# What nobody asked for in so many seconds of the board's clock is sent again when it is wanted.
KEPT_S = 30 * 86400.0
PART_S = 86400.0
SESSIONS = 64
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,120}")
_SHA = re.compile(r"[0-9a-f]{64}")


class Refused(Exception):  # noqa: N818 - it is an answer, not a fault of this program
    """A question that is answered with what stands in its way."""

    def __init__(self, kind: str, text: str) -> None:
        """Keep the answer."""
        super().__init__(text)
        self.answer = {"error": kind, "text": text}


def serve(nonce: str) -> None:
    """Answer questions on stdin until it ends or falls silent."""
    out = os.dup(1)
    os.dup2(2, 1)  # whatever else prints cannot break a frame
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a runner's end needs no parent
    agent = Agent(_cache())
    while True:
        signal.alarm(IDLE_S)
        line = sys.stdin.buffer.readline()
        signal.alarm(0)
        if not line.endswith(b"\n"):
            return
        question = json.loads(line)
        try:
            answer = agent.answer(question)
        except Refused as error:
            answer = error.answer
        except OSError as error:
            answer = {"error": "os", "text": str(error), "errno": error.errno}
        payload = json.dumps({**answer, "n": question["n"]}).encode()
        _write(out, b"%s %d\n%s\n" % (nonce.encode(), len(payload), payload))


def _cache() -> Path:
    home = os.environ.get("EDGEXFER_CACHE") or "~/.cache/edgexfer"
    return Path(home).expanduser().absolute() / "board"


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


class Agent:
    """One conversation.

    Args:
        cache: folder of everything that is kept here; made where it is missing.
    """

    def __init__(self, cache: Path) -> None:
        """Make the folders."""
        self.cache = cache
        self.session = cache
        self.holder = ""
        self.runner: Any = None
        for name in ("files", "trees", "sessions"):
            (cache / name).mkdir(parents=True, exist_ok=True, mode=0o700)

    def answer(self, question: Dict[str, Any]) -> Dict[str, Any]:
        """Do what one question asks."""
        verbs: Dict[str, Callable[[Dict[str, Any]], Dict[str, Any]]] = {
            "hello": self.hello,
            "have": self.have,
            "put": self.put,
            "tree": self.tree,
            "program": self.program,
            "start": self.start,
            "poll": self.poll,
            "get": self.get,
            "end": self.end,
        }
        return verbs[question["ask"]](question)

    def hello(self, question: Dict[str, Any]) -> Dict[str, Any]:
        """Take up a session and say who this is; nothing is asked of the package yet."""
        self.session = self.cache / "sessions" / _checked(_NAME, question["session"])
        self.holder = str(question["holder"])
        self._sweep()
        return {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "executable": sys.executable,
            "now_s": time.time(),
            "out": str(self.session / "out"),
        }

    def have(self, question: Dict[str, Any]) -> Dict[str, Any]:
        """Say which files are missing, with how many bytes of each are here already.

        A file that is here is hashed again: a card that lost a bit gets it anew.
        """
        missing = {}
        for sha in question["files"]:
            place, part = self._file(sha), self._part(sha)
            if place.is_file() and _sha256(place) == sha:
                os.utime(str(place))
                continue
            _remove(place)
            missing[sha] = part.stat().st_size if part.is_file() else 0
        free = shutil.disk_usage(str(self.cache)).free
        return {"missing": missing, "free": free, "folder": str(self.cache / "files")}

    def put(self, question: Dict[str, Any]) -> Dict[str, Any]:
        """Take a piece of a file; the last one makes it whole, if its hash is right.

        The answer is how much of the file is here, so that a piece that came twice is no harm.
        """
        signal.alarm(IDLE_S)
        data = sys.stdin.buffer.read(question["bytes"])
        signal.alarm(0)
        if len(data) < question["bytes"]:
            raise SystemExit(1)  # the link is gone
        sha, size = question["sha"], question["size"]
        place, part = self._file(sha), self._part(sha)
        if place.is_file():
            return {"at": size}
        at = part.stat().st_size if part.is_file() else 0
        if at == question["offset"]:
            try:
                with part.open("ab") as stream:
                    stream.write(data)
            except OSError:
                _remove(part)
                raise
            at += len(data)
        if at < size:
            return {"at": at}
        if _sha256(part) != sha:
            _remove(part)
            return {"at": 0}
        part.chmod(0o444)
        os.replace(str(part), str(place))
        return {"at": at}

    def tree(self, question: Dict[str, Any]) -> Dict[str, Any]:
        """Make a folder of files that are here, unless there is one like it."""
        place = self.cache / "trees" / _checked(_SHA, question["key"])
        files = {_inside(name): self._file(sha) for name, sha in question["files"].items()}
        if _is_made_of(place, files):
            os.utime(str(place))
            return {"path": str(place)}
        _remove(place)
        temp = self.session / "tree"
        _remove(temp)
        for name, source in files.items():
            inside = temp / name
            inside.parent.mkdir(parents=True, exist_ok=True)
            os.link(str(source), str(inside))
        os.replace(str(temp), str(place))
        return {"path": str(place)}

    def program(self, question: Dict[str, Any]) -> Dict[str, Any]:
        """Take the packed device side into use: from here on, jobs can run."""
        sys.path.insert(0, str(self._file(question["sha"])))
        from edgexfer.bench import runner

        self.runner = runner.Runner(self.session, self.holder)
        return {"boot_id": runner.boot_id()}

    def start(self, question: Dict[str, Any]) -> Dict[str, Any]:
        """Start a job that needs no host, unless it is running or over already."""
        argv = [str(word) for word in question["argv"]]
        job, limit_s = _checked(_NAME, question["id"]), float(question["limit_s"])
        answer: Dict[str, Any] = self.runner.start(job, argv, limit_s, again=question["again"])
        return answer

    def poll(self, question: Dict[str, Any]) -> Dict[str, Any]:
        """Wait for the end of a job, a while or until the host speaks, and say how it is."""
        begun = time.monotonic()
        while True:
            answer: Dict[str, Any] = self.runner.look(_checked(_NAME, question["id"]))
            waited = time.monotonic() - begun
            if answer["state"] != "running" or waited > question["wait_s"]:
                return answer
            # Looked for seldom, as it is in the way of what is measured.
            if select.select([0], [], [], min(0.5, 0.02 + 0.05 * waited))[0]:
                return answer

    def get(self, question: Dict[str, Any]) -> Dict[str, Any]:
        """Return a piece of what a job wrote."""
        place = self.session / "out" / _checked(_NAME, question["name"])
        if not place.is_file():
            return {"size": None}
        with place.open("rb") as stream:
            stream.seek(question["offset"])
            data = stream.read(CHUNK)
        return {"size": place.stat().st_size, "data": base64.b64encode(data).decode()}

    def end(self, question: Dict[str, Any]) -> Dict[str, Any]:  # noqa: ARG002 - as the others
        """End the session: its jobs and their children are killed, what it left is removed."""
        if self.runner is not None:
            self.runner.end()
        _remove(self.session)
        return {}

    def _file(self, sha: str) -> Path:
        return self.cache / "files" / _checked(_SHA, sha)

    def _part(self, sha: str) -> Path:
        return self.cache / "files" / (_checked(_SHA, sha) + ".part")

    def _sweep(self) -> None:
        """Remove what was not used for long, and the oldest of very many sessions.

        A result may wait for its host as long as it takes: a board without a battery wakes up in
        1970, so its clock must not decide what is lost.
        """
        now = time.time()
        for place in [*(self.cache / "files").iterdir(), *(self.cache / "trees").iterdir()]:
            limit = PART_S if place.suffix == ".part" else KEPT_S
            if now - place.stat().st_mtime > limit:
                _remove(place)
        sessions = sorted((self.cache / "sessions").iterdir(), key=lambda p: p.stat().st_mtime)
        for place in sessions[:-SESSIONS]:
            _remove(place)


def _checked(pattern: Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise Refused("name", f"not a good name: {text!r}")
    return text


def _inside(name: str) -> str:
    """Return a relative path, which must lead nowhere else."""
    if "\x00" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise Refused("name", f"not a good path: {name!r}")
    return name


def _is_made_of(folder: Path, files: Dict[str, Path]) -> bool:
    """Say whether a folder holds these files and no other."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if not p.is_dir()}
    return found.keys() == files.keys() and all(
        path.samefile(files[name]) for name, path in found.items()
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(str(place), ignore_errors=True)
    elif place.exists():
        place.unlink()
