"""The report: one HTML page that holds all it shows and opens offline; Markdown and CSV beside it.

The page asks nobody for anything: its policy refuses every request, and every script and style but
the two that it carries, which it names by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgexfer import __version__
from edgexfer.core.errors import InputError
from edgexfer.core.files import make_dir, refuse_foreign, write_atomic
from edgexfer.core.record import STATUSES
from edgexfer.report import accuracy, beside, view, words
from edgexfer.report.changes import changes
from edgexfer.report.collect import Found, collect
from edgexfer.report.layers import layer_parts
from edgexfer.report.lineage import lineage
from edgexfer.report.rows import Row
from edgexfer.report.verdict import speed_text, teacher_helped

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
_LONGEST = 2000


def build(inputs: Sequence[Path], out: Path) -> Path:
    """Draw everything found in the places named into one page, with Markdown and CSV beside it.

    The same input gives the same page, to the byte.

    Args:
        inputs: trips, runs, bundles, folders of records, record files.
        out: the HTML file to write; its name with ``.md`` and ``.csv`` is written as well.

    Returns:
        ``out``.

    Raises:
        InputError: a place does not exist, none holds anything to report, ``out`` is no HTML file,
            a file beside it is not the report's, or it lies in a bundle.
        DiskError: the page cannot be written.
    """
    out = Path(out)
    if out.suffix not in (".html", ".htm"):
        raise InputError(f"{out}: is not the name of an HTML page", "let it end in .html")
    markdown, table = out.with_suffix(".md"), out.with_suffix(".csv")
    refuse_foreign(markdown, beside.MARK)
    refuse_foreign(table, "record,status,reasons")
    found = collect([Path(p) for p in inputs])
    _refuse_inside(out, found)
    page, lines = _values(found)
    text = environment().get_template("page.html").render(page)
    make_dir(out.absolute().parent)
    write_atomic(out, text)
    write_atomic(markdown, beside.to_markdown(page))
    write_atomic(table, beside.to_csv(lines, [error.what for error in found.faults]))
    return out


def _refuse_inside(out: Path, found: Found) -> None:
    """Keep a page out of the bundles that it shows: their manifests do not list it."""
    for bundle in found.bundles:
        if bundle.path.resolve() in out.resolve().parents:
            raise InputError(
                f"{out}: lies in the bundle {bundle.path}, whose seal it would break",
                "choose another --out",
            )


def _values(found: Found) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what the templates show, and each record as a flat line."""
    sections, slots = view.make_sections(found)
    rows = [row for section in sections for row in section.group.rows]
    runs = view.run_lines(found)
    image_sets = accuracy.image_sets(found, rows)
    explained = layer_parts(found)
    lines = [beside.figures(found, row, s) for s in sections for row in s.group.rows]
    tips = [{**line, "tip": _tip(row)} for line, row in zip(lines, rows, strict=True)]
    page = {
        "title": found.title,
        "summary": _summary(found),
        "sections": sections,
        "fleets": view.fleets(sections, slots),
        "apart": any(section.group.apart for section in sections),
        "helped": teacher_helped(found),
        "cautions": view.cautions(found, sections),
        "task_tables": accuracy.task_tables(rows),
        "image_sets": image_sets,
        "run_hops": accuracy.run_hops(found),
        "changes": [part for images in image_sets for part in changes(images)],
        "ladders": [b for b in found.bundles if b.manifest.parity],
        "explained": explained,
        "runs": runs,
        "curves": view.draw_curves(runs),
        "sweeps": view.sweep_parts(found),
        "absent": view.absent(sections),
        "lineage": lineage(found, rows),
        "slots": slots,
        "statuses": STATUSES,
        "version": __version__,
        "island": _island(tips),
    }
    for name, file in (("style", "page.css"), ("script", "page.js")):
        page.update(inlined(name, (TEMPLATES / file).read_text(encoding="utf-8")))
    return page, lines


def inlined(name: str, text: str) -> dict[str, Any]:
    """Return a style or script of our own as trusted text, and the hash that the policy names."""
    from markupsafe import Markup

    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {name: Markup(text), f"{name}_hash": Markup(f"sha256-{digest}")}


def _island(value: Sequence[Mapping[str, Any]]) -> Any:
    """Return a value as JSON that no HTML parser takes for markup."""
    from markupsafe import Markup

    # Beyond ASCII json.dumps escapes by itself, U+2028 and U+2029 with it.
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def environment() -> Environment:
    """Return the templates' environment, in which nothing reaches a page unescaped by default."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        return value if isinstance(value, Markup) else words.clean(value, _LONGEST)

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        ms=words.milliseconds,
        size=words.size,
        energy=words.energy,
        percent=words.percent,
        times=words.times,
        signed=words.signed,
        digits=words.significant,
        rate=lambda value: words.MISSING if value is None else words.significant(value),
        heat=lambda share: round(10 * (1 - share)),
        tied=words.tied,
        made_here=Markup,
    )
    return environment


def _tip(row: Row) -> list[str]:
    """Return what the page says of a point in a chart, line by line."""
    said = [f"{row.key}: {row.artefact}", row.model, speed_text(row)]
    if row.record.accuracy:
        a = row.record.accuracy
        interval = f"{words.percent(a.low_pct)} to {words.percent(a.high_pct)}"
        said.append(f"{words.percent(a.top1_pct)} right ({interval})")
    said += [words.size(row.size_bytes), f"record: {row.record.status}"]
    return [words.clean(line) for line in said]


def _summary(found: Found) -> str:
    kinds = ((found.runs, "run"), (found.bundles, "bundle"), (found.records, "record"))
    counts = [words.count(len(of), name) for of, name in kinds if of]
    stamps = sorted(f.record.created_utc for f in found.records if f.record.created_utc)
    moments = dict.fromkeys(_moment(stamp) for stamp in (*stamps[:1], *stamps[-1:]))
    when = f"; measured {' to '.join(moments)}" if stamps else ""
    return (words.joined(counts) or words.count(len(found.sweeps), "sweep")) + when


def _moment(stamp: str) -> str:
    """Return an ISO 8601 time in UTC to the minute, as people write it."""
    return f"{stamp[:10]} {stamp[11:16]} UTC" if stamp.endswith("Z") else stamp
