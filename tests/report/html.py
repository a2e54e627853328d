"""A strict reader of the pages that the tests make."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

VOID = {"br", "meta", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, attributes and text of a page, and notes tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.raw: dict[str, list[str]] = {"style": [], "script": []}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        self.raw.get(inside, self.text).append(data)

    def attributes(self) -> Iterator[tuple[str, str, str]]:
        for tag, attributes in self.tags:
            for name, value in attributes.items():
                yield tag, name, value or ""

    @property
    def policy(self) -> str:
        [found] = [a["content"] for t, a in self.tags if t == "meta" and a.get("http-equiv")]
        return found or ""

    @property
    def records(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.raw["script"][0])
        return found

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


def assert_harmless(page: Page) -> None:
    """Check that a page asks nobody, and runs and draws by nothing but its own two parts."""
    assert not page.open
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"iframe", "object", "embed", "link", "base", "foreignobject"}
    for tag, name, value in page.attributes():
        assert not name.startswith("on"), (tag, name)
        assert name not in ("style", "action", "formaction"), (tag, name)
        if name in ("src", "href", "xlink:href", "srcset", "data"):
            assert value.startswith("data:image/png;base64," if tag == "img" else "#"), (tag, value)
        assert "url(" not in value or "url(#" in value, (tag, name, value)
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "records"}, {}]
    [style], script = page.raw["style"], page.raw["script"][1]
    assert page.policy == (
        f"default-src 'none'; script-src '{digest(script)}'; style-src '{digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
