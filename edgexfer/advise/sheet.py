"""What advice shows beside its text: the most foreign pictures, and the layers as a drawing."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgexfer.advise.layers import Depth
from edgexfer.core.errors import DataError
from edgexfer.core.files import write_atomic
from edgexfer.data.decode import decode

if TYPE_CHECKING:
    from edgexfer.data.dataset import Split

_SIDE = 96
# Nothing is fetched: the pictures are in the page itself.
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px system-ui, sans-serif; margin: 2em; color-scheme: light dark }}
ul {{ display: flex; flex-wrap: wrap; gap: 1em; padding: 0; list-style: none }}
li {{ width: {side}px; font-size: 12px; overflow-wrap: anywhere }}
img {{ width: {side}px; height: {side}px; object-fit: contain }}
</style>
<h1>{title}</h1>
<p>{text}</p>
<ul>
{items}
</ul>
</html>
"""


def write_sheet(
    split: Split, shown: Sequence[tuple[str, float]], text: str, out: Path
) -> tuple[str, ...]:
    """Write the most foreign pictures as one HTML page that opens offline.

    Args:
        split: has the pictures.
        shown: key of each picture and how foreign it is, in the order of the page.
        text: a sentence that stands above them.
        out: the file.

    Returns:
        The keys that are shown; a picture that cannot be decoded is left out.

    Raises:
        DiskError: the file cannot be written.
    """
    from edgexfer.report.words import clean

    places = {key: i for i, key in enumerate(split.keys)}
    items, kept = [], []
    for key, value in shown:
        try:
            data = _thumbnail(split, places[key])
        except DataError:
            continue
        name = escape(clean(key))
        items.append(
            f'<li><img alt="{name}" src="data:image/png;base64,{data}"><br>{value:.2f} {name}</li>'
        )
        kept.append(key)
    title = "The most foreign pictures"
    page = _PAGE.format(title=title, side=_SIDE, text=escape(clean(text)), items="\n".join(items))
    write_atomic(out, page)
    return tuple(kept)


def draw_layers(depth: Depth, out: Path) -> None:
    """Draw the accuracy of each layer's probe as SVG.

    Raises:
        DiskError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    places = range(len(depth.probes))
    top = [p.top1_pct for p in depth.probes]
    low = [p.top1_pct - p.low_pct for p in depth.probes]
    high = [p.high_pct - p.top1_pct for p in depth.probes]
    axes.errorbar(places, top, [low, high], fmt="o-", capsize=3, label="linear probe")
    axes.axhline(depth.chance_pct, linestyle=":", color="gray", label="largest class")
    at = [p.layer for p in depth.probes].index(depth.until)
    axes.axvline(at, linestyle="--", color="gray", label="freeze up to here")
    axes.set_xticks(places, [p.layer for p in depth.probes], rotation=30, ha="right")
    axes.set_ylabel("cross-validated accuracy in %, 95 % interval")
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    write_atomic(out, drawn.getvalue())


def _thumbnail(split: Split, place: int) -> str:
    from PIL import Image

    found: Any = split.read(place)
    image = decode(found, split.keys[place]).image if isinstance(found, bytes) else found
    picture = Image.fromarray(image)
    picture.thumbnail((_SIDE, _SIDE))
    data = io.BytesIO()
    picture.save(data, "png")
    return base64.b64encode(data.getvalue()).decode()
