"""A learning curve as a picture that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgexfer.core.files import write_atomic


def draw_curve(
    points: Sequence[tuple[int, float, float, float]],
    promise: tuple[int, float, float, float],
    out: Path,
) -> None:
    """Draw accuracy over the number of training images, and what more of them promise, as SVG.

    Args:
        points: training images, and accuracy with the ends of its interval, in percent.
        promise: the same for a number of images that was not trained on.
        out: the file.
    """
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for label, some, style in (("measured", points, "o-"), ("fitted", [promise], "s")):
        images = [p[0] for p in some]
        low, high = [p[1] - p[2] for p in some], [p[3] - p[1] for p in some]
        axes.errorbar(images, [p[1] for p in some], [low, high], fmt=style, capsize=3, label=label)
    axes.set_xscale("log", base=2)
    ticks = [*(p[0] for p in points), promise[0]]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("training images")
    axes.set_ylabel("test accuracy in %, 95 % interval")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    write_atomic(out, drawn.getvalue())
