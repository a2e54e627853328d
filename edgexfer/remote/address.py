"""What ``--on`` names: this machine, or a board as the user's own ssh knows it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgexfer.core.errors import InputError

LOCAL = "local"
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_PYTHON = re.compile(r"(~/)?[A-Za-z0-9_./][A-Za-z0-9_./+-]{0,250}")
_FORM = "write ssh:HOST, ssh:USER@HOST:PORT or local; more goes into ~/.ssh/config"


@dataclass(frozen=True)
class Address:
    """One machine.

    Attributes:
        host: a name or an alias of the user's ssh configuration; empty for this machine.
        user: ``None`` leaves it to the configuration.
        port: likewise.
    """

    host: str = ""
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        """Return it as ``--on`` takes it."""
        if not self.host:
            return LOCAL
        user = f"{self.user}@" if self.user else ""
        return f"ssh:{user}{self.host}" + (f":{self.port}" if self.port else "")

    @property
    def login(self) -> str:
        """What to type after ``ssh`` to be there."""
        port = f"-p {self.port} " if self.port else ""
        return port + (f"{self.user}@" if self.user else "") + self.host

    @property
    def folder(self) -> str:
        """A name for a folder of this machine's records."""
        return re.sub(r"[^A-Za-z0-9._-]", "-", str(self).removeprefix("ssh:"))


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Read what ``--on`` was given: machines with commas between them.

    Raises:
        InputError: one of them is none, or is named twice.
    """
    found = tuple(parse_address(part.strip()) for part in text.split(",") if part.strip())
    if not found:
        raise InputError("--on names no machine", _FORM)
    names = [address.folder for address in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"--on names {twice[0]} twice", "name each machine once")
    return found


def parse_address(text: str) -> Address:
    """Read one machine's address.

    Raises:
        InputError: it is none. Whatever a shell or ssh could take for something else is none.
    """
    if text == LOCAL:
        return Address()
    scheme, colon, rest = text.partition(":")
    if not colon or scheme != "ssh":
        raise InputError(f"--on {text!r}: is not a machine", _FORM)
    user, at, place = rest.rpartition("@")
    host, colon, port = place.partition(":")
    if at and not _USER.fullmatch(user):
        raise InputError(f"--on {text!r}: {user!r} is not a user name", _FORM)
    if not _HOST.fullmatch(host):
        raise InputError(f"--on {text!r}: {host!r} is not a host name", _FORM)
    if colon and not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65535):
        raise InputError(f"--on {text!r}: {port!r} is not a port", "ports are 1 to 65535")
    return Address(host, user if at else None, int(port) if colon else None)


def check_python(path: str) -> str:
    """Return the path of a board's Python, if it is one that no shell reads anything else into.

    Raises:
        InputError: it is not.
    """
    if not _PYTHON.fullmatch(path):
        raise InputError(
            f"--remote-python {path!r}: is not a plain path",
            "letters, digits and . _ + - / alone, such as ~/venv/bin/python",
        )
    return path
