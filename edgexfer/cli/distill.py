"""``edgexfer distill``: train a compact student by its teacher, with all beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgexfer.cli.options import json_option, make_section, section_options
from edgexfer.recipe import DataSection, ModelSection, StudentSection, TrainSection


@click.command("distill")
@click.option("--data", "path", required=True, help="Folder of class folders, digits, or a .tar.")
@click.option(
    "--teacher",
    "teachers",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="A finished run, a bundle or an ONNX file; several are averaged.",
)
@click.option("--student", required=True, help="A timm name, or resnet8, resnet20, resnet8x4, ...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@section_options(StudentSection, leave_out=("model", "train"))
@section_options(ModelSection, leave_out=("name", "options"))
@section_options(TrainSection)
@section_options(DataSection, leave_out=("path",))
@json_option
def command(
    path: str, teachers: tuple[Path, ...], student: str, out: Path, as_json: bool, **given: Any
) -> None:
    r"""Distil a student from its teacher and measure it on the test images.

    The loss is a sum: each term has its weight in front, w_soft or its paper's where none is
    written, and w_hard weighs cross entropy. With --control the same student is also trained
    without the teacher, into OUT-control; with --seeds N or several losses (a,b,c) all of it is
    repeated in OUT-sweep and compared in one table, with intervals.

    Examples:
      edgexfer distill --data digits --teacher runs/teacher --student resnet8 --out runs/student
      edgexfer distill --data photos/ --teacher runs/teacher --student mobilenetv4_conv_small \
          --loss kd+hint@-1 --epochs 60 --views 10 --out runs/student
      edgexfer distill --data photos/ --teacher runs/teacher --student mobilenetv4_conv_small \
          --loss kd,dkd,dist --control --seeds 3 --views 10 --out runs/student
    """
    from edgexfer.cli.show import show_distillation
    from edgexfer.distill.sweep import distill_all

    architecture = make_section(ModelSection, given, name=student)
    train = make_section(TrainSection, given)
    section = make_section(StudentSection, given, model=architecture, train=train)
    data = make_section(DataSection, given, path=path)
    show_distillation(out, distill_all(data, teachers, section, out), as_json=as_json)
