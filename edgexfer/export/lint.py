"""Lint: does an ONNX file keep the rules of a target's parser and hardware?

It works on any ONNX file, and runs none. The rules are in ``rules/``, by theme.
"""

from __future__ import annotations

from pathlib import Path

from edgexfer.core.errors import ModelError, first_line
from edgexfer.core.profile import HardwareProfile
from edgexfer.export.flavour import default_row, find_row
from edgexfer.export.rules.dla import DLA_RULES
from edgexfer.export.rules.form import FORM_RULES
from edgexfer.export.rules.numbers import NUMBER_RULES
from edgexfer.export.rules.quantized import QUANTIZED_RULES
from edgexfer.export.rules.subject import Finding, Graph, Target
from edgexfer.models.onnxfile import external_files, read_onnx

RULES = (*FORM_RULES, *QUANTIZED_RULES, *NUMBER_RULES, *DLA_RULES)
_ORDER = ("error", "warning", "note")


def lint(path: Path, target: Target) -> list[Finding]:
    """Return what is wrong with a file for a target, errors first.

    Raises:
        ModelError: it is not an ONNX file, was cut short, or keeps weights at an unsafe place.
    """
    import onnx

    model = read_onnx(path)
    beside = tuple(file.name for file in external_files(path, model))
    try:
        if beside:
            onnx.load_external_data_for_model(model, str(path.parent))
        graph = Graph(model, beside)
        found = [finding for rule in RULES for finding in rule(graph, target)]
    except (onnx.checker.ValidationError, LookupError, TypeError, ValueError) as error:
        # A node without the inputs that its operator needs or with an attribute of another kind; a
        # tensor shorter than it says, or of a type that there is not.
        raise ModelError(f"{path}: is damaged ({first_line(error)})", "export it again") from error
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


def lint_target(profile: HardwareProfile, release: str | None = None) -> Target:
    """Return what to lint for: a profile with one of its software releases.

    Args:
        profile: the hardware target.
        release: name of a stack row; ``None`` for the one that exports are made for.

    Raises:
        ProfileError: the profile has no such row.
    """
    row = default_row(profile) if release is None else find_row(profile, release)
    return Target(profile, row)
