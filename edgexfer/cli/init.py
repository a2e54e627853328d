"""``edgexfer init``: look at the data and write a recipe to start from."""

from __future__ import annotations

from pathlib import Path

import click

from edgexfer.cli.options import split_targets


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
    from edgexfer.core.files import make_dir, write_atomic

    targets = split_targets(target)
    if out.is_dir():
        raise RecipeError(f"{out}: is a folder", f"name a file: -o {out / 'recipe.yaml'}")
    if out.exists() and not force:
        raise RecipeError(f"{out}: already exists", "choose another -o, or add --force")
    text = draft_recipe(path, targets)
    make_dir(out.parent)
    write_atomic(out, text)
    click.echo(f"{out} is written. Read it, then type:\n  edgexfer run {out}")
