"""Bad inputs of ``compare``, of gates and of ``bench --reanalyse``: records that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgexfer.bench.analyse import analyse
from edgexfer.core.record import write_record
from tests.bench.made import make_record
from tests.cli.bad import Place

RUNS = [[1_000_000 + (i * 7919) % 1000 for i in range(60)]] * 3


def record(place: Path, **changes: Any) -> Path:
    """Write a good record, or one that differs in a field."""
    write_record(place, analyse(make_record(RUNS, **changes)))
    return place


def _compare(p: Place, *more: str, **changes: Any) -> list[str]:
    first, second = record(p.here / "a.json"), record(p.here / "b.json", **changes)
    return ["compare", str(first), str(second), *more]


def _edited(p: Place, key: str, value: Any) -> Path:
    place = record(p.here / "a.json")
    data = json.loads(place.read_text())
    data[key] = value
    place.write_text(json.dumps(data))
    return place


def compare_missing(p: Place) -> list[str]:
    return ["compare", str(record(p.here / "a.json")), str(p.here / "no.json")]


def compare_damaged(p: Place) -> list[str]:
    place = p.here / "cut.json"
    place.write_text(record(p.here / "a.json").read_text()[:500])
    return ["compare", str(p.here / "a.json"), str(place)]


def compare_older_schema(p: Place) -> list[str]:
    place = _edited(p, "schema", "edgexfer.bench/1")
    return ["compare", str(place), str(place)]


def compare_a_folder(p: Place) -> list[str]:
    return ["compare", str(record(p.here / "a.json")), str(p.pictures)]


def compare_other_threads(p: Place) -> list[str]:
    return _compare(p, settings={"threads": 4})


def compare_other_precision(p: Place) -> list[str]:
    return _compare(p, artefact={"name": "b", "precision": "int8", "size_bytes": 1})


def compare_other_images(p: Place) -> list[str]:
    return _compare(p, data={"images_sha256": "cc"})


def compare_other_scenario(p: Place) -> list[str]:
    return _compare(p, "--across", "threads", settings={"scenario": "sustained"})


def compare_other_power_mode(p: Place) -> list[str]:
    device = {"cpu": "Example CPU", "machine": "x86_64", "power_mode": "15W"}
    return _compare(p, device=device)


def compare_across_definitions(p: Place) -> list[str]:
    return _compare(p, "--across", "definitions")


def compare_across_a_typing_error(p: Place) -> list[str]:
    return _compare(p, "--across", "precison")


def compare_with_delta_zero(p: Place) -> list[str]:
    return _compare(p, "--delta", "0")


def gate_without_a_limit(p: Place) -> list[str]:
    return _compare(p, "--gate", "latency_p90_ms")


def gate_of_an_unknown_figure(p: Place) -> list[str]:
    return _compare(p, "--gate", "latency_p09_ms<8")


def junit_without_a_gate(p: Place) -> list[str]:
    return _compare(p, "--junit", str(p.here / "gates.xml"))


def bench_with_a_bad_gate(p: Place) -> list[str]:
    return ["bench", str(p.bundle), "--gate", "latency<8", "--out", str(p.here / "out")]


def reanalyse_missing(p: Place) -> list[str]:
    return ["bench", "--reanalyse", str(p.here / "no.json")]


def reanalyse_a_folder(p: Place) -> list[str]:
    return ["bench", "--reanalyse", str(p.pictures)]


def _mine(p: Place, name: str) -> str:
    (p.here / name).write_text("mine")
    return str(p.here / name)


def reanalyse_over_something_else(p: Place) -> list[str]:
    place = record(p.here / "a.json")
    return ["bench", "--reanalyse", str(place), "--out", _mine(p, "mine.json")]


def bench_over_something_else(p: Place) -> list[str]:
    return ["bench", str(p.bundle), "--out", _mine(p, "mine.json")]


def junit_over_something_else(p: Place) -> list[str]:
    return _compare(p, "--gate", "latency_p50_change_pct<3", "--junit", _mine(p, "notes.txt"))


def reanalyse_an_unknown_key(p: Place) -> list[str]:
    return ["bench", "--reanalyse", str(_edited(p, "latncy", {}))]


def reanalyse_samples_that_are_none(p: Place) -> list[str]:
    place = record(p.here / "a.json")
    data = json.loads(place.read_text())
    data["processes"][0]["infer_ns"][3] = "fast"
    place.write_text(json.dumps(data))
    return ["bench", "--reanalyse", str(place)]


def reanalyse_an_edited_figure(p: Place) -> list[str]:
    place = record(p.here / "a.json")
    data = json.loads(place.read_text())
    data["latency"]["p90"]["value"] /= 2
    place.write_text(json.dumps(data))
    return ["bench", "--reanalyse", str(place)]
