"""``edgexfer advise``: which source, layers, strategy and student to take, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgexfer.cli.options import json_option, make_section, section_options, split_names
from edgexfer.recipe import DataSection

if TYPE_CHECKING:
    from edgexfer.advise.advice import Advice


@click.command("advise")
@click.option("--data", "path", required=True, help="The images to train on.")
@click.option(
    "--models",
    default="",
    metavar="A,B,C",
    help="timm models whose pre-trained weights are compared as sources.",
)
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="RUN|MODEL=FILE",
    help="A finished run, or weights to start from; repeatable.",
)
@click.option(
    "--source-data",
    help="Pictures that the source was trained on: say how far yours are, and show the furthest.",
)
@click.option("--target", help="Hardware profile: rank students for it, by name or file.")
@click.option("--students", default="", metavar="A,B,C", help="Candidates to rank for the target.")
@click.option(
    "--on", help="Measure the candidates in FP32 on local or ssh:HOST; without it, bounds."
)
@click.option(
    "--images",
    default=1000,
    show_default=True,
    type=click.IntRange(20),
    help="Training images to look at, at most.",
)
@click.option("--task", help="Of several (--labels), the one that the advice is for.")
@click.option(
    "--size",
    type=click.IntRange(8),
    help="Input of pre-trained models and students in pixels.  [default: the source's own]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write the recipe to this file, and drawings beside it.",
)
@click.option("--force", is_flag=True, help="Write over an existing recipe.")
@section_options(DataSection, leave_out=("path",))
@json_option
def command(
    path: str,
    models: str,
    sources: tuple[str, ...],
    out: Path | None,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Rank sources, layers and students for your images, and print the recipe to run.

    Nothing is trained. Every score has an interval, and where the images cannot decide it says so.

    Examples:
      edgexfer advise --data photos/ --models resnet18,mobilenetv3_small_100 --target jetson
      edgexfer advise --data photos/ --source runs/a --source runs/b --out recipe.yaml
      edgexfer advise --data photos/ --source runs/a --source-data old-photos/ --out recipe.yaml
    """
    import json

    from edgexfer.advise.advice import Wishes, advise, recipe_text
    from edgexfer.cli.advised import advice_lines
    from edgexfer.core.codec import encode
    from edgexfer.core.errors import RecipeError

    if out is not None and out.suffix not in (".yaml", ".yml"):
        raise RecipeError(f"{out}: is not the name of a recipe", "let --out end in .yaml")
    if out is not None and out.exists() and not force:
        raise RecipeError(f"{out}: already exists", "choose another --out, or add --force")
    wishes = Wishes(
        sources=(*sources, *split_names(models)),
        source_pictures=given.pop("source_data"),
        images=given.pop("images"),
        size=given.pop("size"),
        task=given.pop("task"),
        students=split_names(given.pop("students")),
        target=given.pop("target"),
        fleet=_fleet(given.pop("on")),
    )
    found = advise(make_section(DataSection, given, path=path), wishes)
    written = _write(found, out) if out is not None else ()
    if as_json:
        places = [str(place) for place in written]
        click.echo(json.dumps({**encode(found), "written": places}, indent=2))
        return
    lines = advice_lines(found)
    if out is None:
        lines += ["", "The recipe:", "", recipe_text(found).rstrip()]
    click.echo("\n".join([*lines, *(f"{place} is written." for place in written)]))
    if out is not None:
        click.echo(f"Next: edgexfer run {out}")


def _write(found: Advice, out: Path) -> tuple[Path, ...]:
    """Write the recipe, the drawing of the layers and the page of foreign pictures."""
    from edgexfer.advise.advice import recipe_text
    from edgexfer.advise.sheet import draw_layers, write_sheet
    from edgexfer.core.files import make_dir, write_atomic
    from edgexfer.training.stage import open_data

    make_dir(out.absolute().parent)
    write_atomic(out, recipe_text(found))
    written = [out]
    if found.depth is not None:
        written.append(out.with_name(f"{out.stem}-layers.svg"))
        draw_layers(found.depth, written[-1])
    if found.distance is not None:
        written.append(out.with_name(f"{out.stem}-foreign.html"))
        train = open_data(found.recipe.data).splits["train"]
        write_sheet(train, found.foreign[:48], found.distance.verdict, written[-1])
    return tuple(written)


def _fleet(on: str | None) -> Any:
    if on is None:
        return None
    from edgexfer.remote.address import parse_addresses
    from edgexfer.remote.fleet import Fleet

    machines = parse_addresses(on)
    if len(machines) > 1:
        context = click.get_current_context()
        raise click.UsageError("--on names several machines, and one is measured on", context)
    return Fleet(machines, say=lambda text: click.echo(text, err=True))
