"""``edgexfer doctor``: what this machine has, what it lacks, and the command that mends it."""

from __future__ import annotations

import click

from edgexfer.cli.options import json_option


@click.command("doctor")
@json_option
def command(as_json: bool) -> int:
    """Say what works on this machine; exit 3 where something that the base needs is missing.

    Examples:
      edgexfer doctor
    """
    import json

    from edgexfer.cli.health import examine
    from edgexfer.core.codec import encode

    findings = examine()
    if as_json:
        click.echo(json.dumps(encode(findings), indent=2))
    else:
        width = max(len(f.name) for f in findings)
        for finding in findings:
            click.echo(f"{finding.status:8} {finding.name:{width}}  {finding.detail}")
            if finding.fix:
                click.echo(f"{'':8} {'':{width}}  fix: {finding.fix}")
    return 3 if any(f.status == "missing" for f in findings) else 0
