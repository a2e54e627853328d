"""Every error that a user can meet, as one tree.

::

    EdgexferError                  what went wrong and where; fix: how to mend it
    ├── GateError            1     a limit or a check was missed; the work before it is intact
    │   ├── ParityError            one hop of the export does not agree with the one before it
    │   └── TrainingError          the training had to stop (non-finite loss, memory)
    ├── InputError           2     what the user handed over is wrong
    │   ├── DataError              images, labels, splits
    │   ├── RecipeError            a recipe or an option
    │   ├── ProfileError           a hardware profile
    │   ├── ModelError             a model name or a weights file
    │   ├── RunError               a run folder that cannot be used as asked
    │   └── BundleError            a bundle or an artefact that is damaged or not one
    ├── MachineError         3     this machine lacks something
    │   ├── BackendError           a runtime is missing, or refuses the artefact
    │   │   └── QuantizerError     a quantizer does not get through with a model that runs
    │   └── DiskError              the disk is full or cannot be written
    └── Interrupted        130     Ctrl-C or SIGTERM, after the state was saved

The number is the exit code of the command line. An error's text is one line that names the place;
``fix`` is one line that says what to do. Nothing below the command line prints or exits.
"""

from __future__ import annotations

import difflib
from typing import Iterable


class EdgexferError(Exception):
    """Base of all errors that edgexfer raises on purpose.

    Args:
        what: one line that says what is wrong and names the file, key or class.
        fix: one line that says how to mend it, where possible a command to type.
    """

    exit_code = 1

    def __init__(self, what: str, fix: str) -> None:
        """Keep both lines; ``str(error)`` is the first."""
        super().__init__(what)
        self.what = what
        self.fix = fix

    def __reduce__(self) -> tuple[type[EdgexferError], tuple[str, str]]:
        """Pickle by both lines, so that a worker process can hand the error on."""
        return type(self), (self.what, self.fix)


class GateError(EdgexferError):
    """A limit or a check was missed; what was made before it is intact."""

    exit_code = 1


class ParityError(GateError):
    """A hop of the export does not agree with the hop before it."""


class TrainingError(GateError):
    """The training had to stop: a non-finite loss, or memory that cannot be found."""


class InputError(EdgexferError):
    """What the user handed over is wrong."""

    exit_code = 2


class DataError(InputError):
    """Images, labels or splits are missing or unusable."""


class RecipeError(InputError):
    """A recipe or an option is wrong."""


class ProfileError(InputError):
    """A hardware profile is unknown or wrong."""


class ModelError(InputError):
    """A model name is unknown, or a weights file does not fit."""


class RunError(InputError):
    """A run folder cannot be used as asked."""


class BundleError(InputError):
    """A bundle or artefact is damaged, or is not one."""


class MachineError(EdgexferError):
    """This machine lacks something that the work needs."""

    exit_code = 3


class BackendError(MachineError):
    """A runtime is missing, or refuses the artefact."""


class QuantizerError(BackendError):
    """A quantizer does not get through with a model that runs."""


class DiskError(MachineError):
    """The disk is full, or the place cannot be written."""


class Interrupted(EdgexferError):  # noqa: N818 - an interruption is not a fault
    """The work was interrupted, after its state had been saved."""

    exit_code = 130


def first_line(error: BaseException, most: int = 120, *, last: bool = False) -> str:
    """Return the first line of what another library's error says, else the name of its class.

    Args:
        error: any exception.
        most: characters to keep.
        last: take the last line instead, where the library puts what was wrong there.
    """
    lines = str(error).strip().splitlines()
    return lines[-1 if last else 0].strip()[:most] if lines else type(error).__name__


def nearest(name: str, known: Iterable[str], *, most: int = 3) -> str:
    """Say which known names are nearest to an unknown one, for the ``fix`` line of an error.

    Returns:
        ``"did you mean 'a' or 'b'?"``, or the known names themselves when none is near.
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=most, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"known: {shown}" if shown else "none is known here"
