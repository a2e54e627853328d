"""One connection to a board: OpenSSH as a child process, and a conversation in frames through it.

All that is asked of a board goes through this one process, so it is authenticated once. What runs
there is one fixed command, Python reading ``bench/agent.py`` from its stdin; nothing that a user
wrote is ever part of it, but for the path of that Python, which ``address.check_python`` has seen.
What a broken connection means in plain words is in ``trouble.py``; taking it up again is the
business of ``ssh.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgexfer.bench import agent
from edgexfer.core.errors import EdgexferError, MachineError
from edgexfer.remote.address import Address
from edgexfer.remote.trouble import Lost, explain

# Longer than this is no answer, as ssh itself notices a dead link much sooner.
ANSWER_S = 300.0
_SLICE_S = 0.2
# Stands between the single quotes of whatever shell is there, so it has none and no line's end.
_BOOT = (
    "import sys,json;sys.version_info<(3,8) and sys.exit("
    '"edgexfer: Python %d.%d is too old" % sys.version_info[:2]);'
    'exec(compile(json.loads(sys.stdin.buffer.readline()),"agent","exec"))'
)


@dataclass(frozen=True)
class Options:
    """How boards are reached.

    Attributes:
        python: the interpreter there.
        wait: whether to wait for a board that somebody else measures on.
        patience_s: how long a link that dropped is tried again, in seconds; a reboot fits in.
        connect_s: most seconds until a connection stands.
        alive_s: seconds between signs of life; a link is dead after three without an answer.
        command: the ssh that is called.
        stop: set by whoever wants all boards to stop; then a wait ends with KeyboardInterrupt.
    """

    python: str = "python3"
    wait: bool = False
    patience_s: float = 180.0
    connect_s: int = 10
    alive_s: int = 5
    command: Sequence[str] = ("ssh",)
    stop: threading.Event = field(default_factory=threading.Event)


class LinkLost(Exception):  # noqa: N818 - it is told to the user as one of the errors
    """The connection is gone.

    Attributes:
        error: what to tell when it does not come back.
    """

    def __init__(self, error: EdgexferError) -> None:
        """Keep the error."""
        super().__init__(error.what)
        self.error = error


def ssh_command(address: Address, options: Options) -> list[str]:
    """Return the ssh that connects; what the user's configuration says stays, but for safety.

    Host keys are always checked and nothing is ever asked; nothing of this machine is forwarded; a
    connection that the user shares already is used, but none is left open in the background.
    """
    fixed = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "ControlMaster": "no",
        "ConnectTimeout": str(options.connect_s),
        "ServerAliveInterval": str(options.alive_s),
        "ServerAliveCountMax": "3",
        "LogLevel": "ERROR",
    }
    return [
        *options.command,
        "-T",
        *(word for key, value in fixed.items() for word in ("-o", f"{key}={value}")),
        *(["-l", address.user] if address.user else []),
        *(["-p", str(address.port)] if address.port else []),
        "--",
        address.host,
    ]


class Link:
    """A connection that stands until it is closed or lost.

    Raises:
        EdgexferError: ssh cannot be started here.
    """

    def __init__(self, address: Address, options: Options) -> None:
        """Start ssh and send the agent; the first answer tells whether that went well."""
        self._address = address
        self._options = options
        self._nonce = secrets.token_hex(16).encode()
        self._stop = options.stop
        self._asked = 0
        self._sound = True
        self._read = b""
        self._spoken = False
        # A file, as a process that ssh leaves behind would keep a pipe open.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        command = [*ssh_command(address, options), f"{options.python} -E -c '{_BOOT}'"]
        try:
            self._ssh = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is ours: the board has to be told
            )
        except OSError as error:
            self._errors.close()
            raise MachineError(
                f"{address}: {command[0]} cannot be started ({error.strerror})",
                "install OpenSSH's client: apt-get install openssh-client",
            ) from error
        source = Path(agent.__file__).read_text(encoding="utf-8")
        self._first = json.dumps(f"{source}\nserve({self._nonce.decode()!r})\n").encode() + b"\n"

    def ask(self, question: dict[str, Any], payload: bytes = b"") -> dict[str, Any]:
        """Ask one question and return its answer.

        Raises:
            LinkLost: the connection is gone.
            EdgexferError: it cannot be had at all, such as for a key that is not known.
        """
        self._asked += 1
        head = json.dumps({**question, "n": self._asked}).encode() + b"\n"
        try:
            self._sound = False
            self._send(self._first + head + payload)
            self._sound = True
            self._first = b""
            while True:
                answer = self._frame()
                self._spoken = True
                if answer["n"] == self._asked:  # an older one is of a question that was left
                    return answer
        except (OSError, EOFError) as error:
            raise self._trouble() from error

    def end(self) -> bool:
        """End the session there; ``False`` where a question was broken off half asked.

        Raises:
            LinkLost: the connection is gone.
        """
        self._stop = threading.Event()
        if self._sound:
            self.ask({"ask": "end"})
        return self._sound

    def close(self) -> None:
        """End ssh, and with it the agent there."""
        for pipe in (self._ssh.stdin, self._ssh.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._ssh.wait(1.0)
        except subprocess.TimeoutExpired:
            self._ssh.kill()
            self._ssh.wait()
        self._errors.close()

    def _send(self, data: bytes) -> None:
        assert self._ssh.stdin is not None
        handle = self._ssh.stdin.fileno()
        os.set_blocking(handle, False)
        view = memoryview(data)
        while view:
            self._check_stop()
            if select.select([], [handle], [], _SLICE_S)[1]:
                view = view[os.write(handle, view) :]

    def _frame(self) -> dict[str, Any]:
        """Read up to the next frame, past whatever is none."""
        until = time.monotonic() + ANSWER_S
        while True:
            start = self._read.find(self._nonce + b" ")
            head, newline, rest = self._read[start:].partition(b"\n")
            if start >= 0 and newline:
                length = int(head.split()[1])
                if len(rest) > length:
                    self._read = rest[length + 1 :]
                    answer: dict[str, Any] = json.loads(rest[:length])
                    return answer
            self._receive(until)

    def _receive(self, until: float) -> None:
        assert self._ssh.stdout is not None
        handle = self._ssh.stdout.fileno()
        while not select.select([handle], [], [], _SLICE_S)[0]:
            self._check_stop()
            if time.monotonic() > until:
                raise TimeoutError("no answer")
        data = os.read(handle, 1 << 18)
        if not data:
            raise EOFError
        self._read += data

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt

    def _trouble(self) -> Exception:
        """Make an error of what ssh said when it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._ssh.wait(1.0)
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace")
        heard = b"" if self._spoken else self._read
        command = ssh_command(self._address, self._options)
        error = explain(self._address, self._ssh.poll(), said, heard, command)
        return LinkLost(error) if isinstance(error, Lost) else error
