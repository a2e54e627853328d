"""A contact sheet: one HTML page of small pictures in groups, which holds all that it shows."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from edgexfer import __version__
from edgexfer.report.page import TEMPLATES, environment, inlined


@dataclass(frozen=True)
class Group:
    """Pictures that are shown together.

    Attributes:
        name: its heading.
        said: a line below it.
        pictures: name and JPEG of each.
    """

    name: str
    said: str
    pictures: Sequence[tuple[str, bytes]]


def contact_sheet(title: str, summary: str, groups: Sequence[Group]) -> str:
    """Return the page: no script, no request, and every name escaped.

    Args:
        title: of the page.
        summary: a line below it.
        groups: in the order of the page.
    """
    shown = [
        {
            "name": group.name,
            "said": group.said,
            "pictures": [
                {"name": name, "data": base64.b64encode(jpeg).decode()}
                for name, jpeg in group.pictures
            ],
        }
        for group in groups
    ]
    style = (TEMPLATES / "contact.css").read_text(encoding="utf-8")
    page = {"title": title, "summary": summary, "groups": shown, "version": __version__}
    return environment().get_template("contact.html").render(**page, **inlined("style", style))
