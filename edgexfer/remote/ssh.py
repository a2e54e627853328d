"""``Ssh``: a board as a transport. Files go there by hash, jobs run there without this machine.

A link that drops is taken up again for as long as ``Options.patience_s``: every question that is
asked may be asked twice. What is there for one command is its session, whose name is kept in the
command's scratch folder, so that the same command finds its finished jobs again.
"""

from __future__ import annotations

import base64
import getpass
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from edgexfer.bench.agent import CHUNK
from edgexfer.bench.child import Completed
from edgexfer.core.errors import DiskError, EdgexferError, MachineError
from edgexfer.core.files import fingerprint, sha256_file, write_atomic
from edgexfer.remote.address import Address
from edgexfer.remote.link import Link, LinkLost, Options
from edgexfer.remote.pack import pack_device_side
from edgexfer.remote.transport import SESSION

T = TypeVar("T")
POLL_S = 15.0
_AGAIN_S = 0.5
_BUSY_S = 2.0
# Room that is left on the board for what the jobs write.
_SPARE = 16 << 20
_LOSSES = {
    "rebooted": "the board rebooted while it ran, twice",
    "lost": "it and its runner were killed there, twice",
    "none": "the board forgot it, twice",
}


class Ssh:
    """A board that is reached with ssh; see ``transport.Transport`` for the verbs.

    Args:
        address: the board.
        scratch: folder that belongs to the command; it holds the name of the session there.
        options: how it is reached.
        say: told in one line what keeps somebody waiting.
    """

    def __init__(
        self,
        address: Address,
        scratch: Path,
        options: Options | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Know the board; it is reached by the first verb."""
        self.name = str(address)
        self._address = address
        self._options = options or Options()
        self._say = say or _say_nothing
        self._scratch = scratch
        self._is_new = not (scratch / SESSION).is_file()
        self._session = _session(scratch)
        self._program = pack_device_side(scratch / "edgexfer.pyz")
        self._link: Link | None = None
        self._here: dict[str, Any] = {}
        self._had_board = False

    @property
    def python(self) -> Sequence[str]:
        """What starts the board's Python, without what its environment adds."""
        return (self._there()["executable"], "-E")

    @property
    def facts(self) -> Mapping[str, Any]:
        """The board's address, and by how many seconds its clock is ahead of this machine's."""
        return {"on": self.name, "clock_skew_s": round(self._there()["skew_s"], 3)}

    def push(self, source: Path) -> str:
        """Send what of a file or folder is not there yet, and return its path there.

        Raises:
            DiskError: the board has no room for it.
        """
        if source.is_file():
            sha = sha256_file(source)
            return f"{self._bring({sha: source})}/{sha}"
        paths = {p.relative_to(source).as_posix(): p for p in source.rglob("*") if p.is_file()}
        files = {name: sha256_file(path) for name, path in sorted(paths.items())}
        self._bring({sha: paths[name] for name, sha in files.items()})
        made = self._ask({"ask": "tree", "key": fingerprint(files), "files": files})
        return str(made["path"])

    def run(self, argv: Sequence[str], *, timeout_s: float) -> Completed:
        """Run a program there to its end, whatever becomes of the link.

        The same program of the same session is the same job: it is collected, not run again.

        Raises:
            MachineError: the board is taken, or the link did not come back.
        """
        job = {"id": fingerprint([*argv, timeout_s])[:32]}
        start = {"ask": "start", **job, "argv": list(argv), "limit_s": timeout_s, "again": False}
        found = self._ask(start)
        while found["state"] != "done":
            if found["state"] == "busy":
                self._wait_for_board(found)
                found = self._ask(start)
            elif found["state"] == "running":
                self._had_board = True
                found = self._ask({"ask": "poll", **job, "wait_s": POLL_S})
            elif start["again"]:
                return Completed(argv, 1, "", "", reason=_LOSSES[found["state"]])
            else:
                start["again"] = True
                found = self._ask(start)
        return Completed(argv, found["code"], found["stdout"], found["stderr"])

    def pull(self, source: str, out: Path) -> bool:
        """Bring what a job wrote; ``False`` where it wrote nothing."""
        data = b""
        while True:
            name = source.rpartition("/")[2]
            piece = self._ask({"ask": "get", "name": name, "offset": len(data)})
            if piece["size"] is None:
                return False
            data += base64.b64decode(piece["data"])
            if len(data) >= piece["size"]:
                write_atomic(out, data)
                return True

    def scratch(self, name: str) -> str:
        """Return a path in the session's folder."""
        return f"{self._there()['out']}/{name}"

    def close(self) -> None:
        """Kill and remove all that this session left there; a board that is gone keeps it."""
        if not self._here:
            if self._is_new:
                self._scratch.joinpath(SESSION).unlink()
            return  # given up, or not reached this time: what is there is to be collected
        self._options = replace(self._options, stop=threading.Event())
        try:
            if self._link is None or not self._link.end():
                self._drop()
                self._link = self._connect()
                self._link.end()
            self._scratch.joinpath(SESSION).unlink(missing_ok=True)
        except (LinkLost, EdgexferError):
            self._say(f"{self.name}: gone; what runs there ends by itself, and is collected later")
        finally:
            self._drop()

    def _there(self) -> dict[str, Any]:
        """Return what the board said of itself."""
        if not self._here:
            self._persist(_be_there)
        return self._here

    def _ask(self, question: dict[str, Any], payload: bytes = b"") -> dict[str, Any]:
        return self._persist(lambda link: self._checked(link.ask(question, payload)))

    def _persist(self, do: Callable[[Link], T]) -> T:
        """Do something that may be done twice, on this link or the next one."""
        until = None
        while True:
            try:
                if self._link is None:
                    self._link = self._connect()
                return do(self._link)
            except LinkLost as lost:
                self._drop()
                if not self._here:
                    raise lost.error from None
                now = time.monotonic()
                if until is None:
                    until = now + self._options.patience_s
                    self._say(f"{self.name}: the link dropped; trying again")
                if now > until:
                    self._here, self._is_new = {}, False
                    raise MachineError(
                        f"{lost.error.what}; what was begun there goes on without it",
                        "run the same command again: what is finished by then is collected",
                    ) from lost
                self._pause(_AGAIN_S)

    def _connect(self) -> Link:
        link = Link(self._address, self._options)
        try:
            before = time.time()
            holder = f"{getpass.getuser()}@{socket.gethostname()} (process {os.getpid()})"
            here = link.ask({"ask": "hello", "session": self._session, "holder": holder})
            here["skew_s"] = here["now_s"] - (before + time.time()) / 2
            self._here = here
            sha = sha256_file(self._program)
            self._send(link, {sha: self._program})
            self._checked(link.ask({"ask": "program", "sha": sha}))
        except BaseException:
            link.close()
            raise
        return link

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _bring(self, files: Mapping[str, Path]) -> str:
        return self._persist(lambda link: self._send(link, files))

    def _send(self, link: Link, files: Mapping[str, Path]) -> str:
        """Send files that the board lacks, from where they broke off; return their folder there."""
        have = self._checked(link.ask({"ask": "have", "files": list(files)}))
        missing: dict[str, int] = have["missing"]
        needed = sum(files[sha].stat().st_size - at for sha, at in missing.items())
        if needed and needed + _SPARE > have["free"]:
            raise self._full(needed + _SPARE, have["free"])
        for sha, at in missing.items():
            self._send_file(link, sha, files[sha], at, have["free"])
        return str(have["folder"])

    def _send_file(self, link: Link, sha: str, path: Path, at: int, free: int) -> None:
        size, spoilt = path.stat().st_size, 0
        with path.open("rb") as stream:
            while True:
                stream.seek(at)
                data = stream.read(CHUNK)
                piece = {"ask": "put", "sha": sha, "size": size, "offset": at, "bytes": len(data)}
                answer = link.ask(piece, data)
                if answer.get("error") == "os":
                    raise self._full(size, free)
                at = self._checked(answer)["at"]
                if at == size:
                    return
                spoilt += at == 0
                if spoilt > 1:
                    raise MachineError(
                        f"{self.name}: {path.name} does not arrive whole",
                        "check the board's disk, and that nobody writes to the file meanwhile",
                    )

    def _full(self, needed: int, free: int) -> DiskError:
        return DiskError(
            f"{self.name}: no room for {needed} bytes there, {free} are free",
            "free some space on the board, such as in ~/.cache; then run the same command again",
        )

    def _checked(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "error" in answer:
            raise MachineError(
                f"{self.name}: {answer['text']}",
                f"look at the disk and at ~/.cache/edgexfer there: ssh {self._address.login}",
            )
        return answer

    def _wait_for_board(self, found: dict[str, Any]) -> None:
        """Wait a little for somebody else's benchmark, where that is wanted."""
        holder = found.get("holder", "somebody")
        since = f" since {found['held_s'] / 60:.0f} min" if "held_s" in found else ""
        if not (self._options.wait or self._had_board):
            raise MachineError(
                f"{self.name}: {holder} measures there{since}", "wait for it with --wait"
            )
        self._say(f"{self.name}: waiting; {holder} measures there{since}")
        self._pause(_BUSY_S)

    def _pause(self, seconds: float) -> None:
        if self._options.stop.wait(seconds):
            raise KeyboardInterrupt


def _session(scratch: Path) -> str:
    """Return the name of a command's session on boards, made once for its scratch folder."""
    place = scratch / SESSION
    if not place.is_file():
        write_atomic(place, secrets.token_hex(8))
    return place.read_text()


def _be_there(link: Link) -> None:
    """Ask nothing of a link."""


def _say_nothing(text: str) -> None:
    """Show nothing."""
