"""``edgexfer verify``: is a bundle whole, and does it compute what it did when it was sealed?"""

from __future__ import annotations

from pathlib import Path

import click

from edgexfer.cli.options import json_option


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def command(bundle: Path, as_json: bool) -> int:
    """Check hashes, preprocess and golden outputs on this machine; exit 1 if an artefact differs.

    Examples:
      edgexfer verify bundle
      python3 bundle/edgexfer.pyz verify bundle        # on a board, nothing installed
    """
    import json

    from edgexfer.core.codec import encode
    from edgexfer.remote.verify import verify

    findings = verify(bundle)
    if as_json:
        click.echo(json.dumps(encode(findings), indent=2))
    else:
        for finding in findings:
            click.echo(f"{finding.status:8}{finding.name}  {finding.detail}")
    return 1 if any(f.status == "failed" for f in findings) else 0
