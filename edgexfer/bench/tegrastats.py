"""NVIDIA's tegrastats, for what a Jetson does not show in sysfs.

Its line differs from release to release: JetPack 6 writes ``GR3D_FREQ 98%@1020`` and two values of
a rail, JetPack 7 ``GR3D_FREQ 12%@[1300,1300]`` and three, Thor ``GR3D_FREQ @[314,314,314]``
without a load. The first value of a rail is the one of this moment, the others are means. Provided,
not measured: the formats are those of lines that others published.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Dict, Optional

from edgexfer.bench.reading import find_tool

_RAIL = re.compile(r"\b(V[A-Z0-9_]+) (-?\d+)mW(?=[/\s]|$)")
_TEMPERATURE = re.compile(r"\b([A-Za-z][\w]*)@(-?[\d.]+)C\b")
_GPU = re.compile(r"\bGR3D_FREQ (?:\d+%)?@\[?(\d+)")
_MEMORY = re.compile(r"\bEMC_FREQ (?:\d+%)?@(\d+)")
_FIRST_LINE_S = 2.0


def parse_line(line: str) -> Dict[str, float]:
    """Return the quantities of one line by name, the end of a name its unit.

    What is not above 0 is left out: a rail that reads -392 mW is one that is off.
    """
    found: Dict[str, float] = {}
    for pattern, name in ((_GPU, "gpu_mhz"), (_MEMORY, "memory_mhz")):
        match = pattern.search(line)
        if match:
            found[name] = float(match.group(1))
    for label, text in _TEMPERATURE.findall(line):
        with contextlib.suppress(ValueError):  # 1.2.3
            found[f"{label}_c"] = float(text)
    for label, text in _RAIL.findall(line):
        found[f"tegrastats:{label}_mw"] = float(text)
    return {name: value for name, value in found.items() if value > 0}


class Tegrastats:
    """A running tegrastats; ``latest`` is its last line, as long as that is young."""

    def __init__(self, root: Path, period_s: float) -> None:
        """Start it, and wait at most two seconds for its first line.

        Raises:
            ValueError: it is not there, does not start or stays silent.
        """
        tool = find_tool(root, "tegrastats")
        if tool is None:
            raise ValueError("there is no tegrastats")
        self._period_s = period_s
        self._values: Dict[str, float] = {}
        self._at = 0.0
        self._first = threading.Event()
        argv = [str(tool), "--interval", str(max(1, int(1e3 * period_s)))]
        try:
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise ValueError(f"tegrastats cannot be started ({error.strerror})") from error
        self._thread = threading.Thread(target=self._follow, name="tegrastats", daemon=True)
        self._thread.start()
        if not self._first.wait(_FIRST_LINE_S):
            self.close()
            raise ValueError("tegrastats says nothing that can be read")

    def _follow(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            values = parse_line(line)
            if values:
                self._values, self._at = values, time.monotonic()
                self._first.set()

    def names(self) -> Dict[str, float]:
        """Return the quantities of the last line."""
        return dict(self._values)

    def latest(self, name: str) -> float:
        """Return one quantity of the last line.

        Raises:
            ValueError: the line lacks it, or is older than four periods.
        """
        if time.monotonic() - self._at > 4 * self._period_s + 1.0:
            raise ValueError("tegrastats fell silent")
        value: Optional[float] = self._values.get(name)
        if value is None:
            raise ValueError(f"tegrastats gives no {name}")
        return value

    def close(self) -> None:
        """End it with all its children."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._thread.join()
        if self._child.stdout is not None:
            self._child.stdout.close()
