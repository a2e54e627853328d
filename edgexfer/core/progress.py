"""Progress of long work on stderr: one live line on a terminal, now and then a line elsewhere.

Rooms report through a ``Progress`` that they are handed; only the command line decides whether it
shows. Nothing here ever writes to stdout.
"""

from __future__ import annotations

import shutil
import sys
import time
from typing import Optional, TextIO

_BAR_WIDTH = 20


class Progress:
    """Counts one long piece of work and shows rate and time left.

    Args:
        title: what is being done, such as ``"train student"``.
        total: how many units there are in all; ``None`` where that is unknown.
        unit: what is counted, ``"img"`` for images.
        stream: where to write; stderr by default.
        quiet: show nothing.
    """

    _LIVE_S = 0.1
    _PLAIN_S = 15.0

    def __init__(
        self,
        title: str,
        total: Optional[int] = None,
        unit: str = "img",
        stream: Optional[TextIO] = None,
        quiet: bool = False,
    ) -> None:
        """Start the clock; nothing is shown before the first update."""
        self._title, self._total, self._unit = title, total, unit
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._live = self._stream.isatty()
        self._start = self._shown = time.monotonic()
        self._done = self._skipped = 0
        self._note = ""
        self._width = 0
        self._unshown = False

    def __enter__(self) -> Progress:
        """Return the progress itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the line."""
        self.close()

    def skip(self, units: int) -> None:
        """Count units that an earlier run has already done; they do not count as speed."""
        self._done += units
        self._skipped += units

    def update(self, units: int = 1, note: str = "") -> None:
        """Count ``units`` more, and show them if it is time to.

        Args:
            units: how many were finished since the last call.
            note: a short word on how it goes, such as ``"loss 0.31"``.
        """
        self._done += units
        self._note = note or self._note
        self._unshown = True
        now = time.monotonic()
        if now - self._shown >= (self._LIVE_S if self._live else self._PLAIN_S):
            self._shown = now
            self._show(end=False)

    def close(self) -> None:
        """Show the final state and end the line."""
        if self._unshown or self._width:
            self._show(end=True)

    def _show(self, *, end: bool) -> None:
        if self._quiet:
            return
        text = self._line()
        if self._live:
            # A line that wraps cannot be written over.
            text = text[: max(shutil.get_terminal_size().columns - 1, 20)]
            pad = " " * max(self._width - len(text), 0)
            self._stream.write("\r" + text + pad + ("\n" if end else ""))
            self._width = 0 if end else len(text)
        else:
            self._stream.write(text + "\n")
        self._unshown = False
        self._stream.flush()

    def _line(self) -> str:
        spent = max(time.monotonic() - self._start, 1e-9)
        rate = (self._done - self._skipped) / spent
        parts = [self._title]
        if self._total and self._live:
            parts.append(_bar(self._done / self._total))
        if self._total:
            parts.append(
                f"{100 * self._done / self._total:3.0f}% {self._done}/{self._total} {self._unit}"
            )
        else:
            parts.append(f"{self._done} {self._unit}")
        parts.append(f"{rate:.0f} {self._unit}/s" if rate >= 10 else f"{rate:.2g} {self._unit}/s")
        if self._total and rate > 0:
            parts.append(f"{_clock((self._total - self._done) / rate)} left")
        if self._note:
            parts.append(self._note)
        return "  ".join(parts)


def say(text: str, stream: Optional[TextIO] = None, *, quiet: bool = False) -> None:
    """Write one line that a person should read before the long work begins, unless ``quiet``."""
    if not quiet:
        print(text, file=sys.stderr if stream is None else stream, flush=True)


def _bar(share: float) -> str:
    full = round(min(share, 1.0) * _BAR_WIDTH)
    return "[" + "#" * full + "." * (_BAR_WIDTH - full) + "]"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
        if minutes >= 60
        else f"{minutes}:{rest:02d}"
    )
