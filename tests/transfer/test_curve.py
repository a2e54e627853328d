"""The learning curve finds the power law that its data were drawn from, and owns up to doubt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from edgexfer.cli import run
from edgexfer.core.errors import RecipeError
from edgexfer.core.rundir import read_run
from edgexfer.core.stats import wilson
from edgexfer.recipe import DataSection, ModelSection, TeacherSection, TrainSection
from edgexfer.transfer.curve import fit_curve, learning_curve
from tests.pictures import write_folder

pytestmark = pytest.mark.torch

SIZES = (250, 500, 1000, 2000)


def drawn(
    a: float, b: float, c: float, n: int, seed: int, seeds: int = 2
) -> dict[int, list[list[bool]]]:
    """Draw rights from e(n) = a + b (n/2000)^-c; an image that is hard is so for every size."""
    chance = np.random.default_rng(seed)
    hardness = chance.random(n)
    found = {}
    for size in SIZES:
        error = a + b * (size / SIZES[-1]) ** -c
        found[size] = [
            (np.where(chance.random(n) < 0.7, hardness, chance.random(n)) >= error).tolist()
            for _ in range(2)
        ]
    return found


def test_the_interval_holds_the_truth() -> None:
    """Nominal 95 %; of 20 curves at most 4 may miss, which happens by chance once in 400 times."""
    a, b, c = 0.05, 0.1, 0.5
    truth = 100 * b * (1 - 2**-c)
    found = [fit_curve(drawn(a, b, c, 1000, seed)) for seed in range(20)]
    missed = sum(not f.gain_low_pt <= truth <= f.gain_high_pt for f in found)
    assert missed <= 4
    assert abs(np.median([f.gain_pt for f in found]) - truth) < 0.8


def test_a_curve_with_no_noise_is_extrapolated_exactly() -> None:
    n = 20000
    places = np.arange(n) / n
    errors = {size: 0.1 + 0.08 * (size / 2000) ** -0.65 for size in SIZES}
    found = fit_curve({size: [(places >= error).tolist()] for size, error in errors.items()})
    assert found.exponent == pytest.approx(0.65, abs=0.06)
    assert found.gain_pt == pytest.approx(100 * 0.08 * (1 - 2**-0.65), abs=0.1)
    assert found.points[0].top1_pct == pytest.approx(100 * (1 - errors[250]), abs=0.01)
    assert "you would gain about" in found.verdict


def test_a_flat_curve_promises_nothing() -> None:
    found = fit_curve(drawn(0.2, 0.0, 1.0, 300, seed=1))
    assert found.gain_low_pt == pytest.approx(0, abs=1e-6)
    assert "cannot be told" in found.verdict


@pytest.mark.parametrize("n", [8, 200])
@pytest.mark.parametrize("right", [True, False])
def test_no_error_and_no_hit_are_no_certainty(right: bool, n: int) -> None:
    found = fit_curve({size: [[right] * n] * 2 for size in SIZES})
    least, most = wilson(n if right else 0, n)
    for point in found.points:
        assert point.top1_pct == (100 if right else 0)
        assert point.low_pct == pytest.approx(100 * least, abs=1000 / n / 8)
        assert point.high_pct == pytest.approx(100 * most, abs=1000 / n / 8)
    assert found.gain_pt == found.gain_low_pt == 0
    assert found.gain_high_pt > 10 / n
    assert "cannot be told" in found.verdict


def test_away_from_the_ends_the_interval_is_wilsons() -> None:
    found = fit_curve({size: [[i % 4 > 0 for i in range(400)]] for size in SIZES})
    low, high = wilson(300, 400)
    for point in found.points:
        assert (point.low_pct, point.high_pct) == pytest.approx((100 * low, 100 * high), abs=0.7)


TRAIN = TrainSection(epochs=1, batch_size=8, augment="none", precision="fp32", compile="off")
TEACHER = TeacherSection(ModelSection("resnet8", size=16), "scratch", train=TRAIN)


def test_sizes_nest_and_are_trained_once(tmp_path: Path) -> None:
    data = DataSection(str(write_folder(tmp_path / "pictures", 24)))
    out = tmp_path / "curve"
    found = learning_curve(data, TEACHER, out, fractions=(0.25, 0.5, 1), seeds=1)
    runs = sorted(p.parent.name for p in out.glob("*/seed-0"))
    assert runs == sorted(str(p.images) for p in found.points)
    assert {read_run(out / name / "seed-0").result["test"]["n"] for name in runs} == {found.n}
    stamps = [p.stat().st_mtime_ns for p in sorted(out.rglob("weights.safetensors"))]
    assert learning_curve(data, TEACHER, out, fractions=(0.25, 0.5, 1), seeds=1) == found
    assert [p.stat().st_mtime_ns for p in sorted(out.rglob("weights.safetensors"))] == stamps


def test_the_verb_prints_draws_and_takes_up_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_folder(tmp_path / "pictures", 24), tmp_path / "curve"
    words = ["curve", "--data", data, "--model", "resnet8", "--size", "16", "--strategy", "scratch"]
    words += ["--epochs", "1", "--batch-size", "8", "--augment", "none", "--precision", "fp32"]
    words += ["--compile", "off", "--fractions", "0.25,0.5,1", "--seeds", "1", "--out", out]
    assert run([str(w) for w in words]) == 0
    text = capsys.readouterr().out
    assert text.count("training images: ") == 3 and "twice the data" in text
    root = ElementTree.parse(out / "curve.svg").getroot()
    assert root.tag.endswith("svg")
    assert run([*(str(w) for w in words), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["points"][-1]["images"] > 40
    words[words.index("0.25,0.5,1")] = "half"
    assert run([str(w) for w in words]) == 2
    assert "--fractions half: is not a list of numbers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fractions", "seeds", "what", "fix"),
    [
        ((0.5, 1), 1, "give 2 sizes", "at least three"),
        ((0, 0.5, 1), 1, "one is not above 0", "0.125"),
        ((0.25, 0.5, 1), 0, "--seeds 0", "at least 1"),
        ((0.1, 0.5, 1), 1, "smallest is 6 of 60 training images, but there are 10", "leave out"),
    ],
)
def test_too_little_for_a_curve_is_refused(
    tmp_path: Path, fractions: tuple[float, ...], seeds: int, what: str, fix: str
) -> None:
    data = replace(DataSection("digits"), limit=60)
    with pytest.raises(RecipeError) as caught:
        learning_curve(data, TEACHER, tmp_path / "c", fractions=fractions, seeds=seeds)
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert not (tmp_path / "c").exists()
