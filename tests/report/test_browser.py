"""The page in a real browser: nothing runs in it that is not ours, and what is ours works."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgexfer.report import page as page_module
from edgexfer.report.page import build
from tests.report.conftest import Seen
from tests.report.html import Page, assert_harmless
from tests.report.test_page import hostile_trip

# Added to the page's own script, so that its hash covers it; writes what it saw into the page.
DRIVER = """
const seen = {};
const table = document.querySelector("table.records");
const column = [...table.tHead.rows[0].cells].findIndex((head) => head.textContent === "p50");
const keys = () => [...table.tBodies[0].rows].map((row) => row.dataset.key);
const button = table.tHead.rows[0].cells[column].querySelector("button");
button.click(); seen.rising = keys();
button.click(); seen.falling = keys();
seen.sorted = table.tHead.rows[0].cells[column].getAttribute("aria-sort");
const fleet = document.querySelector("table.matrix");
fleet.tHead.rows[0].cells[4].querySelector("button").click();
seen.fleet = [...fleet.tBodies[0].rows].map((row) => row.cells[4].dataset.v);
const shownRows = () => document.querySelectorAll("table.records tbody tr:not([hidden])").length;
const ask = (text, status) => {
  form.elements.text.value = text;
  form.elements.status.value = status;
  form.dispatchEvent(new Event("input"));
};
ask("int8", ""); seen.int8 = shownRows();
ask("", "failed"); seen.failed = shownRows();
seen.sections = document.querySelectorAll("section.group:not([hidden])").length;
seen.counted = form.querySelector("output").textContent;
ask("", "");
document.querySelector(".tip").dispatchEvent(new Event("pointerenter"));
seen.tip = tip.hidden ? "" : tip.textContent;
seen.broken = [...document.images].filter((image) => !image.complete || !image.naturalWidth).length;
seen.pictures = document.images.length;
seen.wide = document.documentElement.scrollWidth > document.documentElement.clientWidth;
const tables = [...document.querySelectorAll("table.records, table.matrix")];
seen.cut = tables.filter((t) => t.offsetWidth > t.parentNode.clientWidth).length;
document.body.dataset.seen = JSON.stringify(seen);
"""


def driven(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inputs: list[Path]) -> Path:
    templates = tmp_path / "templates"
    shutil.copytree(page_module.TEMPLATES, templates)
    script = templates / "page.js"
    script.write_text(script.read_text(encoding="utf-8") + DRIVER, encoding="utf-8")
    monkeypatch.setattr(page_module, "TEMPLATES", templates)
    return build(inputs, tmp_path / "driven.html")


def said(seen: Seen) -> dict[str, Any]:
    match = re.search(r'data-seen="([^"]*)"', seen.dom)
    assert match is not None, seen.complaints
    found: dict[str, Any] = json.loads(html.unescape(match[1]))
    return found


def test_hostile_names_run_nothing_and_ask_nobody(
    trip: Path, tmp_path: Path, browse: Callable[..., Seen]
) -> None:
    hostile_trip(trip)
    seen = browse(build([trip], tmp_path / "report.html"))
    assert re.findall(r"<title>([^<]*)</title>", seen.dom) == ["example · edgexfer report"]
    assert not seen.complaints
    assert not seen.requests
    # The script ran, and left nothing in the page that may not be there.
    assert "5 of 5 records" in seen.dom
    dom = Page(re.sub(r"<!DOCTYPE[^>]*>", "", seen.dom))
    assert_harmless(dom)


@pytest.mark.slow
def test_a_script_of_another_is_refused(
    trip: Path, tmp_path: Path, browse: Callable[..., Seen]
) -> None:
    """The browser honours the policy: what is planted does not run, and is complained of."""
    report = build([trip], tmp_path / "report.html")
    text = report.read_text(encoding="utf-8")
    planted = (
        "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    )
    report.write_text(text.replace("<footer>", f"<footer>{planted}"), encoding="utf-8")
    seen = browse(report)
    assert "<title>example · edgexfer report</title>" in seen.dom
    assert any("Content Security Policy" in line for line in seen.complaints)


@pytest.mark.slow
def test_a_request_would_have_been_seen(tmp_path: Path, browse: Callable[..., Seen]) -> None:
    (tmp_path / "asking.html").write_text("<img src='http://127.0.0.1:9/pixel.png'>")
    seen = browse(tmp_path / "asking.html")
    assert seen.requests == {"http://127.0.0.1:9/pixel.png"}


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 500])
def test_sorting_filtering_and_tips(
    fleet: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    browse: Callable[..., Seen],
    width: int,
) -> None:
    inputs = [fleet, *sorted((fleet / "records").iterdir())]
    seen = browse(driven(monkeypatch, tmp_path, inputs), width)
    assert not seen.complaints
    assert not seen.requests
    found = said(seen)
    assert found["rising"] == sorted(found["rising"])
    assert found["falling"] == found["rising"][::-1]
    assert found["sorted"] == "descending"
    # On the slowest machine: by rising latency, then what is not usable or was not measured.
    fast, aside = found["fleet"][:2], found["fleet"][2:]
    assert float(fast[0]) < float(fast[1])
    assert aside == ["", "", ""]
    assert found["int8"] == 11
    assert (found["failed"], found["sections"]) == (1, 1)
    assert found["counted"] == "1 of 22 records"
    assert re.match(r"[A-Z]: x86-\w+-\w+", found["tip"])
    assert found["pictures"] > 0
    assert found["broken"] == 0
    assert not found["wide"]
    assert (found["cut"] > 0) == (width < 1280)  # on a desk all tables are there as a whole
