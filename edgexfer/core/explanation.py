"""Why INT8 loses what it loses: the format ``edgexfer.explanation/1``, which lies beside a bundle.

The figures are made in ``quantize`` and ``export``; the terminal and the report show them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Tuple

from edgexfer.core.bundle import Rung
from edgexfer.core.codec import decode
from edgexfer.core.files import read_json

SCHEMA = "edgexfer.explanation/1"


@dataclass(frozen=True)
class LayerNoise:
    """Signal-to-noise ratios of one layer in dB, INT8 against FP32; ``None`` where equal or absent.

    Attributes:
        node: its name.
        op_type: its operator.
        weight_db: of its weight.
        input_db: of what it takes in the INT8 file, after quantization: all errors before it count.
        output_db: of what it gives there.
        alone_db: of the logits where this layer alone is quantized.
        share_pct: its share of the noise of all layers, each alone.
    """

    node: str
    op_type: str
    weight_db: Optional[float]
    input_db: Optional[float]
    output_db: Optional[float]
    alone_db: Optional[float]
    share_pct: float


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one file, against the FP32 model.

    Attributes:
        passed: whether it meets the limits.
        sqnr_db: signal-to-noise ratio of its logits; ``None`` where they are equal.
        agreement_pct: images with the same top-1 class.
        drop_pt: top-1 accuracy lost, in points.
        alike: whether the answers themselves meet their limits, whatever the accuracy does.
    """

    passed: bool
    sqnr_db: Optional[float]
    agreement_pct: float
    drop_pt: float
    alike: bool = True


@dataclass(frozen=True)
class Step:
    """One try.

    Attributes:
        name: what was tried, such as ``mse`` or ``mse, 3 nodes in float``.
        verdict: of the judge.
    """

    name: str
    verdict: Verdict

    def in_words(self) -> str:
        """Return the try with its figures, on one line."""
        verdict = self.verdict
        ratio = "equal" if verdict.sqnr_db is None else f"{verdict.sqnr_db:.1f} dB"
        return (
            f"{self.name}: {ratio}, agreement {verdict.agreement_pct:.1f} %, "
            f"drop {verdict.drop_pt:+.2f} points"
        )


@dataclass(frozen=True)
class Explanation:
    """What INT8 does to a model on one target.

    Attributes:
        schema: ``edgexfer.explanation/1``.
        target: name of the profile.
        n: training images that the layers are measured on.
        first_failed: the first rung that missed its limits, as it was measured; ``None`` where
            plain calibration has passed.
        passed: whether INT8 did in the end.
        steps: what was tried after that, on images held out.
        responsible: names of the fewest layers that make up most of the noise, the worst first.
        layers: all of them, in the order of the graph, under plain calibration.
        note: how far the layers are those of the target's own file; empty where they are just them.
    """

    schema: str
    target: str
    n: int
    first_failed: Optional[Rung]
    passed: bool
    steps: Tuple[Step, ...]
    responsible: Tuple[str, ...]
    layers: Tuple[LayerNoise, ...]
    note: str = ""

    def in_words(self) -> str:
        """Return what it comes to, on one line."""
        target, rung = self.target, self.first_failed
        if rung is None:
            return f"{target}: INT8 passes by plain calibration; n={self.n} training images"
        ratio = "equal" if rung.sqnr_db is None else f"{rung.sqnr_db:.1f} dB"
        drop = "" if rung.drop_pt is None else f", drop {rung.drop_pt:+.2f} points"
        end = "it passes in the end" if self.passed else "nothing that was tried passes"
        names = ", ".join(self.responsible[:5])
        return (
            f"{target}: first failing rung: {rung.name}, plain calibration ({ratio}, agreement "
            f"{rung.agreement_pct:.1f} %{drop}); {end}; most of the noise: {names}"
        )


def explanation_folder(out: Path) -> Path:
    """Return where the explanations of a bundle are, beside it, so that its seal holds."""
    return out.with_name(f"{out.name}.explain")


def read_explanations(folder: Path) -> List[Explanation]:
    """Read what was written into a folder; nothing where it does not exist."""
    places = sorted(folder.glob("*.json"))
    return [decode(Explanation, read_json(place), str(place)) for place in places]
