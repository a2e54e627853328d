from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgexfer.core.errors import DiskError, InputError
from edgexfer.core.record import read_record, write_record
from edgexfer.report.page import build
from edgexfer.report.words import clean
from tests.report.synthetic import STUDENT, failed, make_bundle, make_record

HOSTILE = (
    "<script>document.title='owned'</script>",
    "</script><img src=x onerror=document.title='owned'>",
    "\" onload=\"document.title='owned'",
    "javascript:document.title='owned'",
    "{{ 7*7 }}{% raw %}",
    "a\u2028b",
    "\u202etxt.exe",
    "$\\frac{1}{0}$",
    "nul\x00byte",
    "👩\u200d🔬e\u0301",
)
VOID = {"br", "meta", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Collects tags, attributes and text of a page, and notes tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
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
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def attributes(self) -> Iterator[tuple[str, str, str]]:
        for tag, attributes in self.tags:
            for name, value in attributes.items():
                yield tag, name, value or ""

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


def page_of(*inputs: Path, out: Path) -> Page:
    return Page(build(inputs, out).read_text(encoding="utf-8"))


def assert_harmless(page: Page) -> None:
    assert not page.open
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "embed", "link", "base", "form", "img"}
    for tag, name, value in page.attributes():
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href", "action", "srcset", "data"):
            assert value.startswith("#"), (tag, name, value)
        assert "url(" not in value or "url(#" in value, (tag, name, value)


def test_the_page_holds_all_and_asks_nobody(trip: Path, tmp_path: Path) -> None:
    page = page_of(trip, out=tmp_path / "out" / "report.html")
    assert_harmless(page)
    policy = [a for t, a in page.tags if t == "meta" and a.get("http-equiv")]
    assert [a["content"] for a in policy] == [
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    ]
    assert sum(tag == "svg" for tag, _ in page.tags) == 4
    for expected in (
        "Take student (resnet8) x86-openvino-int8.",
        "Did the teacher help the student? No difference shown",
        "Measured on Example CPU @ 2.50GHz, 2 cores",
        "Parity: every hop of the export",
        "121.4 dB",
        "360 images cannot exclude a drop of more than 1 point",
        "What was not measured",
        "no energy sensor is here",
        "manifest_sha256",
        "digit 9",
    ):
        assert expected.replace(" dB", "\u00a0dB") in page.words.replace(" dB", "\u00a0dB")


def test_the_same_input_gives_the_same_bytes(trip: Path, tmp_path: Path) -> None:
    first = build([trip], tmp_path / "a.html").read_bytes()
    assert first == build([trip], tmp_path / "b.html").read_bytes()


@pytest.mark.parametrize("part", ["student", "bundle", "bench"])
def test_each_part_makes_a_page_of_its_own(trip: Path, tmp_path: Path, part: str) -> None:
    page = page_of(trip / part, out=tmp_path / "part.html")
    assert_harmless(page)
    assert ("Training" in page.words) == (part == "student")
    assert ("Parity: every hop" in page.words) == (part == "bundle")
    assert ("Measured on Example CPU" in page.words) == (part == "bench")


def test_no_record_is_dropped_in_silence(trip: Path, tmp_path: Path) -> None:
    bench = trip / "bench"
    write_record(bench / "f.json", failed(STUDENT[1], "the runtime refused the model"))
    shaky = replace(STUDENT[0], status="invalid", reasons=("the clock was throttled",))
    write_record(bench / "i.json", make_record(shaky))
    (bench / "torn.json").write_text('{"schema"')
    page = page_of(trip, out=tmp_path / "report.html")
    for expected in (
        "the runtime refused the model",
        ": failed, for the reasons in the table.",
        "the clock was throttled",
        "torn.json: not readable as JSON",
    ):
        assert expected in page.words
    assert "7 records" in page.words


def test_machines_are_not_ranked_together(trip: Path, tmp_path: Path) -> None:
    place = trip / "bench" / "x86-openvino-int8.json"
    record = read_record(place)
    write_record(place, replace(record, device={**record.device, "cpu": "Another CPU"}))
    page = page_of(trip, out=tmp_path / "report.html")
    assert "Measured on Another CPU" in page.words
    assert "nothing is ranked across them" in page.words
    assert "Take student (resnet8) x86-onnxruntime-int8." in page.words


def hostile_trip(trip: Path) -> list[str]:
    """Put hostile names wherever a name can stand, and return the names."""
    classes = (*HOSTILE, "x" * 10_240)
    shutil.rmtree(trip / "bundle")
    spec = replace(STUDENT[1], wrong=0)
    bundle = make_bundle(trip / "bundle", HOSTILE[0], HOSTILE[1], [spec], classes[:10])
    record = make_record(spec, bundle)
    artefact = {**record.artefact, "name": HOSTILE[2]}
    device = {**record.device, "cpu": HOSTILE[3], "board": HOSTILE[4]}
    record = replace(
        record,
        artefact=artefact,
        device=device,
        reasons=(HOSTILE[7], "x" * 10_240),
        status="partial",
        absent={HOSTILE[8]: HOSTILE[5]},
        warnings=(HOSTILE[6],),
    )
    for old in (trip / "bench").glob("*.json"):
        old.unlink()
    write_record(trip / "bench" / "a.json", record)
    return list(HOSTILE)


def test_hostile_names_are_text(trip: Path, tmp_path: Path) -> None:
    names = hostile_trip(trip)
    page = page_of(trip, out=tmp_path / "report.html")
    assert_harmless(page)
    for name in names:
        assert re.sub(r"\s+", " ", clean(name)) in page.words, name
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "\x00" not in html
    assert "\u202e" not in html
    assert "x" * 2001 not in html


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80))
def test_any_name_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    record = replace(
        make_record(STUDENT[0]), reasons=(f"[{name}]",), status="partial", processes=()
    )
    write_record(tmp_path / "r.json", record)
    page = page_of(tmp_path / "r.json", out=tmp_path / "r.html")
    assert_harmless(page)
    assert re.sub(r"\s+", " ", clean(f"[{name}]")) in page.words.replace("\u00a0", " ") or (
        "\u00a0" in name
    )


def test_an_empty_place_and_an_unwritable_one_are_refused(trip: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no run, bundle or record"):
        build([tmp_path / "empty"], tmp_path / "r.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="file"):
        build([trip], tmp_path / "file" / "r.html")


@pytest.mark.slow
def test_a_browser_runs_no_script_and_shows_the_charts(trip: Path, tmp_path: Path) -> None:
    """Open the hostile page in a real browser: it renders, and nothing in it was executed."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium is on PATH")
    hostile_trip(trip)
    report = build([trip], tmp_path / "report.html")
    command = [
        browser,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        report.as_uri(),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, env={**os.environ}
    )
    page = Page(re.sub(r"<!DOCTYPE[^>]*>", "", done.stdout))
    titles = re.findall(r"<title>([^<]*)</title>", done.stdout)
    assert titles[0] == "example · edgexfer report"
    assert sum(tag == "svg" for tag, _ in page.tags) == 4
    assert_harmless(page)
