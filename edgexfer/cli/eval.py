"""``edgexfer eval``: accuracy of a run or of a bundle's artefacts on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgexfer.cli.options import (
    json_option,
    make_section,
    refuse_without_data,
    section_options,
)
from edgexfer.recipe import DataSection


@click.command("eval")
@click.argument("subject", metavar="RUN|BUNDLE", type=click.Path(path_type=Path))
@click.option("--data", "path", help="The images; without it, those the run was trained with.")
@section_options(DataSection, leave_out=("path",))
@json_option
def command(subject: Path, path: str | None, as_json: bool, **given: Any) -> None:
    """Measure top-1 accuracy on the test split, with its 95 % interval, per class too.

    Class names are matched by name, so the folders may stand in another order.

    Examples:
      edgexfer eval runs/student --data photos/
      edgexfer eval bundle --data photos/ --json
    """
    import json

    from edgexfer.core.codec import encode
    from edgexfer.export.evaluate import evaluate, to_text

    if path is None:
        refuse_without_data(given)
    data = None if path is None else make_section(DataSection, given, path=path)
    results = evaluate(subject, data)
    if as_json:
        click.echo(json.dumps(encode(results), indent=2))
    else:
        click.echo(to_text(results))
