from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgexfer.core.errors import InputError
from edgexfer.core.files import read_json, write_json
from edgexfer.core.record import read_record, write_record
from edgexfer.report.beside import MARK, plain
from edgexfer.report.page import build
from tests.report.html import Page
from tests.report.synthetic import STUDENT, failed


def csv_of(page: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(page.with_suffix(".csv").read_text(encoding="utf-8"))))


def test_each_record_is_a_row_with_its_figures(trip: Path, tmp_path: Path) -> None:
    write_record(trip / "bench" / "f.json", failed(STUDENT[1], "the runtime refused the model"))
    (trip / "bench" / "torn.json").write_text('{"schema"')
    lines = csv_of(build([trip], tmp_path / "r.html"))
    assert len(lines) == 7
    assert [line["status"] for line in lines] == ["ok"] * 5 + ["failed", "unreadable"]
    assert lines[5]["reasons"] == "the runtime refused the model"
    assert lines[5]["p50_ns"] == ""
    assert "torn.json" in lines[6]["reasons"]
    record = read_record(trip / "bench" / "x86-openvino-int8.json")
    assert record.accuracy is not None
    first = lines[0]
    assert first["name"] == "x86-openvino-int8"
    assert float(first["p50_ns"]) == record.latency["p50"].value
    assert float(first["top1_pct"]) == pytest.approx(record.accuracy.top1_pct, rel=1e-5)
    assert float(first["ece_pct"]) > 0
    assert int(first["memory_host_bytes"]) == 31_000_000
    assert first["energy_net_mj"] == ""


def test_no_name_is_a_formula(tmp_path: Path) -> None:
    names = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1")
    for number, name in enumerate(names):
        record = failed(STUDENT[0], name)
        write_record(tmp_path / f"{number}.json", replace(record, artefact={"name": name}))
    lines = csv_of(build([tmp_path], tmp_path / "r.html"))
    for column in ("name", "reasons"):
        assert {line[column][-2:] for line in lines} == {name[-2:] for name in names}
        assert not any(re.match(r"[=+\-@\t\r]", line[column]) for line in lines)


def test_the_markdown_holds_verdict_tables_and_hops(trip: Path, tmp_path: Path) -> None:
    text = build([trip], tmp_path / "r.html").with_suffix(".md").read_text(encoding="utf-8")
    assert text.startswith(MARK)
    assert "**Take student (resnet8) x86-openvino-int8.** On Example CPU" in text
    assert "## What each hop changed" in text
    assert "## What was not measured" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_what_was_forgotten_stands_on_the_page_and_beside_it(trip: Path, tmp_path: Path) -> None:
    drop = {"drop_pt": 12.5, "low_pt": 4.0, "high_pt": 21.0, "lost": 6, "gained": 1, "n": 40}
    task = {"before_pct": 75.0, "after_pct": 62.5, "among_old_pct": 70.0, "drop": drop}
    for run, told in (("student", task), ("control", {**task, "drop": {"drop_pt": "all"}})):
        saved = read_json(trip / run / "run.json")
        saved["result"]["old_task"] = told
        write_json(trip / run / "run.json", saved)
    page = build([trip], tmp_path / "r.html")
    line = (
        "student, former task: 75.0 % → 62.5 % of 40 test images, lost 12.5 points "
        "(95 % interval 4.0 to 21.0); 70.0 % where only its own classes are asked for."
    )
    text = Page(page.read_text(encoding="utf-8")).words
    assert line in text.replace("\u00a0", " ")
    assert text.count("former task:") == 1
    assert f"- {line}" in page.with_suffix(".md").read_text(encoding="utf-8")


@given(st.text())
def test_text_in_markdown_is_text(text: str) -> None:
    shown = plain(text)
    assert len(shown.splitlines()) <= 1
    assert not re.search(
        r"(?<!\\)(?:\\\\)*[`*_\[\]<>|#!~&$@]", re.sub(r"\\\\", "", shown).join("  ")
    )


def test_the_same_place_can_be_written_again_and_a_file_of_the_user_s_is_kept(
    trip: Path, tmp_path: Path
) -> None:
    out, record = tmp_path / "README.html", trip / "bench" / "teacher.json"
    build([record], out)
    build([record], out)
    for name in ("README.md", "README.csv"):
        (tmp_path / name).write_text("# Mine\n")
        with pytest.raises(InputError, match=f"{name}: is not from edgexfer") as caught:
            build([record], out)
        assert caught.value.fix == "name another file"
        assert (tmp_path / name).read_text() == "# Mine\n"
        (tmp_path / name).unlink()


@pytest.mark.parametrize("name", ["report.md", "report.csv", "report"])
def test_the_page_is_an_html_file(trip: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is not the name of an HTML page") as caught:
        build([trip / "bench"], tmp_path / name)
    assert caught.value.fix == "let it end in .html"


def test_the_markdown_has_each_artefact_on_each_machine(fleet: Path, tmp_path: Path) -> None:
    inputs = [fleet, *sorted((fleet / "records").iterdir())]
    text = build(inputs, tmp_path / "r.html").with_suffix(".md").read_text(encoding="utf-8")
    [table] = re.findall(r"## Each artefact on each machine\n\n((?:\|.*\n)+)", text)
    head, _, *lines = (
        [cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()
    )
    assert head[:3] == ["model", "artefact", r"1 Example CPU \@ 2.50GHz, 8 cores"]
    assert len(head) == 2 + 5
    by_name = {line[1]: line[2:] for line in lines}
    assert len(by_name) == 5
    first = "take, p50 0.189 ms, p90 0.204 ms, 97.2 % right"
    assert by_name["x86-openvino-int8"][0] == f"A: {first}"
    assert by_name["x86-openvino-fp32"][3] == "P: not usable, failed"
    assert by_name["x86-onnxruntime-fp32"][3].endswith("97.8 % right, invalid")
    assert by_name["x86-torch-fp32"][1:] == ["–"] * 4


def test_one_machine_has_no_such_table(trip: Path, tmp_path: Path) -> None:
    text = build([trip], tmp_path / "r.html").with_suffix(".md").read_text(encoding="utf-8")
    assert "on each machine" not in text
