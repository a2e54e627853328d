"""``edgexfer pretrain``: weights to start from, learned on pictures without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgexfer.cli.options import json_option, make_section, section_options
from edgexfer.recipe import DataSection, ModelSection, PretrainSection, TrainSection

# What needs labels or classes, or what the method does in its own way.
_LABELLED = (
    *("augment", "mixup", "cutmix", "label_smoothing", "patience", "views", "view_seed"),
    *("balance", "task_weights"),
)
_SPLITS = ("path", "val", "test", "split_seed", "train_limit", "unlabelled", "labels")


@click.command("pretrain")
@click.option("--data", "path", required=True, help="Folder of images, at any depth.")
@click.option("--model", required=True, help="A timm name, or resnet20, resnet56, resnet32x4, ...")
@section_options(PretrainSection, leave_out=("model", "train"))
@section_options(ModelSection, leave_out=("name", "options"))
@section_options(TrainSection, leave_out=(*_LABELLED, "accumulate"))
@section_options(DataSection, leave_out=_SPLITS)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the run.")
@json_option
def command(path: str, out: Path, as_json: bool, **given: Any) -> None:
    r"""Pre-train a model on pictures without labels; what folders are called does not matter.

    Keep the pictures that you will test on out of the folder. The same command again goes on where
    it stopped. On several GPUs: torchrun --nproc-per-node 4 -m edgexfer pretrain ...

    Examples:
      edgexfer pretrain --data camera/ --model resnet20 --epochs 100 --out runs/pretrained
      edgexfer finetune --data photos/ --model resnet20 --weights runs/pretrained \
          --out runs/teacher
    """
    import json

    from edgexfer.core.codec import encode
    from edgexfer.transfer.pretrain import pretrain

    section = make_section(
        PretrainSection,
        given,
        model=make_section(ModelSection, given, name=given["model"]),
        train=make_section(TrainSection, given),
    )
    info = pretrain(make_section(DataSection, given, path=path), section, out)
    if not info.result:
        return  # one of several processes of a training; the leader speaks for all
    if as_json:
        click.echo(json.dumps(encode(info), indent=2))
        return
    click.echo(
        f"{out}: {info.result['model']}, {info.result['parameters'] / 1e6:.2f} M parameters, "
        f"pre-trained on {info.result['images']} images without labels\n"
        f"Next: edgexfer finetune --data DATA --model {info.result['model']} "
        f"--weights {out} --out runs/teacher"
    )
