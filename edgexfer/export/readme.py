"""The README of a bundle: what the folder holds, and what to type on the device."""

from __future__ import annotations

from collections.abc import Sequence

from edgexfer.core.bundle import Artefact, Choice, Rung
from edgexfer.core.model import ModelCard
from edgexfer.core.profile import HardwareProfile
from edgexfer.export.jetson import instructions


def bundle_readme(
    card: ModelCard,
    profiles: Sequence[HardwareProfile],
    artefacts: Sequence[Artefact],
    choices: Sequence[Choice] = (),
    parity: Sequence[Rung] = (),
) -> str:
    """Return the README as Markdown.

    Args:
        card: of the model.
        profiles: the targets.
        artefacts: of all targets.
        choices: of a precision, for the targets where one was made.
        parity: how each artefact compares with the model, with its accuracy.
    """
    verdicts = {choice.target: choice.verdict for choice in choices}
    height, width = card.preprocess.size
    parts = [
        f"# {card.name}: {len(card.classes)} classes, {height}×{width} pixels\n",
        "Sealed by `edgexfer export`: `manifest.json` lists every file with its hash, how an image "
        "becomes an input, and what each artefact scored when it was made.\n",
        "`edgexfer.pyz` is the device side. It needs Python 3.8 or newer, numpy and the runtime, "
        "nothing of edgexfer:\n",
        "```sh\npython3 edgexfer.pyz verify .    # hashes, preprocess, golden outputs\n```\n",
    ]
    for profile in profiles:
        own = [a for a in artefacts if a.target == profile.name]
        parts.append(_section(profile, own, card, verdicts.get(profile.name), parity))
    return "\n".join(parts)


def _section(
    profile: HardwareProfile,
    artefacts: list[Artefact],
    card: ModelCard,
    verdict: str | None,
    parity: Sequence[Rung],
) -> str:
    lines = [f"## {profile.title} (`{profile.name}`)\n"]
    if verdict is not None:
        lines.append(f"{verdict}.\n")
    if not profile.seen_on_hardware:
        lines.append("**Provided, not measured on hardware.**\n")
    lines.append("| artefact | file | MB | quantization |\n|---|---|---|---|")
    for a in artefacts:
        size = sum(entry.bytes for entry in a.files) / 1e6
        lines.append(f"| `{a.name}` | `{a.files[0].path}` | {size:.2f} | {a.scheme or 'none'} |")
    lines.append("")
    lines += _accuracy(artefacts, parity)
    if profile.backend == "tensorrt":
        lines.append(instructions(profile, artefacts, card.preprocess))
    else:
        lines.append(_commands(profile))
    return "\n".join(lines) + "\n"


def _accuracy(artefacts: list[Artefact], parity: Sequence[Rung]) -> list[str]:
    """Return what each artefact scored where it was made, as a table."""
    found = [(a, rung) for a in artefacts for rung in parity if _is_of(rung, a)]
    if not found:
        return []
    lines = [
        "Accuracy on this bundle's images, where it was made:\n",
        "| artefact | top-1 | lost, in points | 95 % interval | run |\n|---|---|---|---|---|",
    ]
    for artefact, rung in found:
        where = rung.name.partition(", ")[2] or "by its own runtime"
        interval = f"{rung.drop_low_pt:.2f} to {rung.drop_high_pt:.2f}"
        lines.append(
            f"| `{artefact.name}` | {rung.top1_pct:.2f} % | {rung.drop_pt:.2f} | {interval} "
            f"| {where} |"
        )
    return [*lines, ""]


def _is_of(rung: Rung, artefact: Artefact) -> bool:
    """Tell whether a rung has an artefact's accuracy; after a comma its name says where it ran."""
    own = rung.name.partition(", ")[0] == f"{artefact.target} {artefact.precision}"
    return own and rung.top1_pct is not None


def _commands(profile: HardwareProfile) -> str:
    row = next((r for r in profile.stack if r.default), None)
    version = f"=={row.runtime_version}" if row else ""
    return "\n".join(
        [
            "```sh",
            f"pip install numpy {profile.backend}{version}    # on the device, in a venv",
            "python3 edgexfer.pyz bench . --out ../bench  # accuracy and latency, as records",
            "python3 edgexfer.pyz bench . --scenario offline --out ../offline  # images per second",
            "```",
        ]
    )
