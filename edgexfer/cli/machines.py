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


def machine_options(several: str = "") -> Callable[[F], F]:
    """Return a decorator that adds the options that say where the work is done.

    Args:
        several: what several machines do, for the help; empty for a verb that takes one.
    """
    more = f"; several {several}" if several else ""
    options = (
        click.option(
            "--on",
            default="local",
            metavar="MACHINE[,MACHINE]" if several else "MACHINE",
            help=f"ssh:HOST as your ssh knows it, or local{more}.  [default: local]",
        ),
        click.option(
            "--remote-python",
            metavar="PATH",
            help="The boards' Python, such as ~/venv/bin/python.  [default: python3]",
        ),
        click.option("--wait", is_flag=True, help="Wait for a board that somebody measures on."),
    )

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def fleet_of(given: dict[str, Any]) -> Fleet:
    """Return the machines that the options name.

    Args:
        given: all options of the verb by name.

    Raises:
        InputError: they name none, or something that is none.
    """
    from edgexfer.remote import fleet

    python = given["remote_python"] or "python3"
    return fleet.fleet_of(given["on"], python, wait=given["wait"], say=_say)


def _say(text: str) -> None:
    """Tell on stderr what a machine has to say meanwhile."""
    click.echo(text, err=True)


def machine_of(given: dict[str, Any]) -> tuple[Address, Callable[[Path], Transport]]:
    """Return the one machine that the options name, and what makes the way to it.

    Raises:
        InputError: as ``fleet_of``, or they name several.
    """
    fleet = fleet_of(given)
    return fleet.only, fleet.reach(fleet.only)
