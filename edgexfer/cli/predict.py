"""``edgexfer predict``: what a bundle says of some images, on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from edgexfer.cli.options import json_option


@click.command("predict")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--artefact", help="Which artefact; without it, the first that can run here.")
@click.option(
    "--top",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="How many classes to show.",
)
@json_option
def command(
    bundle: Path, images: tuple[Path, ...], artefact: str | None, top: int, as_json: bool
) -> None:
    """Classify images with the very artefact that was measured, in each of its tasks.

    Examples:
      edgexfer predict bundle cat.jpg dog.jpg
      edgexfer predict bundle photo.jpg --artefact x86-openvino-int8 --json
    """
    import json

    from edgexfer.core.codec import encode
    from edgexfer.core.errors import DataError
    from edgexfer.core.tasks import spans
    from edgexfer.export.load import load_bundle

    with load_bundle(bundle, artefact=artefact) as loaded:
        for image in images:
            if not image.is_file():
                problem = "is a folder" if image.is_dir() else "no such file"
                raise DataError(f"{image}: {problem}", "name image files")
        predictions = [loaded.predict(image) for image in images]
    if as_json:
        click.echo(json.dumps(encode(predictions), indent=2))
        return
    for image, prediction in zip(images, predictions, strict=True):
        found = list(prediction.probabilities.items())
        parts = spans(loaded.manifest.tasks, len(found))
        lines = [sorted(found[a:b], key=lambda item: -item[1])[:top] for a, b in parts]
        told = (", ".join(f"{name} {100 * p:.1f} %" for name, p in line) for line in lines)
        click.echo(f"{image}: " + "; ".join(told))
