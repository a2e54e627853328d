"""Why INT8 loses what it loses: a table, a plot and JSON for each target, beside the bundle.

They are written whether the export passes or not; figures are made in ``quantize/layers.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgexfer.core.bundle import Rung
from edgexfer.core.codec import encode
from edgexfer.core.explanation import SCHEMA, Explanation, LayerNoise, Step
from edgexfer.core.files import make_dir, write_json
from edgexfer.core.profile import HardwareProfile
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.layers import measure_layers, responsible
from edgexfer.quantize.search import first_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Rows of the table; the JSON has all layers.
_ROWS = 12
_RC: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edgexfer",
    "text.parse_math": False,
    "font.size": 8,
    "figure.constrained_layout.use": True,
}


def explain(
    files: tuple[Path, Path],
    profile: HardwareProfile,
    calibration: Calibration,
    rungs: tuple[Rung, Rung],
    steps: Sequence[Step],
) -> Explanation:
    """Measure every layer.

    Args:
        files: the FP32 ONNX file, and a Q/DQ file with every one of its nodes.
        profile: the target.
        calibration: the images.
        rungs: of plain calibration, and of what was taken in the end.
        steps: what was tried in between.

    Raises:
        BackendError: ONNX Runtime cannot run a graph.
    """
    images = first_images(calibration)
    layers = measure_layers(files[1], files[0], images)
    stand_in = profile.quantization.scheme != "qdq"
    note = "layers of a Q/DQ file of the same scheme, which stands for NNCF's" if stand_in else ""
    return Explanation(
        schema=SCHEMA,
        target=profile.name,
        n=len(images),
        first_failed=None if rungs[0].passed else rungs[0],
        passed=rungs[1].passed,
        steps=tuple(steps),
        responsible=tuple(layer.node for layer in responsible(layers)),
        layers=tuple(layers),
        note=note,
    )


def write_explanation(folder: Path, explanation: Explanation) -> None:
    """Write ``TARGET.json`` and ``TARGET.svg``; earlier ones are replaced.

    Raises:
        DiskError: the folder cannot be written.
    """
    make_dir(folder)
    write_json(folder / f"{explanation.target}.json", encode(explanation))
    (folder / f"{explanation.target}.svg").write_text(draw(explanation), encoding="utf-8")


def clear_explanations(folder: Path) -> None:
    """Delete what an earlier export has written there."""
    for place in (*folder.glob("*.json"), *folder.glob("*.svg")):
        place.unlink()


def to_text(explanation: Explanation) -> str:
    """Write an explanation as a table for people: the worst layers first."""
    lines = [explanation.in_words()]
    if explanation.note:
        lines.append(explanation.note)
    lines += [f"  tried {step.in_words()}" for step in explanation.steps]
    worst = sorted(explanation.layers, key=lambda layer: -layer.share_pct)[:_ROWS]
    width = max((len(layer.node) for layer in worst), default=0)
    lines.append(
        f"  {'layer':{width}}  {'operator':14}  noise %  alone dB  weight dB  input dB  output dB"
    )
    for layer in worst:
        figures = (layer.alone_db, layer.weight_db, layer.input_db, layer.output_db)
        cells = "  ".join(
            f"{'-' if value is None else format(value, '.1f'):>{size}}"
            for value, size in zip(figures, (8, 9, 8, 9), strict=True)
        )
        mark = " <" if layer.node in explanation.responsible else ""
        lines.append(
            f"  {layer.node:{width}}  {layer.op_type:14}  {layer.share_pct:7.1f}  {cells}{mark}"
        )
    rest = len(explanation.layers) - len(worst)
    if rest:
        lines.append(f"  and {rest} quieter layers")
    return "\n".join(lines)


def draw(explanation: Explanation) -> str:
    """Draw the layers in the order of the graph, as an SVG document; the same gives the same."""
    import io

    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    layers = explanation.layers
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(7.0, 1.2 + 0.16 * len(layers)))
        FigureCanvasSVG(figure)
        ratios, shares = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
        _draw_ratios(ratios, layers)
        marked = ["#c0392b" if x.node in explanation.responsible else "#7f8c8d" for x in layers]
        shares.barh(range(len(layers)), [x.share_pct for x in layers], color=marked)
        shares.set_xlabel("share of the noise, %")
        figure.suptitle(f"INT8 on {explanation.target}, layer by layer, n={explanation.n}")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _draw_ratios(axes: Axes, layers: Sequence[LayerNoise]) -> None:
    places = range(len(layers))
    kinds = (
        ("output_db", "o-", "output"),
        ("weight_db", "s", "weight"),
        ("alone_db", "x", "alone"),
    )
    for name, style, label in kinds:
        values = [getattr(layer, name) for layer in layers]
        numbers = [float("nan") if value is None else value for value in values]
        axes.plot(numbers, places, style, markersize=3, linewidth=0.8, label=label)
    axes.set_yticks(places, [f"{layer.node} ({layer.op_type})" for layer in layers], fontsize=6)
    axes.invert_yaxis()
    axes.set_xlabel("signal to noise, dB")
    axes.grid(visible=True, linewidth=0.4)
    axes.legend(fontsize=7)
