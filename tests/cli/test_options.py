"""Options that several verbs read alike, and recipes that are refused before a folder is made."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest

from edgexfer.cli import run
from edgexfer.cli.options import attribute_docs, beside, section_options
from edgexfer.recipe import StudentSection, TrainSection, load_recipe
from edgexfer.transfer.plan import strategy_names
from tests.cli.bad import Place

RECIPE = """\
name: odd
data: {path: digits}
student:
  model: {name: resnet8, size: 16}
"""


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that is refused as wrong input, and return its two lines."""
    assert run([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 2, err
    return err


def test_targets_may_have_spaces_around_their_commas(tmp_path: Path) -> None:
    place = tmp_path / "new" / "recipe.yaml"
    assert run(["init", "digits", "--target", "x86-openvino, jetson,", "-o", str(place)]) == 0
    assert load_recipe(place).export.targets == ("x86-openvino", "jetson")


@pytest.mark.parametrize("target", ["", ",", " , "])
@pytest.mark.parametrize("words", [("init", "digits"), ("export", "run"), ("bench", "bundle")])
def test_a_target_has_a_name(
    words: tuple[str, str], target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    err = refused(capsys, *words, "--target", target)
    assert "--target names no profile" in err
    assert f"edgexfer {words[0]} --help" in err


def test_a_folder_is_no_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, "init", "digits", "--target", "jetson", "-o", tmp_path)
    assert "is a folder" in err
    assert str(tmp_path / "recipe.yaml") in err


def test_a_name_is_longer_by_its_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert beside(Path("runs/a/"), "-bundle") == Path("runs/a-bundle")
    assert beside(Path(), "-bench") == tmp_path.with_name(tmp_path.name + "-bench")
    assert beside(Path(".."), "-bench").name == tmp_path.parent.name + "-bench"


def test_eval_takes_no_part_of_images_that_are_not_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for verb in ("eval", "audit"):
        assert "--split-seed needs --data" in refused(capsys, verb, "run", "--split-seed", 3)


def test_predict_says_which_image_is_none(
    good: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    err = refused(capsys, "predict", good.bundle, tmp_path / "cat.jpg")
    assert "cat.jpg: no such file" in err
    assert "name image files" in err
    assert f"{tmp_path}: is a folder" in refused(capsys, "predict", good.bundle, tmp_path)
    assert "--top" in refused(capsys, "predict", good.bundle, "cat.jpg", "--top", 0)


def test_a_parsers_own_error_names_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert "edgexfer run --help" in refused(capsys, "run", "recipe.yaml", "--set")


@pytest.mark.parametrize(
    ("change", "what", "mend"),
    [
        ("name=../elsewhere", "name '../elsewhere'", "--out"),
        ("name='..'", "name '..'", "--out"),
        ("name=''", "name ''", "--out"),
        ("export.targets=[]", "export.targets is empty", "profiles list"),
        ("student.model.name=resnt8", "'resnt8'", "resnet8"),
        ("student.loss=kl", "'kl'", "kd"),
    ],
)
def test_a_trip_refuses_before_it_begins(
    change: str,
    what: str,
    mend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)
    err = refused(capsys, "run", "recipe.yaml", "--set", change)
    assert what in err.splitlines()[0]
    assert mend in err.splitlines()[1]
    assert [f.name for f in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_refused_recipe_does_not_stand_for_the_trip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, made_by = tmp_path / "recipe.yaml", tmp_path / "trip" / "recipe.yaml"
    recipe.write_text(RECIPE)
    made_by.parent.mkdir()
    made_by.write_text("what it was made by")
    (made_by.parent / "trip.json").write_text("{}")
    missing = f"data.path={tmp_path / 'nowhere'}"
    err = refused(capsys, "run", recipe, "--set", missing, "--out", made_by.parent)
    assert "nowhere" in err
    assert made_by.read_text() == "what it was made by"


def test_a_list_has_commas_between_its_values() -> None:
    seen: dict[str, Any] = {}

    @click.command("x")
    @section_options(TrainSection)
    @section_options(StudentSection, leave_out=("model", "train"))
    def command(**given: Any) -> None:
        seen.update(given)

    given = ["--milestones", "150, 180,210", "--teacher-weights", "0.5,2", "--assistants", "a,b"]
    command.main(given, standalone_mode=False)
    assert seen["milestones"] == (150, 180, 210)
    assert seen["teacher_weights"] == (0.5, 2.0)
    assert seen["assistants"] == ("a", "b")
    with pytest.raises(click.BadParameter, match="'1x' is not a valid integer"):
        command.main(["--milestones", "1x"], standalone_mode=False)


def test_the_help_of_a_flag_says_its_default() -> None:
    @click.command()
    @section_options(TrainSection)
    def verb(**_: Any) -> None:
        """Take the options and do nothing with them."""

    texts = {p.name: str(getattr(p, "help", "")) for p in verb.params}
    assert texts["nesterov"].endswith("[default: nesterov]")
    assert texts["decay_all"].endswith("[default: no-decay-all]")
    assert "[default:" not in texts["patience"]


def test_the_list_of_strategies_has_papers_and_options_in_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["finetune", "--list-strategies"]) == 0
    parts: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        if not line.startswith(" "):
            parts[line.partition(":")[0]] = lines = []
        else:
            lines.append(line.strip())
    assert tuple(parts) == strategy_names()
    without = {n for n, lines in parts.items() if not re.search(r'", .*\d{4}$', "".join(lines[:1]))}
    assert without == {"full", "scratch"}, "a control, and what everybody does"
    assert parts["mmd"][0].startswith('Long et al., "Learning Transferable Features with')
    assert 'ICML 2015; Gretton et al., "A Kernel Two-Sample Test", JMLR 2012' in parts["mmd"][0]
    options = [line for lines in parts.values() for line in lines if line.startswith("--option")]
    assert (
        "--option alpha=...  Scale of the changes, divided by the rank (α).  [default: 16.0]"
        in (parts["lora"])
    )
    for line in options:
        words = line.partition("=...  ")[2].partition("  [default")[0].split()
        assert len(words) > 2, line


def test_a_text_that_opens_with_a_symbol_keeps_it() -> None:
    class Section:
        """Of a kind.

        Attributes:
            first: η.
            second: a folder.
            third: ``none`` takes all.
        """

    assert list(attribute_docs(Section).values()) == ["η.", "A folder.", "none takes all."]
