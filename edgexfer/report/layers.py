"""What INT8 does to each layer, where ``export --explain`` has written it down beside a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgexfer.core.errors import EdgexferError
from edgexfer.core.explanation import (
    Explanation,
    LayerNoise,
    explanation_folder,
    read_explanations,
)
from edgexfer.report.collect import Found, FoundBundle
from edgexfer.report.draw import HEIGHT, MUTED, SERIES, WARN, WIDTH, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LayersPart:
    """The layers of one bundle on one target.

    Attributes:
        bundle: the bundle.
        explanation: what was measured.
        drawing: signal to noise and share of the noise of each layer, by its number.
    """

    bundle: FoundBundle
    explanation: Explanation
    drawing: str

    @property
    def worst_first(self) -> list[tuple[int, LayerNoise]]:
        """The layers with their numbers in the order of the graph, the noisiest first."""
        numbered = list(enumerate(self.explanation.layers, 1))
        return sorted(numbered, key=lambda item: -item[1].share_pct)


def layer_parts(found: Found) -> list[LayersPart]:
    """Return the explanations of all bundles; what cannot be read becomes a fault."""
    parts = []
    for bundle in found.bundles:
        try:
            explained = read_explanations(explanation_folder(bundle.path.resolve()))
        except EdgexferError as error:
            found.faults.append(error)
            continue
        parts += [LayersPart(bundle, each, _draw(each)) for each in explained if each.layers]
    return parts


def _draw(explanation: Explanation) -> str:
    layers = explanation.layers
    numbers = range(1, len(layers) + 1)
    blamed = [layer.node in explanation.responsible for layer in layers]

    def fill(figure: Figure) -> None:
        ratios, shares = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        _draw_ratios(ratios, layers)
        colours = [WARN if one else MUTED for one in blamed]
        shares.bar(numbers, [layer.share_pct for layer in layers], color=colours)
        shares.set_ylabel("noise, %")
        shares.set_xlabel("layer, in the order of the graph")
        figure.legend(loc="outside upper left", ncols=3, frameon=False, handlelength=1.4)

    marked = ", ".join(str(n) for n, one in zip(numbers, blamed, strict=True) if one)
    title = f"Signal to noise of each of {len(layers)} layers; most of the noise is of {marked}"
    return drawing(fill, title, (WIDTH, HEIGHT))


def _draw_ratios(axes: Axes, layers: tuple[LayerNoise, ...]) -> None:
    kinds = (("output_db", "o-"), ("weight_db", "s"), ("alone_db", "x"))
    for slot, (name, style) in enumerate(kinds):
        values = [getattr(layer, name) for layer in layers]
        known = [float("nan") if value is None else value for value in values]
        label, colour = name.removesuffix("_db"), SERIES[slot]
        numbers = range(1, len(layers) + 1)
        axes.plot(numbers, known, style, color=colour, markersize=3, linewidth=0.8, label=label)
    axes.set_ylabel("signal to noise, dB")
