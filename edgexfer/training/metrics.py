"""What a training tells while it runs: ``metrics.jsonl``, TensorBoard, and how fast it is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from edgexfer.core.files import disk_errors
from edgexfer.core.rundir import RunDir

TENSORBOARD = "tensorboard"


class Metrics:
    """Writes events of a run; in processes other than the leader it only counts."""

    def __init__(self, run: RunDir, step: int, *, leader: bool) -> None:
        """Drop what an interrupted training wrote after the step that is resumed from.

        Args:
            run: the run.
            step: how many steps were done before.
            leader: whether this process writes.
        """
        self._run = run
        self._rates: list[float] = []
        self._board: Any = None
        if leader:
            from torch.utils.tensorboard import SummaryWriter

            run.rewind_log(step)
            with disk_errors(run.path):
                self._board = SummaryWriter(
                    str(run.path / TENSORBOARD), purge_step=step + 1 if step else None
                )

    def __enter__(self) -> Metrics:
        """Return the metrics themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Flush TensorBoard's file."""
        if self._board is not None:
            with disk_errors(self._run.path):
                self._board.close()

    @property
    def images_per_s(self) -> float:
        """Median rate of the steps so far, 0 before the first."""
        return statistics.median(self._rates) if self._rates else 0.0

    def count(self, images: int, seconds: float) -> None:
        """Count one step of so many images."""
        self._rates.append(images / max(seconds, 1e-9))

    def log(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        """Write one event; its finite numbers also go to TensorBoard.

        Args:
            event: what happened, such as ``train`` or ``val``.
            step: steps done.
            values: numbers or text by name; a number that is not finite is written as ``None``.
        """
        plain = {k: None if _broken(v) else v for k, v in values.items()}
        self._run.log({"event": event, "step": step, **plain})
        if self._board is None:
            return
        with disk_errors(self._run.path):
            for name, value in plain.items():
                if isinstance(value, (int, float)) and name != "epoch":
                    self._board.add_scalar(f"{event}/{name}", value, step)


def _broken(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
