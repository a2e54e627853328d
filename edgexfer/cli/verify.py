"""``edgexfer verify``: is a bundle whole, and does it compute what it did when it was sealed?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgexfer.cli.machines import fleet_of, machine_options
from edgexfer.cli.options import json_option


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@machine_options("check one after another")
@json_option
def command(bundle: Path, as_json: bool, **given: Any) -> int:
    """Check hashes, preprocess and golden outputs on a machine; exit 1 if an artefact differs.

    Examples:
      edgexfer verify bundle
      edgexfer verify bundle --on ssh:pi5
      python3 bundle/edgexfer.pyz verify bundle        # on a board, nothing installed
    """
    import json

    from edgexfer.bench.verify import nothing_ran
    from edgexfer.core.codec import encode
    from edgexfer.remote.verify import verify

    fleet = fleet_of(given)
    found = {str(m): verify(bundle, transport=fleet.reach(m)) for m in fleet.machines}
    several = len(found) > 1
    if as_json:
        document = encode(found if several else next(iter(found.values())))
        click.echo(json.dumps(document, indent=2))
    else:
        for machine, findings in found.items():
            before = f"{machine}: " if several else ""
            for finding in findings:
                click.echo(f"{before}{finding.status:8}{finding.name}  {finding.detail}")
    for machine, findings in found.items():
        if nothing_ran(findings):
            click.echo(f"{machine}: {nothing_ran(findings)}", err=True)
    return int(any(f.status == "failed" for findings in found.values() for f in findings))
