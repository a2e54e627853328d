"""A real sshd on loopback, a wire to it that can be cut, and boards that live in a folder each."""

from __future__ import annotations

import contextlib
import getpass
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgexfer.remote.address import Address
from edgexfer.remote.link import Options
from edgexfer.remote.ssh import Ssh

_TURN_S = 0.05
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
MaxStartups 100
SetEnv EDGEXFER_CACHE={home} TMPDIR={home}/tmp OMP_NUM_THREADS=1
{more}
"""


class Wire:
    """A port that leads to another one, until it is cut or stalled."""

    def __init__(self, port: int) -> None:
        """Listen on a port of its own."""
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_TURN_S)
        self.port: int = self._listener.getsockname()[1]
        self._cuts = 0
        self._closed = False
        self._flows = True
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.connections = self.carried = 0
        #: Bytes towards the board until the wire cuts itself; ``None`` for never.
        self.cut_after: int | None = None

    def cut(self) -> None:
        """Break every connection as it is."""
        self._cuts += 1

    def stall(self) -> None:
        """Let nothing through, while connections stand."""
        self._flows = False

    def flow(self) -> None:
        """Let everything through again."""
        self._flows = True

    def close(self) -> None:
        """Break everything and listen no more."""
        self._closed = True
        self.cut()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with self._listener:
            while not self._closed:
                with contextlib.suppress(OSError):
                    near, _ = self._listener.accept()
                    near.settimeout(None)
                    self.connections += 1
                    thread = threading.Thread(target=self._carry, args=(near, self._cuts))
                    self._threads.append(thread)
                    thread.start()

    def _carry(self, near: socket.socket, cuts: int) -> None:
        """Carry bytes both ways until one end closes or the wire is cut."""
        with (
            near,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._target)) as far,
        ):
            while self._cuts == cuts:
                ready = select.select([near, far], [], [], _TURN_S)[0]
                for source in ready if self._flows else []:
                    data = source.recv(1 << 16)
                    if not data or (source is near and self._is_spent(len(data))):
                        return
                    (far if source is near else near).sendall(data)
                if not self._flows:
                    time.sleep(_TURN_S)

    def _is_spent(self, count: int) -> bool:
        self.carried += count
        if self.cut_after is not None:
            self.cut_after -= count
            if self.cut_after < 0:
                self.cut_after = None
                return True
        return False


@dataclass
class Board:
    """A board: an sshd, a wire to it, and a folder where all that is kept there lies.

    Attributes:
        name: what the ssh configuration calls it.
        folder: keys and configuration.
        home: what the board keeps.
        wire: the way to it.
        config: file for ``ssh -F``.
    """

    name: str
    folder: Path
    home: Path
    wire: Wire
    config: Path
    _scratch: int = field(default=0)

    @property
    def address(self) -> Address:
        """What ``--on`` would name."""
        return Address(self.name)

    @property
    def cache(self) -> Path:
        """What the agent fills."""
        return self.home / "board"

    def options(self, **more: object) -> Options:
        """Return how it is reached."""
        fixed = {"command": ("ssh", "-F", str(self.config)), "alive_s": 1, "patience_s": 20.0}
        return Options(**{**fixed, **more})  # type: ignore[arg-type]

    def reach(self, scratch: Path, **more: object) -> Ssh:
        """Return a transport to it."""
        scratch.mkdir(parents=True, exist_ok=True)
        return Ssh(self.address, scratch, self.options(**more))

    def command(self, folder: Path) -> Path:
        """Write an ``ssh`` for ``PATH`` that knows this board, and return its folder."""
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / "ssh"
        script.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F "{self.config}" "$@"\n')
        script.chmod(0o755)
        return folder

    def processes(self) -> list[str]:
        """Return the command lines of what runs there, found by its environment."""
        return [_command(place) for place in self._places()]

    def kill(self) -> None:
        """Kill all that runs there, as a loss of power does."""
        for place in self._places():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(place.name), signal.SIGKILL)

    def hosts(self) -> list[str]:
        """Return the command lines of what is connected to it."""
        found = [_command(place) for place in Path("/proc").glob("[0-9]*")]
        return [command for command in found if f"-F {self.config}" in command]

    def _places(self) -> list[Path]:
        mark = f"EDGEXFER_CACHE={self.home}".encode()
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (place / "environ").read_bytes().split(b"\0"):
                    found.append(place)
        return found

    def leftovers(self) -> list[str]:
        """Return what is there besides what is kept on purpose."""
        kept = [p for p in (self.cache / "files").glob("*") if p.suffix == ".part"]
        kept += list((self.cache / "sessions").glob("*"))
        kept += [p for p in (self.home / "tmp").glob("*") if p.name != "edgexfer-board.lock"]
        return [str(path) for path in kept]

    def settle(self) -> None:
        """Wait until nothing runs there any more."""
        wait_for(lambda: not self.processes(), f"still running: {self.processes()}")


def _command(place: Path) -> str:
    try:
        return (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:  # it has ended meanwhile
        return ""


def wait_for(condition: Callable[[], object], complaint: str = "", seconds: float = 30.0) -> None:
    """Wait until something is true; fail where it takes too long."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            pytest.fail(complaint or "it did not come about")
        time.sleep(0.02)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host key and a user's key."""
    if not Path(SSHD).is_file() or shutil.which("ssh") is None:
        pytest.skip("no sshd is here: apt-get install openssh-server openssh-client")
    folder = tmp_path_factory.mktemp("keys")
    for name in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd separates its privileges
    return folder


@contextlib.contextmanager
def run_sshd(keys: Path, folder: Path, name: str, more: str = "") -> Iterator[Board]:
    """Run an sshd for one board.

    Args:
        keys: folder of the keys.
        folder: of its own.
        name: of the board.
        more: lines for its configuration.
    """
    home = folder / "home"
    (home / "tmp").mkdir(parents=True)
    for key in ("host_key", "user_key"):
        shutil.copy(keys / key, folder / key)
        (folder / key).chmod(0o600)
    shutil.copy(keys / "user_key.pub", folder / "authorized_keys")
    port = free_port()
    wire = Wire(port)
    (folder / "sshd_config").write_text(
        _CONFIG.format(port=port, folder=folder, home=home, more=more)
    )
    kind, key, *_ = (keys / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{wire.port} {kind} {key}\n")
    config = folder / "ssh_config"
    config.write_text(
        f"Host {name}\n  HostName 127.0.0.1\n  Port {wire.port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {folder}/user_key\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
    )
    command = [SSHD, "-D", "-f", str(folder / "sshd_config"), "-E", str(folder / "sshd.log")]
    daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_port(port, daemon, folder)
        yield Board(name, folder, home, wire, config)
    finally:
        wire.close()
        daemon.terminate()
        daemon.wait()


def _await_port(port: int, daemon: subprocess.Popen[bytes], folder: Path) -> None:
    def listens() -> bool:
        if daemon.poll() is not None:
            pytest.skip(f"sshd does not run here: {(folder / 'sshd.log').read_text()[-200:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    wait_for(listens)


@pytest.fixture
def board(keys: Path, tmp_path: Path) -> Iterator[Board]:
    """A board that is up, with nothing on it; nothing must run there in the end."""
    with run_sshd(keys, tmp_path / "board", "bench-board") as found:
        yield found
        found.settle()
