"""The page shows what INT8 does to each layer, where an explanation lies beside the bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgexfer.core.bundle import Rung
from edgexfer.core.codec import encode
from edgexfer.core.explanation import (
    SCHEMA,
    Explanation,
    LayerNoise,
    Step,
    Verdict,
    explanation_folder,
)
from edgexfer.core.files import write_json
from edgexfer.report.collect import collect
from edgexfer.report.layers import layer_parts
from edgexfer.report.page import build
from tests.report.html import Page, assert_harmless

REFUSED = Rung(
    name="x86-onnxruntime int8",
    against="torch fp32",
    n=60,
    sqnr_db=3.25,
    max_abs=1.0,
    agreement_pct=40.0,
    passed=False,
    limits={"sqnr_db": 5.0},
)
LAYERS = (
    LayerNoise("stem<b>", "Conv", 40.0, None, 31.5, 42.0, 2.0),
    LayerNoise("block.conv", "Conv", 12.5, 30.0, 4.5, 5.0, 97.0),
    LayerNoise("pool", "GlobalAveragePool", None, 4.5, 4.4, None, 1.0),
)
STEP = Step("mse", Verdict(True, 21.0, 97.5, 0.5))


def explained(trip: Path) -> Explanation:
    found = Explanation(
        SCHEMA, "x86-onnxruntime", 30, REFUSED, True, (STEP,), ("block.conv",), LAYERS
    )
    folder = explanation_folder(trip / "bundle")
    folder.mkdir()
    write_json(folder / f"{found.target}.json", encode(found))
    return found


def test_the_page_names_the_layers_that_are_to_blame(trip: Path, tmp_path: Path) -> None:
    found = explained(trip)
    page = build([trip], tmp_path / "page.html").read_text()
    read = Page(page)
    assert_harmless(read)
    text = read.words
    assert "INT8, layer by layer" in text
    assert found.in_words() in text
    assert STEP.in_words() in text
    assert "<b>block.conv</b>" in page
    assert "stem<b>" not in page
    assert "Signal to noise of each of 3 layers; most of the noise is of 2" in page


def test_the_noisiest_layer_comes_first_with_its_place_in_the_graph(trip: Path) -> None:
    explained(trip)
    (part,) = layer_parts(collect([trip]))
    assert [(n, layer.node) for n, layer in part.worst_first] == [
        (2, "block.conv"),
        (1, "stem<b>"),
        (3, "pool"),
    ]


def test_a_bundle_without_an_explanation_has_no_such_part(trip: Path, tmp_path: Path) -> None:
    assert layer_parts(collect([trip])) == []
    assert "layer by layer" not in build([trip], tmp_path / "page.html").read_text()


@pytest.mark.parametrize("content", ["{", '{"schema": "edgexfer.explanation/1"}'])
def test_an_explanation_that_cannot_be_read_is_said(
    content: str, trip: Path, tmp_path: Path
) -> None:
    explained(trip)
    place = explanation_folder(trip / "bundle") / "x86-onnxruntime.json"
    place.write_text(content)
    page = build([trip], tmp_path / "page.html").read_text()
    assert f"Not read: {place}" in Page(page).words
