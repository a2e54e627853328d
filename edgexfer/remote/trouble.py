"""What ssh says when a board cannot be reached, in plain words with the command that mends it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgexfer.core.errors import BackendError, EdgexferError, InputError, MachineError
from edgexfer.remote.address import Address

_PROBE_S = 30.0
_KEY = re.compile(r"Server host key: (\S+) (SHA256:\S+)")
_SENT = re.compile(
    r"The fingerprint for the (\S+) key sent by the remote host is\s+(SHA256:\S+?)\.?\s"
)
_OFFENDING = re.compile(r"Offending \S+ key in (.+):(\d+)")
_DENIED = re.compile(r"(?:^|\n)(\S+@\S+): Permission denied(?: \(([^)]*)\))?")


class Lost(MachineError):  # noqa: N818 - the user is told by its lines, not by its name
    """A connection that may stand again later: nothing has to be changed for it."""


def explain(
    address: Address, code: int | None, said: str, heard: bytes, command: Sequence[str]
) -> EdgexferError:
    """Return the error of a connection that ended.

    Args:
        address: the machine.
        code: ssh's exit code; ``None`` while it runs.
        said: what it wrote to stderr.
        heard: what came from the machine before any answer.
        command: the ssh that connects, to ask it for a key's fingerprint.
    """
    if "IDENTIFICATION HAS CHANGED" in said:
        return _changed_key(address, said)
    if "Host key verification failed" in said:
        return _unknown_key(address, command)
    denied = _DENIED.search(said)
    if denied:
        tried = f" (tried: {denied[2]})" if denied[2] else ""
        return MachineError(
            f"{address}: {denied[1]} is not let in{tried}",
            f"set up a key: ssh-copy-id {address.login}; then `ssh {address.login} true` must work",
        )
    if "Could not resolve hostname" in said:
        return InputError(
            f"{address}: no machine of the name {address.host} is known",
            f"check the spelling, or give it a HostName: Host {address.host} in ~/.ssh/config",
        )
    return _of_python(address, code, said) or _of_connection(address, code, said, heard)


def _of_python(address: Address, code: int | None, said: str) -> EdgexferError | None:
    old = re.search(r"edgexfer: (Python \S+) is too old", said)
    if old:
        return BackendError(
            f"{address}: {old[1]} is too old", "name Python 3.8 or newer with --remote-python"
        )
    if code in (126, 127):
        return BackendError(
            f"{address}: the Python that was asked for is not there ({_last(said)})",
            "there: sudo apt-get install python3; or name one with --remote-python",
        )
    return None


def _of_connection(address: Address, code: int | None, said: str, heard: bytes) -> EdgexferError:
    text = _last(said)
    if code == 255 or code is None:
        return Lost(
            f"{address}: no connection ({text or 'it ended without a word'})",
            f"check that the board is on and that `ssh {address.login} true` works",
        )
    if heard.strip():
        shown = " ".join(heard.decode(errors="replace").split())[:80]
        return BackendError(
            f"{address}: answers {shown!r} and not as Python does",
            f"take what prints or ends there out of its shell's start-up files; try "
            f"`ssh {address.login} true`",
        )
    return Lost(
        f"{address}: the conversation ended with exit code {code} ({text or 'without a word'})",
        f"try `ssh {address.login} python3 --version`",
    )


def _unknown_key(address: Address, command: Sequence[str]) -> EdgexferError:
    """Name the key that the machine shows; ssh tells it only where it is asked to be wordy."""
    # The command's own level of words stands first, and ssh takes the first it is given.
    wordy = [command[0], "-o", "LogLevel=DEBUG1", *command[1:], "true"]
    found = None
    try:
        done = subprocess.run(
            wordy,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_S,
        )
        found = _KEY.search(done.stderr)
    except (OSError, subprocess.TimeoutExpired):
        pass
    key = f"{found[2]} ({found[1]})" if found else "unknown"
    return InputError(
        f"{address}: its host key is not known here; it shows {key}",
        "if that is the board's (there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), pin it: "
        f"ssh -o StrictHostKeyChecking=ask {address.login} true",
    )


def _changed_key(address: Address, said: str) -> EdgexferError:
    sent, place = _SENT.search(said), _OFFENDING.search(said)
    new = sent[2] if sent else "unknown"
    old = _fingerprint(Path(place[1]), int(place[2])) if place else "unknown"
    file = f" -f {place[1]}" if place else ""
    name = address.host if address.port in (None, 22) else f"'[{address.host}]:{address.port}'"
    return InputError(
        f"{address}: its host key has changed from {old} to {new}: another machine, or an attack",
        f"if you know why (a board set up anew): ssh-keygen -R {name}{file}, then pin the new key",
    )


def _fingerprint(path: Path, line: int) -> str:
    """Return the SHA-256 of a key in a file of known hosts, as ssh writes it."""
    try:
        fields = path.read_text(errors="replace").splitlines()[line - 1].split()
        blob = next(base64.b64decode(word, validate=True) for word in fields if word[:4] == "AAAA")
    except (OSError, IndexError, StopIteration, binascii.Error):
        return "unknown"
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:160] if lines else ""
