"""What ``bench`` and ``compare`` share: the options ``--gate`` and ``--junit``, and the exit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edgexfer.bench.gate import Gate, Outcome

F = TypeVar("F", bound=Callable[..., Any])


def gate_options(function: F) -> F:
    """Add ``--gate`` and ``--junit`` to a verb."""
    gate = click.option(
        "--gate",
        metavar="LIMITS",
        help="Exit with 1 unless all are shown to hold, such as latency_p90_ms<8,top1_drop_pt<0.5; "
        "profile stands for the limits of the profile.",
    )
    junit = click.option(
        "--junit",
        type=click.Path(path_type=Path),
        help="Write what became of the gates into this JUnit XML file.",
    )
    return gate(junit(function))


def read_gates(gate: str | None, junit: Path | None) -> tuple[Gate, ...]:
    """Read the gates before anything is measured.

    Raises:
        InputError: one is wrong, there is a JUnit file to write and no gate, or something else
            would be lost under its name.
    """
    from edgexfer.bench.gate import JUNIT, parse_gates
    from edgexfer.core.errors import InputError
    from edgexfer.core.files import refuse_foreign

    if junit is not None:
        refuse_foreign(junit, JUNIT)
    if gate is not None:
        return parse_gates(gate)
    if junit is not None:
        raise InputError(f"--junit {junit}: there is no gate to report", "add --gate")
    return ()


def check_gates(outcomes: Sequence[Outcome], junit: Path | None, name: str) -> None:
    """Write the JUnit file and say what was missed.

    Raises:
        GateError: a gate was missed.
    """
    from edgexfer.bench.gate import write_junit
    from edgexfer.core.errors import GateError

    if junit is not None:
        write_junit(junit, name, outcomes)
    missed = [outcome for outcome in outcomes if not outcome.passed]
    if not missed:
        return
    first = missed[0]
    more = f" (and {len(missed) - 1} more)" if len(missed) > 1 else ""
    raise GateError(
        f"gate {first.gate} missed by {first.subject}: {first.detail}{more}",
        "make it better, measure longer where the interval is too wide, or move the limit",
    )
