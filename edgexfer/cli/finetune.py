"""``edgexfer finetune``: train a teacher on your images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edgexfer.cli.options import json_option, key_values, make_section, section_options
from edgexfer.core.errors import InputError, MachineError
from edgexfer.recipe import DataSection, ModelSection, TeacherSection, TrainSection

F = TypeVar("F", bound=Callable[..., Any])


def _list_strategies(ctx: click.Context, option: click.Parameter, asked: bool) -> None:
    """Print each strategy with its options, and end."""
    del option
    if not asked:
        return
    from edgexfer.cli.strategies import strategy_lines

    click.echo("\n".join(strategy_lines()))
    ctx.exit()


def training_options(function: F) -> F:
    """Add the options that say what is trained on which images, and how."""
    for option in reversed(
        (
            click.option(
                "--data", "path", required=True, help="Folder of class folders, digits, or a .tar."
            ),
            click.option(
                "--model", required=True, help="A timm name, or resnet20, resnet56, resnet32x4, ..."
            ),
            click.option("--strategy", help="See finetune --list-strategies.  [default: full]"),
            click.option(
                "--option", "options", multiple=True, help="KEY=VALUE of the strategy, repeatable."
            ),
            section_options(ModelSection, leave_out=("name", "options")),
            section_options(TrainSection),
            section_options(DataSection, leave_out=("path",)),
        )
    ):
        function = option(function)
    return function


def make_teacher(given: dict[str, Any]) -> TeacherSection:
    """Build the section of what is trained from the options of ``training_options``.

    Raises:
        RecipeError: naming each that is wrong.
    """
    # ``options`` are the strategy's here; those of the architecture are for recipes.
    architecture = make_section(ModelSection, {**given, "options": None}, name=given["model"])
    return make_section(
        TeacherSection,
        given,
        model=architecture,
        train=make_section(TrainSection, given),
        strategy_options=key_values(given["options"], "--option"),
    )


@click.command("finetune")
@training_options
@section_options(TeacherSection, leave_out=("model", "strategy", "strategy_options", "train"))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@click.option(
    "--list-strategies",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_strategies,
    help="Explain all strategies and their options.",
)
@json_option
def command(out: Path, as_json: bool, **given: Any) -> None:
    r"""Fine-tune a teacher and measure it on the test images.

    With --guard the same model is also trained from scratch, and as a probe, into OUT-guard; exit 1
    where the source weights are shown to hurt.

    The same command again goes on where it stopped. On several GPUs:
    torchrun --nproc-per-node 4 -m edgexfer finetune ...

    Examples:
      edgexfer finetune --data digits --model resnet56 --strategy scratch --out runs/teacher
      edgexfer finetune --data photos/ --model resnet50 --pretrained --out runs/teacher
      edgexfer finetune --data photos/ --model resnet50 --weights resnet50.safetensors \
          --strategy freeze --option until=layer2 --epochs 5 --lr 3e-4 --out runs/teacher
      edgexfer finetune --data photos/ --model resnet50 --pretrained --guard --seeds 3 \
          --out runs/teacher
      edgexfer finetune --list-strategies
    """
    from edgexfer.cli.show import show_run
    from edgexfer.transfer.guard import finetune_all, refuse_harm

    data = make_section(DataSection, given)
    info, sweep = finetune_all(data, make_teacher(given), out)
    following = (
        f"edgexfer distill --data {given['path']} --teacher {out} --student NAME --out runs/student"
    )
    weights = given["weights"]
    distance = _how_far(weights, data.path) if sweep is not None and weights is not None else None
    show_run(out, info, as_json=as_json, following=following, sweep=sweep, distance=distance)
    refuse_harm(sweep, out)


def _how_far(weights: str, path: str) -> str:
    """Say how far the pictures behind some weights are from those that they were tried on."""
    from edgexfer.advise.distance import distance_of_run

    try:
        return f"The source's pictures beside yours: {distance_of_run(weights, path).verdict}"
    except (InputError, MachineError) as error:
        return (
            f"How far the source's pictures are from yours is not known ({error.what}); "
            f"`edgexfer advise --source {weights} --source-data FOLDER` measures it."
        )
