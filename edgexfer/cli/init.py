"""``edgexfer init``: look at the data and write a recipe to start from."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("init")
@click.argument("path", metavar="DATA")
@click.option(
    "--target", required=True, help="Profiles, by name, alias or path: jetson,x86-openvino"
)
@click.option(
    "-o", "--out", default="recipe.yaml", show_default=True, type=click.Path(path_type=Path)
)
@click.option("--force", is_flag=True, help="Write over an existing file.")
def command(path: str, target: str, out: Path, force: bool) -> None:
    """Look at the data, choose models that suit it, and write a commented recipe.

    Examples:
      edgexfer init photos/ --target jetson
      edgexfer init digits --target x86-openvino -o digits.yaml
    """
    from edgexfer.cli.draft import draft_recipe
    from edgexfer.core.errors import RecipeError
    from edgexfer.core.files import write_atomic

    if out.exists() and not force:
        raise RecipeError(f"{out}: is there already", "choose another -o, or add --force")
    write_atomic(out, draft_recipe(path, tuple(t for t in target.split(",") if t)))
    click.echo(f"{out} is written. Read it, then type:\n  edgexfer run {out}")
