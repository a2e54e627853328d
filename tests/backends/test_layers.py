"""An engine's layers, from the inspector's old JSON and its new one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgexfer.backends._layers import Layers, parse_layers
from edgexfer.core.errors import BackendError

FIXTURES = Path(__file__).parent / "fixtures"
ENDS = ("input", "logits")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("layers_detailed_8x_10x", Layers(("conv1 + relu1",), ENDS, {"int8": 1})),
        ("layers_detailed_11x", Layers(("conv1 + relu1",), ENDS, {"int8": 1})),
        ("layers_names_only_8x_10x", Layers(("conv1 + relu1", "fc"), ENDS, None)),
    ],
)
def test_both_schemas_are_read(name: str, expected: Layers) -> None:
    assert parse_layers((FIXTURES / f"{name}.json").read_text(), name) == expected


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Row major linear FP32", "fp32"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Two wide channel vectorized row major FP16 format", "fp16"),
        ("Row major linear BFloat16 format", "bf16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Row major linear INT32", "int32"),
        ("something new", "unknown"),
    ],
)
def test_types_are_read_from_words(words: str, kind: str) -> None:
    layer = {"Name": "a", "Outputs": [{"Format/Datatype": words}]}
    assert parse_layers(json.dumps({"Layers": [layer], "Bindings": []}), "x").types == {kind: 1}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"Layers": 3, "Bindings": []}', '{"Layers": [{}], "Bindings": []}', "null"],
)
def test_what_is_none_is_one_error(text: str) -> None:
    with pytest.raises(BackendError, match="x: is not engine information of TensorRT") as caught:
        parse_layers(text, "x")
    assert "--exportLayerInfo" in caught.value.fix
