"""``edgexfer fewshot``: how far a handful of images per class would get."""

from __future__ import annotations

from typing import Any

import click

from edgexfer.cli.options import json_option, make_section, section_options
from edgexfer.recipe import DataSection, ModelSection


@click.command("fewshot")
@click.option("--data", "path", required=True, help="Folder of class folders, digits, or a .tar.")
@click.option("--model", required=True, help="A run, or a timm name with --pretrained.")
@click.option(
    "--shots", default="1,5,10", show_default=True, help="Training images of each class, a list."
)
@click.option("--episodes", default=100, show_default=True, help="Draws that are averaged.")
@click.option("--ways", type=int, help="Classes of an episode; without it, all.")
@click.option("--seed", default=0, show_default=True, help="Of all draws.")
@section_options(ModelSection, leave_out=("name", "options"))
@section_options(DataSection, leave_out=("path", "unlabelled"))
@json_option
def command(path: str, model: str, shots: str, as_json: bool, **given: Any) -> None:
    """Evaluate features with k images of each class, over many random draws of them.

    Nothing is trained: an image belongs to the class whose mean feature is nearest. To deploy such
    a head: edgexfer finetune --strategy prototype.

    Examples:
      edgexfer fewshot --data photos/ --model resnet18 --pretrained
      edgexfer fewshot --data photos/ --model runs/pretrained --shots 1,5 --episodes 200 --ways 5
    """
    import json

    from edgexfer.core.codec import encode
    from edgexfer.core.errors import RecipeError
    from edgexfer.transfer.fewshot import Protocol, few_shot

    try:
        counts = tuple(int(part) for part in shots.split(","))
    except ValueError as error:
        raise RecipeError(
            f"--shots {shots}: is not a list of counts", "write --shots 1,5,10"
        ) from error
    protocol = Protocol(counts, given["episodes"], given["ways"], given["seed"])
    section = make_section(ModelSection, given, name=model)
    rows = few_shot(make_section(DataSection, given, path=path), section, protocol)
    if as_json:
        click.echo(json.dumps(encode(rows), indent=2))
        return
    click.echo(f"{rows[0].ways} classes, {rows[0].episodes} episodes")
    for row in rows:
        click.echo(
            f"{row.shots:6d} of each class: {row.top1_pct:6.2f} % "
            f"(95 % interval {row.low_pct:.1f} to {row.high_pct:.1f})"
        )
