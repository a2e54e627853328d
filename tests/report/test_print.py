"""The page on paper: what a browser prints of it, read back from the PDF."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgexfer.report.page import build

WORD, PAGE = (f"{{http://www.w3.org/1999/xhtml}}{name}" for name in ("word", "page"))


def print_out(page: Path, pdf: Path) -> ElementTree.Element:
    """Print a page as Chromium does, and return its sheets with the words and their places."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    reader = shutil.which("pdftotext")
    if browser is None or reader is None:
        pytest.skip(f"no {'Chromium' if browser is None else 'pdftotext'} is on PATH")
    command = [
        browser,
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update"),
        *(f"--user-data-dir={pdf.with_name('profile')}", "--no-pdf-header-footer"),
        *(f"--print-to-pdf={pdf}", page.as_uri()),
    ]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    argv = [reader, "-bbox", str(pdf), "-"]
    told = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout
    return ElementTree.fromstring(told)


@pytest.mark.slow
def test_paper_shows_what_cannot_be_opened_there_and_fits(fleet: Path, tmp_path: Path) -> None:
    inputs = [fleet, *sorted((fleet / "records").iterdir())]
    report = build(inputs, tmp_path / "report.html")
    sheets = print_out(report, tmp_path / "report.pdf").findall(f".//{PAGE}")
    words = [(sheet, word) for sheet in sheets for word in sheet.iter(WORD)]
    paper = " ".join(word.text or "" for _, word in words)
    page = report.read_text(encoding="utf-8")
    # What no verdict on a machine may go without is printed although it is closed on the screen.
    assert page.count('<details class="printed"><summary>Why</summary>') == 6
    assert paper.count("exclude a larger loss.") == 6
    assert "Made by edgexfer" in paper
    # What is closed, and what one can only type into or click at, is left out.
    for heading in ("Over time", "Figures", "Where it comes from"):
        assert heading in page
        assert heading not in paper
    assert "of 22 records" not in paper
    # Nothing is cut off at the edge of a sheet.
    assert len(sheets) > 1
    for sheet, word in words:
        assert float(word.attrib["xMin"]) >= 0
        assert float(word.attrib["xMax"]) <= float(sheet.attrib["width"]), word.text
