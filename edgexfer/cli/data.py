"""``edgexfer data``: look at a data set before hours are spent on it."""

from __future__ import annotations

from typing import Any

import click

from edgexfer.cli.options import json_option, make_section, section_options
from edgexfer.recipe import DataSection

# What decides neither which images there are nor how they are split.
_UNUSED = (
    "path",
    "limit",
    "train_limit",
    "cache",
    "workers",
    "allow_quarantined",
    "unlabelled",
    "labels",
)


@click.group("data")
def command() -> None:
    """Look at a data set before training on it.

    Examples:
      edgexfer data check photos/
    """


@command.command("check")
@click.argument("path", metavar="DATA")
@section_options(DataSection, leave_out=_UNUSED)
@json_option
def check(path: str, as_json: bool, **given: Any) -> int:
    """Report counts, sizes, corrupt files, duplicates across splits, and imbalance.

    Every image is decoded once. Exit 1 where something would spoil a training.

    Examples:
      edgexfer data check photos/
      edgexfer data check photos.tar --json
    """
    import json

    from edgexfer.core.codec import encode
    from edgexfer.core.progress import Progress
    from edgexfer.data.audit import audit, to_text

    data = make_section(DataSection, given, path=path)
    found = audit(path, val=data.val, test=data.test, split_seed=data.split_seed, progress=Progress)
    click.echo(json.dumps(encode(found), indent=2) if as_json else to_text(found))
    return 0 if found.clean else 1
