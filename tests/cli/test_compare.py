"""``compare``, gates and ``bench --reanalyse``, as they are typed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgexfer.bench.analyse import analyse
from edgexfer.cli import run
from edgexfer.core.record import Record, write_record
from tests.bench.made import make_accuracy, make_record
from tests.cli.bad_compare import record


def _made(factor: float, seed: int) -> Record:
    rounds, own = random.Random(1), random.Random(seed)
    runs = [
        [int(1e6 * factor * level * own.gauss(1, 0.01)) for _ in range(100)]
        for level in (rounds.gauss(1, 0.01) for _ in range(10))
    ]
    truth = [i % 10 for i in range(2000)]
    return analyse(make_record(runs, accuracy=make_accuracy(truth, 2000)))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Write two records of which the second is 5 % slower."""
    folder = tmp_path_factory.mktemp("records")
    write_record(folder / "a.json", _made(1.0, 1))
    write_record(folder / "b.json", _made(1.05, 2))
    return str(folder / "a.json"), str(folder / "b.json")


def test_a_comparison_reads_as_a_table(
    pair: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", *pair]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"A  {pair[0]}: made, ok"
    assert lines[2].split("  ")[0] == "metric"
    row = next(line for line in lines if line.startswith("latency p50"))
    assert row.endswith("slower")
    top1 = next(line for line in lines if line.startswith("top1"))
    assert top1.endswith("same")
    assert lines[-1].startswith("10 pairs of interleaved processes; the same is within 2 %")


def test_a_comparison_is_told_as_json(
    pair: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", *pair, "--json", "--delta", "20"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["paired"] is True
    assert {row["verdict"] for row in found["rows"]} == {"same"}


def test_a_gate_that_is_kept_exits_with_0_and_one_that_is_missed_with_1(
    pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junit = tmp_path / "gates.xml"
    gates = "latency_p50_change_pct<8,top1_drop_pt<0.5,latency_p90_ms<3"
    assert run(["compare", *pair, "--gate", gates, "--junit", str(junit)]) == 0
    root = ElementTree.parse(junit).getroot()
    assert (root.get("tests"), root.get("failures")) == ("3", "0")
    capsys.readouterr()
    gates = "latency_p50_change_pct<3,latency_p90_ms<0.5"
    assert run(["compare", *pair, "--gate", gates, "--junit", str(junit)]) == 1
    captured = capsys.readouterr()
    assert "slower" in captured.out
    assert captured.err.startswith("error: gate latency_p50_change_pct<3 missed by made: +")
    assert "(and 1 more)" in captured.err
    assert ElementTree.parse(junit).getroot().get("failures") == "2"


def test_a_record_analysed_again_is_the_same_file(
    pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path / "again.json"
    assert run(["bench", "--reanalyse", pair[0], "--out", str(again)]) == 0
    assert (
        capsys.readouterr().out == f"{pair[0]}: every figure follows from its samples, to the bit\n"
    )
    assert again.read_bytes() == Path(pair[0]).read_bytes()


def test_an_edited_record_is_found_out_and_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = record(tmp_path / "a.json")
    good = place.read_bytes()
    data = json.loads(good)
    data["status"], data["reasons"] = "ok", []
    data["latency"]["p90"]["upper99"] -= 5
    data["stages"] = {"pre": {}}
    place.write_text(json.dumps(data))
    again = tmp_path / "again.json"
    assert run(["bench", "--reanalyse", str(place), "--out", str(again)]) == 1
    err = capsys.readouterr().err
    assert "latency.p90" in err
    assert "stages.pre" in err
    assert "latency.p50" not in err
    assert again.read_bytes() == good


def test_a_gate_is_held_against_a_record_analysed_again(
    pair: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junit = tmp_path / "gates.xml"
    argv = ["bench", "--reanalyse", pair[0], "--junit", str(junit), "--gate"]
    assert run([*argv, "latency_p90_ms<3"]) == 0
    assert ElementTree.parse(junit).getroot().get("failures") == "0"
    assert run([*argv, "latency_p90_ms<0.5"]) == 1
    assert "gate latency_p90_ms<0.5 missed by made" in capsys.readouterr().err
    assert ElementTree.parse(junit).getroot().get("failures") == "1"


def test_a_record_analysed_again_is_told_as_json(
    pair: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", "--reanalyse", pair[0], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [json.loads(Path(pair[0]).read_text())]


def test_names_do_not_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = {"name": "\x1b[2Jmade\r\n", "precision": "fp32", "size_bytes": 1}
    place = record(tmp_path / "a.json", artefact=evil)
    assert run(["compare", str(place), str(place)]) == 0
    out = capsys.readouterr().out
    assert "\ufffd[2Jmade\ufffd\ufffd, ok\n" in out
    assert not {"\x1b", "\r"} & set(out)
