"""``edgexfer curve``: what more images would gain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgexfer.cli.finetune import make_teacher, training_options
from edgexfer.cli.options import json_option, make_section
from edgexfer.recipe import DataSection

if TYPE_CHECKING:
    from edgexfer.transfer.curve import Curve


@click.command("curve")
@training_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the runs.")
@click.option(
    "--fractions",
    default="0.125,0.25,0.5,1",
    show_default=True,
    help="Parts of the training images to train on, at least three.",
)
@click.option("--seeds", default=2, show_default=True, help="Trainings of each part.")
@click.option(
    "--task", help="Of several tasks, this one's curve; without it, that of all together."
)
@json_option
def command(
    out: Path, fractions: str, seeds: int, task: str | None, as_json: bool, **given: Any
) -> None:
    """Train on growing parts of the images and say what twice as many would gain.

    Takes the options of finetune. The same command again goes on where it stopped. With --task it
    draws the trainings that are there for another task.

    Examples:
      edgexfer curve --data photos/ --model resnet18 --pretrained --epochs 10 --out runs/curve
    """
    import json

    from edgexfer.core.codec import encode
    from edgexfer.core.errors import RecipeError
    from edgexfer.report.curve import draw_curve
    from edgexfer.transfer.curve import learning_curve

    try:
        parts = tuple(float(part) for part in fractions.split(","))
    except ValueError as error:
        raise RecipeError(
            f"--fractions {fractions}: is not a list of numbers",
            "write --fractions 0.125,0.25,0.5,1",
        ) from error
    data = make_section(DataSection, given)
    teacher = make_teacher(given)
    curve = learning_curve(data, teacher, out, fractions=parts, seeds=seeds, task=task)
    points = [(p.images, p.top1_pct, p.low_pct, p.high_pct) for p in curve.points]
    best = points[-1]
    gains = (curve.gain_pt, curve.gain_low_pt, curve.gain_high_pt)
    top, low, high = (min(best[1] + gain, 100.0) for gain in gains)
    draw_curve(points, (2 * best[0], top, low, high), out / "curve.svg")
    if as_json:
        click.echo(json.dumps({**encode(curve), "verdict": curve.verdict}, indent=2))
        return
    click.echo("\n".join([*_table(curve), curve.verdict, f"Drawn: {out / 'curve.svg'}"]))


def _table(curve: Curve) -> list[str]:
    return [
        f"{p.images:8d} training images: {p.top1_pct:6.2f} % "
        f"(95 % interval {p.low_pct:.1f} to {p.high_pct:.1f})"
        for p in curve.points
    ]
