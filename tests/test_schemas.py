"""The published JSON Schemas are those of the code, and an editor that reads them is told right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from edgexfer.core.profile import HardwareProfile
from edgexfer.recipe import recipe_schema

NAMES = ("recipe", "profile")


def made(name: str) -> str:
    if name == "recipe":
        return recipe_schema()
    schema = TypeAdapter(HardwareProfile).json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_the_published_schema_is_that_of_the_code(name: str, root: Path, regen: bool) -> None:
    place = root / "schemas" / f"{name}.schema.json"
    if regen:
        place.write_text(made(name), encoding="utf-8")
    assert place.read_text(encoding="utf-8") == made(name), "run `make schemas`"


def nodes(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value, *(n for v in value.values() for n in nodes(v))]
    return [n for v in value for n in nodes(v)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", NAMES)
def test_unknown_keys_are_marked_and_known_ones_are_offered(name: str, root: Path) -> None:
    schema = json.loads((root / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))
    objects = [n for n in nodes(schema) if n.get("type") == "object" and "properties" in n]
    assert len(objects) >= 5
    assert all(n["additionalProperties"] is False for n in objects)
    assert schema["$schema"].endswith("2020-12/schema")


def test_editors_find_the_schemas(root: Path) -> None:
    settings = json.loads((root / ".vscode" / "settings.json").read_text(encoding="utf-8"))
    known = settings["yaml.schemas"]
    assert set(known) == {f"./schemas/{name}.schema.json" for name in NAMES}
    for patterns in known.values():
        assert any(list(root.glob(pattern.lstrip("/"))) for pattern in patterns)
