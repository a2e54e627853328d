"""``edgexfer quickstart``: the whole trip on a data set that needs no download."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("quickstart")
@click.option(
    "--out", default="runs/quickstart", show_default=True, type=click.Path(path_type=Path)
)
def command(out: Path) -> None:
    """Teacher, student, INT8, benchmark and report on handwritten digits, in minutes on a CPU.

    Examples:
      edgexfer quickstart
      edgexfer quickstart --out /tmp/first
    """
    from importlib.resources import as_file, files

    from edgexfer.cli.show import show_trip
    from edgexfer.pipeline import run_recipe
    from edgexfer.recipe import load_recipe

    with as_file(files("edgexfer") / "quickstart.yaml") as recipe:
        wanted = load_recipe(recipe)
    show_trip(run_recipe(wanted, out))
    click.echo("\nNext, on your own images (a folder with one folder per class):")
    click.echo("  edgexfer init photos/ --target jetson -o recipe.yaml && edgexfer run recipe.yaml")
