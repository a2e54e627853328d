"""Jobs that need no host: started apart from it, watched, ended with all their children.

A runner is a process of its own that outlives the connection it was started from. It starts one
program, ends it and whatever it left behind when its time runs out, and notes how it went. The
questions of a host come through ``agent.py``.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NoReturn, Optional, Sequence, Set, Union

from edgexfer.bench.lock import Busy, take_board
from edgexfer.core.errors import DiskError, InputError
from edgexfer.core.files import read_json, write_json

# What ignores a polite end has so long; then it is killed.
GRACE_S = 2.0
KILL_S = 5.0
TEXT_LIMIT = 200_000
_PR_SET_CHILD_SUBREAPER = 36
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> Optional[str]:
    """Return what the kernel calls this run of the machine; ``None`` where it does not tell."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return None


class Runner:
    """The jobs of one session.

    Args:
        session: its folder, whose name others know it by.
        holder: who asks, for whoever finds the board taken.
    """

    def __init__(self, session: Path, holder: str) -> None:
        """Know the session; the board is taken by the first job."""
        self._session = session
        self._holder = holder
        self._lock: Optional[int] = None

    def start(
        self, job: str, argv: Sequence[str], limit_s: float, *, again: bool
    ) -> Dict[str, Any]:
        """Start a job, unless it is running or over already, and say how it is.

        Args:
            job: its name; one of the same name is the same job.
            argv: the program.
            limit_s: it is ended after so many seconds.
            again: whether a job that was lost is begun again.
        """
        found = self.look(job)
        if found["state"] in ("running", "done") or (found["state"] != "none" and not again):
            return found
        try:
            self._take()
        except Busy as busy:
            return {"state": "busy", **busy.holder}
        folder = self._session / "jobs" / job
        for stale in folder.glob("*"):
            stale.unlink()
        for place in (folder, self._session / "out", self._session / "tmp"):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
        assert self._lock is not None
        _detach(folder, argv, limit_s, self._lock)
        return self.look(job)

    def look(self, job: str) -> Dict[str, Any]:
        """Return how a job is.

        Returns:
            ``state``: ``none``, ``running``, ``done`` (with ``code``, which is ``None`` where its
            time ran out, ``stdout`` and ``stderr``), ``rebooted`` or ``lost``.
        """
        return _look(self._session / "jobs" / job)

    def end(self) -> None:
        """End every job of the session with all its children, and give the board back."""
        for folder in (self._session / "jobs").glob("*"):
            state = _read(folder / "state.json")
            if state is None or state["boot_id"] != boot_id():
                continue
            if _is_held(folder / "alive"):
                _kill(state["runner"], signal.SIGTERM)  # it ends what it started, see _Ended
                if not _is_let_go(folder / "alive", GRACE_S + KILL_S):
                    _kill(state["runner"], signal.SIGKILL)
            child = _Process(**state["child"])
            if child.lives():  # its runner was killed before
                _kill_group(child.pid)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take(self) -> None:
        """Take the board; another conversation of this very session has to leave it."""
        if self._lock is not None:
            return
        own = _Process.of(os.getpid())
        note = {"holder": self._holder, "session": self._session.name, "agent": vars(own)}
        try:
            self._lock = take_board(note)
        except Busy as busy:
            if busy.holder.get("session") != self._session.name:
                raise
            # Its link is dead and it does not know, or its job is not wanted any more.
            _Process(**busy.holder["agent"]).send(signal.SIGKILL)
            self.end()
            self._lock = _take_soon(note)


def _take_soon(note: Dict[str, Any]) -> int:
    """Take the board from processes that are about to end."""
    until = time.monotonic() + KILL_S
    while True:
        try:
            return take_board(note)
        except Busy:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


class _Process:
    """A process that is not mistaken for a later one of the same number."""

    def __init__(self, pid: int, start: int) -> None:
        self.pid = pid
        self.start = start

    @classmethod
    def of(cls, pid: int) -> _Process:
        return cls(pid, _started(pid) or 0)

    def lives(self) -> bool:
        found = _started(self.pid)
        # An emulator tells a process another start of its own than the kernel tells the others.
        return found is not None and abs(found - self.start) <= os.sysconf("SC_CLK_TCK")

    def send(self, number: int) -> None:
        if self.lives():
            _kill(self.pid, number)


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        os.kill(pid, number)


def _hold(path: Path) -> None:
    """Show by a lock that this process lives, for as long as it does."""
    fcntl.flock(os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), fcntl.LOCK_EX)


def _is_held(path: Path) -> bool:
    try:
        with path.open() as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _is_let_go(path: Path, seconds: float) -> bool:
    """Return whether a process that holds a file ends within so many seconds."""
    until = time.monotonic() + seconds
    while _is_held(path):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _look(folder: Path) -> Dict[str, Any]:
    end = _read(folder / "end.json")
    if end is not None:
        texts = {name: _text(folder / name) for name in ("stdout", "stderr")}
        return {"state": "done", **end, **texts}
    state = _read(folder / "state.json")
    if state is None:
        return {"state": "none"}
    if state["boot_id"] != boot_id():
        return {"state": "rebooted"}
    if _is_held(folder / "alive"):
        return {"state": "running"}
    # It may have ended between the two looks.
    return {"state": "lost"} if _read(folder / "end.json") is None else _look(folder)


def _read(path: Path) -> Optional[Dict[str, Any]]:
    try:
        found: Dict[str, Any] = read_json(path)
    except InputError:
        return None
    return found


def _text(path: Path) -> str:
    """Return the end of what a job wrote."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - TEXT_LIMIT))
        return stream.read().decode(errors="replace")


class _Ended(Exception):  # noqa: N818 - how a runner is told
    """Somebody wants the job no more."""


def _detach(folder: Path, argv: Sequence[str], limit_s: float, lock: int) -> None:
    """Start a runner that belongs to no terminal and no parent; return when it is under way."""
    receive, tell = os.pipe()
    if os.fork() == 0:
        try:
            os.setsid()
            _let_go({tell, lock})
            _run(folder, argv, limit_s, tell)
        finally:
            os._exit(1)
    os.close(tell)
    os.read(receive, 1)
    os.close(receive)


def _let_go(kept: Set[int]) -> None:
    """Close what came from the parent, or the connection would never end."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(nothing, handle)
    for place in list(Path("/proc/self/fd").iterdir()):
        handle = int(place.name)
        if handle > 2 and handle not in kept:
            with contextlib.suppress(OSError):  # it was the listing's own
                os.close(handle)


def _run(folder: Path, argv: Sequence[str], limit_s: float, tell: int) -> NoReturn:
    """Run one program to its end or its time's, and write down how it went."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGALRM, _run_out)
    _adopt_orphans()
    _hold(folder / "alive")
    environment = {**os.environ, "TMPDIR": str(folder.parent.parent / "tmp")}
    code: Optional[int] = None
    try:
        with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                cwd=str(folder),
                start_new_session=True,
            )
            who = {"runner": os.getpid(), "child": vars(_Process.of(child.pid))}
            write_json(folder / "state.json", {"boot_id": boot_id(), **who})
            os.write(tell, b".")
            os.close(tell)
            signal.setitimer(signal.ITIMER_REAL, limit_s)
            code = child.wait()  # sleeps until the end, as a look now and then would be measured
    except TimeoutError:
        pass
    except _Ended:
        _end_children()
        os._exit(0)
    except (OSError, DiskError) as error:  # a TimeoutError was caught above
        code = 127
        _say_why(folder, argv[0], error)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _end_children()
    write_json(folder / "end.json", {"code": code})
    os._exit(0)


def _say_why(folder: Path, program: str, error: Union[OSError, DiskError]) -> None:
    """Leave word of what stood in a job's way."""
    how = error.what if isinstance(error, DiskError) else f"cannot be started ({error.strerror})"
    with contextlib.suppress(OSError):  # the disk may be full
        (folder / "stderr").write_text(f"{program}: {how}\n")


def _end(number: int, frame: object) -> NoReturn:  # noqa: ARG001 - a signal handler's signature
    raise _Ended


def _run_out(number: int, frame: object) -> NoReturn:  # noqa: ARG001 - likewise
    raise TimeoutError


def _adopt_orphans() -> None:
    """Become the parent of whatever a job leaves behind, where the kernel can do that."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_children() -> None:
    """End all children of this process, and theirs: asked first, killed after a while."""
    begun = time.monotonic()
    asked: Set[int] = set()
    while True:
        left = list(_descendants(os.getpid()))
        if not left or time.monotonic() - begun > KILL_S:
            return
        late = time.monotonic() - begun > GRACE_S
        for pid in left:
            if late or pid not in asked:
                asked.add(pid)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        _reap()
        time.sleep(0.01)


def _reap() -> None:
    """Take note of children that have ended, so that they are gone."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _descendants(root: int) -> Iterator[int]:
    parents: Dict[int, List[int]] = {}
    for place in Path("/proc").iterdir():
        fields = _stat(int(place.name)) if place.name.isdigit() else []
        if fields:
            parents.setdefault(int(fields[1]), []).append(int(place.name))
    todo = list(parents.get(root, []))
    while todo:
        pid = todo.pop()
        yield pid
        todo += parents.get(pid, [])


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _started(pid: int) -> Optional[int]:
    """Return when a process started, in ticks since the boot; ``None`` where there is none."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] != "Z" else None


def _stat(pid: int) -> List[str]:
    """Return the fields of ``/proc/PID/stat`` from the state on; the name before it may be odd."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    return re.sub(r"^.*\) ", "", text, flags=re.DOTALL).split()
