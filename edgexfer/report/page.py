"""The report: one HTML page that holds all it shows, runs no script and opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgexfer import __version__
from edgexfer.core.files import make_dir, write_atomic
from edgexfer.core.record import STATUSES
from edgexfer.report import view, words
from edgexfer.report.collect import Found, collect
from edgexfer.report.rows import Row, upper_of
from edgexfer.report.verdict import teacher_helped

if TYPE_CHECKING:
    from jinja2 import Environment

_LONGEST = 2000


def build(inputs: Sequence[Path], out: Path) -> Path:
    """Draw everything found in the places named into one page.

    The same input gives the same page, to the byte.

    Args:
        inputs: trips, runs, bundles, folders of records, record files.
        out: the HTML file to write.

    Returns:
        ``out``.

    Raises:
        InputError: a place does not exist, or none holds anything to report.
        DiskError: the page cannot be written.
    """
    found = collect([Path(p) for p in inputs])
    sections, slots = view.make_sections(found)
    runs = view.run_lines(found)
    text = (
        _environment()
        .get_template("page.html")
        .render(
            title=found.title,
            summary=_summary(found),
            sections=sections,
            helped=teacher_helped(found),
            cautions=view.cautions(found, sections),
            ladders=[b for b in found.bundles if b.manifest.parity],
            runs=runs,
            curves=view.draw_curves(runs),
            sweeps=view.sweep_parts(found),
            absent=view.absent(sections),
            lineage=view.lineage(found, sections),
            slots=slots,
            statuses=STATUSES,
            bound=_bound,
            version=__version__,
        )
    )
    make_dir(Path(out).absolute().parent)
    write_atomic(out, text)
    return Path(out)


def _environment() -> Environment:
    """Return the templates' environment, in which nothing reaches the page unescaped by default."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        return value if isinstance(value, Markup) else words.tied(words.clean(value, _LONGEST))

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        ms=words.milliseconds,
        size=words.size,
        percent=words.percent,
        times=words.times,
        signed=words.signed,
        chart=Markup,
    )
    return environment


def _bound(row: Row, name: str) -> Any:
    """Return the 99 % upper bound of a percentile, or why it has none, as small print."""
    from markupsafe import Markup

    found = row.record.latency.get(name)
    if found is None or found.value is None:
        return ""
    upper = upper_of(found)
    text = f"≤ {words.milliseconds(upper)}" if upper is not None else found.reason or "no bound"
    return Markup("<small>{}</small>").format(words.clean(text))


def _summary(found: Found) -> str:
    counts = [
        words.count(len(found.runs), "run"),
        words.count(len(found.bundles), "bundle"),
        words.count(len(found.records), "record"),
    ]
    stamps = sorted(f.record.created_utc for f in found.records if f.record.created_utc)
    when = f"; measured {stamps[0]}" if stamps else ""
    if stamps and stamps[-1] != stamps[0]:
        when += f" to {stamps[-1]}"
    return words.joined(counts) + when
