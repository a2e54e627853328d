"""``edgexfer doctor``: what a machine has, what it lacks, and the command that mends it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgexfer.cli.options import json_option

if TYPE_CHECKING:
    from edgexfer.bench.checkup import Finding
    from edgexfer.remote.transport import Transport


@click.command("doctor")
@click.option("--on", "machine", default="local", help="ssh:HOST for a board.  [default: local]")
@click.option("--target", help="The board's profile, for its runtime.  [default: rpi5-onnxruntime]")
@json_option
def command(machine: str, target: str | None, as_json: bool) -> int:
    """Say what works on this machine or a board; exit 3 where something needed is missing.

    Examples:
      edgexfer doctor
      edgexfer doctor --on ssh:nano --target jetson
    """
    import json

    from edgexfer.bench.checkup import exit_code, lines
    from edgexfer.core.codec import encode

    findings = _look(machine, target)
    if as_json:
        click.echo(json.dumps(encode(findings), indent=2))
    else:
        click.echo("\n".join(lines(findings)))
    return exit_code(findings)


def _look(machine: str, target: str | None) -> list[Finding]:
    """Look at this machine as the host of all work, or at one that is to run a target's artefacts.

    A host that is asked for a target is looked at like a board.
    """
    from edgexfer.remote.address import parse_address

    address = parse_address(machine)
    if not address.host and target is None:
        from edgexfer.cli.health import examine

        return examine()
    from edgexfer.profiles import find_profile
    from edgexfer.remote.checkup import check_machine
    from edgexfer.remote.ssh import Ssh
    from edgexfer.remote.transport import Local

    profile = find_profile(target or "rpi5-onnxruntime")

    def reach(scratch: Path) -> Transport:
        return Ssh(address, scratch) if address.host else Local(scratch)

    return check_machine(reach, profile.backend)
