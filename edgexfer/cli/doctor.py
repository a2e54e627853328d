"""``edgexfer doctor``: what a machine has, what it lacks, and the command that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgexfer.cli.machines import machine_of, machine_options
from edgexfer.cli.options import json_option

if TYPE_CHECKING:
    from edgexfer.bench.checkup import Finding


@click.command("doctor")
@click.option("--target", help="The board's profile, for its runtime.  [default: rpi5-onnxruntime]")
@machine_options()
@json_option
def command(target: str | None, as_json: bool, **given: Any) -> int:
    """Say what works on this machine or a board; exit 3 where something needed is missing.

    Examples:
      edgexfer doctor
      edgexfer doctor --on ssh:nano --target jetson
    """
    import json

    from edgexfer.bench.checkup import exit_code, lines
    from edgexfer.core.codec import encode

    findings = _look(target, given)
    if as_json:
        click.echo(json.dumps(encode(findings), indent=2))
    else:
        click.echo("\n".join(lines(findings)))
    return exit_code(findings)


def _look(target: str | None, given: dict[str, Any]) -> list[Finding]:
    """Look at this machine as the host of all work, or at one that is to run a target's artefacts.

    A host that is asked for a target is looked at like a board.
    """
    machine, reach = machine_of(given)
    if not machine.host and target is None:
        from edgexfer.cli.health import examine

        return examine()
    from edgexfer.profiles import find_profile
    from edgexfer.remote.checkup import check_machine

    return check_machine(reach, find_profile(target or "rpi5-onnxruntime").backend)
