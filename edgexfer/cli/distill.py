"""``edgexfer distill``: train a compact student on the teacher's soft logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgexfer.cli.options import beside, json_option, make_section, section_options
from edgexfer.recipe import DataSection, ModelSection, StudentSection, TrainSection


@click.command("distill")
@click.option("--data", "path", required=True, help="Folder of class folders, digits, or a .tar.")
@click.option(
    "--teacher", required=True, type=click.Path(path_type=Path), help="The teacher's run."
)
@click.option("--student", required=True, help="A timm name, or resnet8, resnet20, resnet8x4, ...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@section_options(StudentSection, leave_out=("model", "train"))
@section_options(ModelSection, leave_out=("name", "options"))
@section_options(TrainSection)
@section_options(DataSection, leave_out=("path",))
@json_option
def command(path: str, teacher: Path, student: str, out: Path, as_json: bool, **given: Any) -> None:
    r"""Distil a student from a teacher's run and measure it on the test images.

    The loss is w_soft times the soft loss (which carries T squared) plus w_hard times cross
    entropy. With --control the same student is also trained without the teacher, into OUT-control.

    Examples:
      edgexfer distill --data digits --teacher runs/teacher --student resnet8 --out runs/student
      edgexfer distill --data photos/ --teacher runs/teacher --student mobilenetv4_conv_small \
          --temperature 4 --w-soft 0.9 --w-hard 0.1 --epochs 60 --control --out runs/student
    """
    from edgexfer.cli.show import show_control, show_run
    from edgexfer.distill.stage import distill

    architecture = make_section(ModelSection, given, name=student)
    train = make_section(TrainSection, given)
    section = make_section(StudentSection, given, model=architecture, train=train)
    data = make_section(DataSection, given, path=path)
    info = distill(data, teacher, section, out)
    following = f"edgexfer export {out} --target x86-onnxruntime --out bundle"
    if not (section.control and as_json):
        show_run(out, info, as_json=as_json, following=following)
    if section.control:
        place = beside(out, "-control")
        control = distill(data, None, section, place)
        if control.result:  # one of several processes of a training has none; the leader speaks
            show_control(out, place, (info, control), as_json=as_json)
