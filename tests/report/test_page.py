from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from edgexfer.core.errors import DiskError, InputError
from edgexfer.core.record import read_record, write_record
from edgexfer.report.page import _island, build, environment
from edgexfer.report.words import clean
from tests.report.html import Page, assert_harmless
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


def page_of(*inputs: Path, out: Path) -> Page:
    return Page(build(inputs, out).read_text(encoding="utf-8"))


def test_the_page_holds_all_and_asks_nobody(trip: Path, tmp_path: Path) -> None:
    page = page_of(trip, out=tmp_path / "out" / "report.html")
    assert_harmless(page)
    # Scatter, distribution, stages, cold start and memory; five courses; two curves.
    assert sum(tag == "svg" for tag, _ in page.tags) == 12
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


def test_a_page_never_breaks_the_seal_of_a_bundle(trip: Path) -> None:
    before = sorted((trip / "bundle").iterdir())
    for out in (trip / "bundle" / "report.html", trip / "bundle" / "sub" / "page.html"):
        with pytest.raises(InputError, match="whose seal it would break") as caught:
            build([trip], out)
        assert str(out) in caught.value.what
        assert caught.value.fix == "choose another --out"
    assert sorted((trip / "bundle").iterdir()) == before
    build([trip / "bundle"], trip / "report.html")


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
    assert "Speed is ranked within one machine and one way of measuring alone." in page.words
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
    # The same on four more machines, so that there is a fleet.
    for number, name in enumerate(HOSTILE[3:8]):
        place = trip / "bench" / f"{number}<img src=x onerror=document.title='owned'>.json"
        write_record(place, replace(record, device={**device, "cpu": name, "on": name}))
    return list(HOSTILE)


def test_hostile_names_are_text(trip: Path, tmp_path: Path) -> None:
    names = hostile_trip(trip)
    page = page_of(trip, out=tmp_path / "report.html")
    assert_harmless(page)
    assert "5 machines, measured the same way" in page.words
    for name in names:
        assert re.sub(r"\s+", " ", clean(name)) in page.words, name
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "\x00" not in html
    assert "\u202e" not in html
    assert "x" * 2001 not in html


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80)


@given(NAMES)
@example("</script><!--")
@example("5 ms & 3 %")
def test_any_text_comes_back_from_a_template_as_it_was(text: str) -> None:
    html = environment().from_string('<p title="{{ x }}">{{ x }}</p>').render(x=text)
    page = Page(html)
    assert page.tags == [("p", {"title": clean(text)})]
    assert "".join(page.text) == clean(text)


@given(NAMES)
@example("</script><!--<script>")
@example("\u2028&amp;\u0000")
def test_any_text_comes_back_from_the_island_as_it_was(text: str) -> None:
    page = Page(f"<p><script>{_island([{'name': text}])}</script></p>")
    assert page.records == [{"name": text}]


@settings(
    max_examples=5,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(names=st.lists(NAMES, min_size=8, max_size=8))
@example(names=list(HOSTILE))
def test_any_name_comes_back_from_the_page_as_it_was(names: list[str], tmp_path: Path) -> None:
    plain = replace(make_record(STUDENT[0]), processes=(), cold_start={}, memory={}, stages={})
    for number, name in enumerate(names):
        record = replace(plain, artefact={**plain.artefact, "name": name}, latency={})
        write_record(tmp_path / f"{number}.json", replace(record, status="failed", reasons=(name,)))
    page = page_of(*(tmp_path / f"{n}.json" for n in range(len(names))), out=tmp_path / "r.html")
    assert_harmless(page)
    for name in names:
        # Once as the artefact's name and once as the reason, each alone in its element.
        assert page.text.count(clean(name)) >= 2
    assert sorted(r["reasons"] for r in page.records) == sorted(names)


def test_an_empty_place_and_an_unwritable_one_are_refused(trip: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no run, bundle or record"):
        build([tmp_path / "empty"], tmp_path / "r.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="file"):
        build([trip], tmp_path / "file" / "r.html")
