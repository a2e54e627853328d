"""Help is fast because it imports nothing heavy, and it ends with examples."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click
import pytest

from edgexfer.cli import VERBS, cli, run

HEAVY = ("numpy", "torch", "timm", "onnx", "onnxruntime", "openvino", "pydantic", "ruamel", "PIL")
LEAVES: list[tuple[str, ...]] = [(verb,) for verb in VERBS if verb not in ("data", "profiles")]
LEAVES += [("data", "check"), *(("profiles", v) for v in ("list", "show", "check", "probe"))]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import json, sys\n"
        "from edgexfer.cli import run\n"
        f"codes = [run([*words, '--help']) for words in {[(), *LEAVES]!r}]\n"
        f"heavy = sorted(set(sys.modules) & set({HEAVY!r}))\n"
        "print(json.dumps([codes, heavy]), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    codes, heavy = json.loads(done.stderr)
    assert codes == [0] * (len(LEAVES) + 1)
    assert heavy == []


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_each_verb_ends_with_an_example(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--help"]) == 0
    out = capsys.readouterr().out
    if words[0] != "profiles" or len(words) == 1:
        last = out.rstrip().partition("Examples:")[2]
        assert f"edgexfer {words[0]}" in last
    assert "\b" not in out


def test_every_option_is_explained() -> None:
    seen = 0
    for words in LEAVES:
        command: click.Command | None = cli
        for word in words:
            assert isinstance(command, click.Group)
            command = command.get_command(click.Context(cli), word)
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option) and option.name not in ("out", "help"):
                assert option.help, f"{words}: {option.name}"
                seen += 1
    assert seen > 60


def _on(*words: str) -> click.Option:
    command: click.Command | None = cli
    for word in words:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(cli), word)
    assert command is not None
    [found] = [o for o in command.params if isinstance(o, click.Option) and o.name == "on"]
    return found


def test_only_verbs_that_take_several_machines_say_so() -> None:
    for words in (("export",), ("doctor",), ("profiles", "probe")):
        assert _on(*words).metavar == "MACHINE"
        assert "several" not in (_on(*words).help or "")
    for verb, what in (("bench", "work side by side"), ("verify", "check one after another")):
        assert _on(verb).metavar == "MACHINE[,MACHINE]"
        assert f"; several {what}." in (_on(verb).help or "")


def test_no_words_print_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "Start here:" in capsys.readouterr().out


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("edgexfer, version 0.")


def test_an_unexpected_error_is_two_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(cli, "main", broken)
    assert run(["doctor"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: unexpected ZeroDivisionError at test_help.py:")
    assert lines[1] == "  fix: run it again with --debug and report what it prints"


def test_debug_prints_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profiles", "show", "nothing-like-it"], debug=True) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--help",), ("profiles", "show", "jetson")], ids=" ".join)
def test_a_reader_that_has_gone_is_no_fault(words: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "edgexfer", *words],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_list_of_verbs_cuts_no_sentence_short(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["data"], ["profiles"]):
        assert run([*words, "--help"]) == 0
        verbs = capsys.readouterr().out.partition("Commands:")[2]
        assert verbs and "..." not in verbs
