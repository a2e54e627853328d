"""``edgexfer cluster``: what belongs together in a folder without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgexfer.cli.options import json_option, make_section, section_options
from edgexfer.recipe import DataSection, ModelSection

if TYPE_CHECKING:
    from edgexfer.transfer.cluster import Clustering

_SPLITS = ("path", "val", "test", "split_seed", "train_limit", "unlabelled", "labels")


@click.command("cluster")
@click.option("--data", "path", required=True, help="Folder of images, at any depth.")
@click.option("--model", required=True, help="A run, or a timm name with --pretrained.")
@click.option(
    "--clusters",
    type=click.IntRange(min=2),
    help="How many; without it, the number of the best silhouette.",
)
@click.option("--seed", default=0, show_default=True, help="Of the first centres.")
@section_options(ModelSection, leave_out=("name", "options"))
@section_options(DataSection, leave_out=_SPLITS)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the result.")
@json_option
def command(
    path: str,
    model: str,
    clusters: int | None,
    seed: int,
    out: Path,
    as_json: bool,
    **given: Any,
) -> None:
    """Sort pictures without labels into clusters, with a page that shows them and a table.

    Where the pictures lie in class folders, also says how far the clusters are the classes.

    Examples:
      edgexfer cluster --data camera/ --model runs/teacher --out clusters
      edgexfer cluster --data camera/ --model resnet18 --pretrained --clusters 8 --out clusters
    """
    import json

    from edgexfer.core.codec import encode
    from edgexfer.transfer.cluster import PAGE, TABLE, cluster

    section = make_section(ModelSection, given, name=model)
    data = make_section(DataSection, given, path=path)
    found = cluster(data, section, out, clusters=clusters, seed=seed)
    if as_json:
        click.echo(json.dumps(encode(found), indent=2))
        return
    click.echo("\n".join([*_lines(found), f"Written: {out / PAGE}, {out / TABLE}"]))


def _lines(found: Clustering) -> list[str]:
    lines = [
        f"{len(found.sizes)} clusters of {found.images} images, silhouette {found.silhouette:.2f}"
    ]
    if found.purity is not None:
        lines.append(f"by folders: purity {100 * found.purity:.1f} %, NMI {found.nmi:.2f}")
    for number, size in enumerate(found.sizes):
        folders = found.folders[number] if found.folders else {}
        most = ", ".join(f"{name} {count}" for name, count in list(folders.items())[:5])
        lines.append(f"  cluster {number}: {size} images" + (f" ({most})" if most else ""))
    return lines
