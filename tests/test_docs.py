"""What the documents say can be typed: commands parse, recipes load, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from edgexfer.cli import cli
from edgexfer.profiles import list_profiles
from edgexfer.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("examples/**/*.md")])
RECIPES = sorted([*ROOT.glob("examples/**/*.yaml"), ROOT / "edgexfer" / "quickstart.yaml"])


def commands(document: Path) -> list[str]:
    """Return the lines of console blocks that call edgexfer, with their continuations."""
    blocks = re.findall(r"```console\n(.*?)```", document.read_text(), flags=re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line[2:] for line in lines if line.startswith("$ edgexfer ")]


def parse(words: list[str]) -> None:
    """Parse a command as the command line would, without running it."""
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        name = words.pop(0)
        inner = command.get_command(context, name)
        assert inner is not None, f"no verb {name}"
        command = inner
    if "--help" not in words:
        command.make_context(command.name, words)


def test_every_command_of_the_documents_parses() -> None:
    seen = 0
    for document in DOCUMENTS:
        for line in commands(document):
            try:
                parse(shlex.split(line, comments=True)[1:])
            except click.ClickException as error:
                pytest.fail(f"{document.relative_to(ROOT)}: {line}: {error.format_message()}")
            seen += 1
    assert seen >= 20, "the sweep over the documents has lost its commands"


def test_every_recipe_loads() -> None:
    names = [load_recipe(recipe).name for recipe in RECIPES]
    assert len(names) >= 3
    assert len(set(names)) == len(names)


def test_links_to_files_lead_somewhere() -> None:
    seen = 0
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document}: {target}"
            seen += 1
    assert seen >= 5


def test_the_table_of_targets_is_that_of_the_profiles() -> None:
    text = (ROOT / "README.md").read_text().partition("## Targets")[2]
    profiles = {p.name: p for p in list_profiles()}
    seen = []
    for row in re.findall(r"^\| (`.*)$", text.partition("\n\n`")[0], flags=re.M):
        first, runtime, precisions, _, hardware = [cell.strip() for cell in row.split("|")[:5]]
        outside = re.sub(r" \(`[^)]*\)", "", first)
        for word in re.findall(r"`([^`]+)`", outside):
            for name in spread(f"jetson{word}" if word.startswith("-") else word):
                profile = profiles[name]
                told = re.findall(r"(?:int|fp|bf)\d+", precisions)
                gone = ["fp32"] if "(not on NPU)" in precisions and profile.device == "NPU" else []
                assert [p for p in told if p not in gone] == list(profile.precisions), name
                assert ("not measured" not in hardware) == profile.seen_on_hardware, name
                assert profile.backend in runtime.lower().replace(" ", "").replace("py", ""), name
                seen.append(name)
    assert sorted(seen) == sorted(profiles)


def spread(name: str) -> list[str]:
    """Return what a name with choices in braces stands for."""
    before, brace, rest = name.partition("{")
    choices, _, after = rest.partition("}")
    return [x for c in choices.split(",") for x in spread(before + c + after)] if brace else [name]


def test_no_verb_is_undocumented() -> None:
    text = (ROOT / "README.md").read_text()
    missing = [v for v in cli.list_commands(click.Context(cli)) if f"edgexfer {v}" not in text]
    assert not missing
