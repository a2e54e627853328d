from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgexfer.core.errors import RunError
from edgexfer.core.model import SCHEMA, ModelCard, read_card, write_card
from edgexfer.core.preprocess import Preprocess

CARD = ModelCard(SCHEMA, "resnet8", ("no", "yes"), Preprocess((8, 8), 8), 9, "a" * 64, "scratch")


def test_a_card_comes_back(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_card(tmp_path, CARD)
    assert read_card(tmp_path) == CARD


def test_a_run_without_a_model_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no trained model") as caught:
        read_card(tmp_path)
    assert "edgexfer finetune" in caught.value.fix


def test_a_damaged_card_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text('{"schema": "edgexfer.model/1"}')
    with pytest.raises(RunError, match="key name is missing") as caught:
        read_card(tmp_path)
    assert caught.value.fix == "train the model again"


def test_a_card_of_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_card(tmp_path, replace(CARD, schema="edgexfer.model/2"))
    with pytest.raises(RunError, match=r"model\.json: schema is 'edgexfer.model/2'") as caught:
        read_card(tmp_path)
    assert "expected 'edgexfer.model/1'" in caught.value.what
    assert caught.value.fix == "train the model again"
