"""``edgexfer lint``: which rules of a target does an ONNX file break?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgexfer.cli.options import json_option

if TYPE_CHECKING:
    from edgexfer.export.rules.subject import Finding


@click.command("lint")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--target", required=True, help="Hardware profile, by name or file.")
@click.option("--stack", "release", help="One of the profile's software releases, by name.")
@json_option
def command(model: Path, target: str, release: str | None, as_json: bool) -> int:
    """Check any ONNX file against the rules of a target; exit 1 if the target would refuse it.

    An error is what the target refuses or computes otherwise, a warning what is slower or riskier.

    Examples:
      edgexfer lint model.onnx --target jetson
      edgexfer lint model.onnx --target jetson --stack "JetPack 5.1" --json
    """
    import json

    from edgexfer.core.codec import encode
    from edgexfer.export.lint import lint, lint_target
    from edgexfer.models.onnxfile import examine
    from edgexfer.profiles import find_profile

    aim = lint_target(find_profile(target), release)
    examine(model)
    findings = lint(model, aim)
    if as_json:
        click.echo(json.dumps(encode(findings), indent=2))
    else:
        for line in _lines(findings):
            click.echo(line)
        counts = {s: sum(f.severity == s for f in findings) for s in ("error", "warning", "note")}
        said = ", ".join(f"{n} {s}{'' if n == 1 else 's'}" for s, n in counts.items() if n)
        click.echo(f"{model}: {said or 'nothing found'} for {aim.profile.name}, {aim.runtime}")
    return 1 if any(f.severity == "error" for f in findings) else 0


def _lines(findings: list[Finding]) -> list[str]:
    """Return a table; findings that differ in their node alone share one line."""
    from edgexfer.report.columns import aligned

    groups: dict[tuple[str, ...], list[str]] = {}
    for found in findings:
        key = (found.severity, found.rule, found.op, found.text, found.mend, found.source)
        groups.setdefault(key, []).append(found.node)
    heads = ("severity", "rule", "op", "node", "what", "mend", "source")
    rows = []
    for (severity, rule, op, text, mend, source), nodes in groups.items():
        more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
        cells = (severity, rule, op, nodes[0] + more, text, mend, source)
        rows.append(dict(zip(heads, cells, strict=True)))
    return [*aligned(heads, rows, set(heads)), ""] if rows else []
