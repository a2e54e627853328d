"""The options of verbs that work on other machines: ``--on``, ``--remote-python``, ``--wait``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edgexfer.remote.address import Address
    from edgexfer.remote.fleet import Fleet
    from edgexfer.remote.transport import Transport

F = TypeVar("F", bound=Callable[..., Any])


def machine_options(function: F) -> F:
    """Add the options that say where the work is done."""
    options = (
        click.option(
            "--on",
            default="local",
            metavar="MACHINE[,MACHINE]",
            help="ssh:HOST as your ssh knows it, or local; several work side by side."
            "  [default: local]",
        ),
        click.option(
            "--remote-python",
            metavar="PATH",
            help="The boards' Python, such as ~/venv/bin/python.  [default: python3]",
        ),
        click.option("--wait", is_flag=True, help="Wait for a board that somebody measures on."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def fleet_of(given: dict[str, Any]) -> Fleet:
    """Return the machines that the options name.

    Args:
        given: all options of the verb by name.

    Raises:
        InputError: they name none, or something that is none.
    """
    from edgexfer.remote.address import check_python, parse_addresses
    from edgexfer.remote.fleet import Fleet
    from edgexfer.remote.link import Options

    python = check_python(given["remote_python"] or "python3")
    options = Options(python=python, wait=given["wait"])
    return Fleet(parse_addresses(given["on"]), options, lambda text: click.echo(text, err=True))


def machine_of(given: dict[str, Any]) -> tuple[Address, Callable[[Path], Transport]]:
    """Return the one machine that the options name, and what makes the way to it.

    Raises:
        InputError: as ``fleet_of``.
        UsageError: they name several.
    """
    fleet = fleet_of(given)
    if len(fleet.machines) > 1:
        context = click.get_current_context()
        raise click.UsageError("--on names several machines, and one can be asked", context)
    [machine] = fleet.machines
    return machine, fleet.reach(machine)
