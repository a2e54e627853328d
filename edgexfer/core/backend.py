"""What a runtime must offer, as protocols: a backend is a module, a session is a loaded artefact.

``backends/NAME.py`` is the whole of backend NAME. Making an artefact (``compile``) and running it
(``load``) are separate acts, so that each can be timed and each can live in its own process.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Protocol, Sequence, Tuple

from edgexfer.core.errors import BackendError, nearest

BACKENDS = ("onnxruntime", "openvino", "tensorrt", "torch", "null")


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and element type of one input or output.

    Attributes:
        name: as it stands in the artefact.
        shape: sizes of the dimensions; -1 for one that is free (the batch).
        dtype: numpy's name of the element type, such as ``float32``.
    """

    name: str
    shape: Tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Plan:
    """How an artefact is to be run.

    Attributes:
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``; a backend makes it explicit, so that a
            runtime cannot choose another one in silence.
        threads: threads of the runtime; 0 leaves the choice to it.
        device: the runtime's own word for the device, such as ``CPU`` or ``GPU``.
        options: further options of the backend, by the names in its ``OPTIONS``.
        streams: calls that are to run at the same time.
    """

    precision: str = "fp32"
    threads: int = 0
    device: str = "CPU"
    options: Dict[str, Any] = field(default_factory=dict)
    streams: int = 1


class Session(Protocol):
    """A loaded artefact.

    One that can run several calls at the same time has a method ``stream()`` too, which returns a
    session on the same loaded model for another thread; one that knows how much memory of a device
    of its own it holds has ``device_bytes()``.

    Attributes:
        inputs: what ``run`` takes.
        outputs: what ``run`` gives.
        active: facts of what really runs, read back from the runtime: at least ``provider`` and
            ``precision``; both as strings.
    """

    inputs: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...]
    active: Dict[str, Any]

    def run(self, feed: Mapping[str, Any]) -> Dict[str, Any]:
        """Run once on numpy arrays by input name; returns when all outputs are on the host."""
        ...

    def close(self) -> None:
        """Let go of the runtime's memory."""
        ...


class Backend(Protocol):
    """The functions and constants of a module in ``backends/``.

    A backend whose runtime reads an artefact and compiles it in two steps has a function for each
    too, ``deserialise(artefact, plan)`` and ``prepare(what that returned, artefact, plan)``, and
    ``load`` is both of them.

    Attributes:
        NAME: the module's own name.
        OPTIONS: names of the options that a plan may carry, each with one line on what it does.
    """

    NAME: str
    OPTIONS: Dict[str, str]

    def unavailable(self) -> Optional[str]:
        """Say why the runtime cannot be used here, ``None`` when it can."""
        ...

    def versions(self) -> Dict[str, str]:
        """Return versions of the runtime's libraries, by name."""
        ...

    def compile(self, model: Path, out: Path, plan: Plan) -> Path:
        """Turn an exchanged model file into what ``load`` takes, and return its path.

        A runtime that loads the exchanged file itself returns ``model``.
        """
        ...

    def load(self, artefact: Path, plan: Plan) -> Session:
        """Load an artefact.

        Raises:
            BackendError: it cannot be loaded as the plan says.
        """
        ...


def get_backend(name: str) -> Backend:
    """Return the module ``edgexfer.backends.NAME`` after asking whether its runtime is here.

    Raises:
        BackendError: no such backend, or its runtime is missing.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend {name!r} is unknown", nearest(name, BACKENDS))
    module: Any = importlib.import_module(f"edgexfer.backends.{name}")
    reason = module.unavailable()
    if reason is not None:
        raise BackendError(f"backend {name}: {reason}", install_hint(name))
    return module  # type: ignore[no-any-return]


def check_plan(
    backend: str, plan: Plan, precisions: Sequence[str], options: Mapping[str, str]
) -> None:
    """Refuse a plan that a backend cannot follow to the letter.

    Args:
        backend: its name, for the text.
        plan: what is asked.
        precisions: what the backend can run.
        options: the backend's ``OPTIONS``.

    Raises:
        BackendError: naming the precision or the option.
    """
    if plan.precision not in precisions:
        raise BackendError(
            f"backend {backend}: cannot run precision {plan.precision!r}",
            f"use {' or '.join(precisions)}, or a target with another backend",
        )
    for option in plan.options:
        if option not in options:
            raise BackendError(
                f"backend {backend}: has no option {option!r}", nearest(option, options)
            )


def install_hint(name: str) -> str:
    """Return how a backend's runtime is installed, a command where one will do."""
    if name == "tensorrt":
        # JetPack's package is for the system's own Python; pip has none for a Jetson.
        return (
            "on a Jetson: sudo apt install python3-libnvinfer python3-numpy, then use its python3; "
            "on a PC with an NVIDIA GPU: pip install 'edgexfer[tensorrt]'"
        )
    return f"pip install {'numpy' if name == 'null' else name}"


def lanes(session: Session, streams: int) -> List[Session]:
    """Return a session for each stream.

    Raises:
        BackendError: the backend runs one call at a time.
    """
    more: Any = getattr(session, "stream", None)
    if streams > 1 and more is None:
        raise BackendError("this backend runs one call at a time", "leave --streams out")
    return [session, *(more() for _ in range(streams - 1))]
