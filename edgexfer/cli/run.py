"""``edgexfer run``: a recipe from the images to the report."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("run")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the trip.  [default: runs/NAME]"
)
def command(recipe: Path, overrides: tuple[str, ...], out: Path | None) -> None:
    """Run a recipe: teacher, student, control, export, benchmark, report.

    The same command again goes on where it stopped; stages whose inputs have not changed are
    skipped.

    Examples:
      edgexfer run recipe.yaml
      edgexfer run recipe.yaml --set student.train.epochs=5 --set data.limit=500 --out runs/try
    """
    from edgexfer.cli.show import show_trip
    from edgexfer.pipeline import run_recipe
    from edgexfer.recipe import load_recipe

    show_trip(run_recipe(load_recipe(recipe, overrides), out))
