"""The whole trip, from a recipe to the report, and what a second call of it does."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from edgexfer.core.bundle import read_manifest
from edgexfer.core.errors import RecipeError, RunError
from edgexfer.core.record import read_record
from edgexfer.core.rundir import read_run
from edgexfer.pipeline import State, run_recipe
from edgexfer.recipe import Recipe, load_recipe
from tests.pictures import write_folder

ROOT = Path(__file__).resolve().parent.parent
RECIPE = """\
name: tiny
data: {path: PICTURES}
teacher:
  model: {name: resnet14, size: 16}
  strategy: scratch
  train: {epochs: 6, batch_size: 16, augment: none, precision: fp32}
student:
  model: {name: resnet8, size: 16}
  control: true
  train: {epochs: 6, batch_size: 16, augment: none, precision: fp32}
export: {targets: [x86-onnxruntime], precision: all, max_drop: 20.0}
bench: {processes: 2, seconds: 0.05, samples: 60}
"""


def tiny(tmp_path: Path, *overrides: str) -> Recipe:
    """Load the recipe of a trip that takes seconds."""
    pictures = tmp_path / "pictures"
    if not pictures.exists():
        write_folder(pictures)
    place = tmp_path / "recipe.yaml"
    place.write_text(RECIPE.replace("PICTURES", str(pictures)))
    return load_recipe(place, overrides)


def stamps(trip: Path) -> dict[str, int]:
    """Return when each file of the trip was last written."""
    return {
        str(f.relative_to(trip)): f.stat().st_mtime_ns
        for f in trip.rglob("*")
        if f.is_file() and f.stem != "report" and f.name not in ("recipe.yaml", ".lock")
    }


def test_a_trip_and_its_second_call(tmp_path: Path) -> None:
    trip = run_recipe(tiny(tmp_path), tmp_path / "trip")

    records = {p.stem: read_record(p) for p in trip.records}
    assert set(records) == {"x86-onnxruntime-fp32", "x86-onnxruntime-int8", "x86-torch-fp32"}
    # A busy machine may spoil latencies, and the record says so; no job fails, no output is wrong.
    assert all(r.status != "failed" for r in records.values())
    assert not any(run.faults for r in records.values() for run in r.processes)
    assert records["x86-torch-fp32"].bundle["model"] == "resnet14"
    student = read_run(trip.path / "student")
    fp32 = records["x86-onnxruntime-fp32"].accuracy
    assert fp32 is not None
    # The artefact's accuracy on the device is the trainer's, image for image.
    assert fp32.correct == student.result["test"]["correct"]
    saved = json.loads((trip.path / "student" / "predictions.json").read_text())
    assert list(fp32.predictions) == saved["predictions"]
    assert trip.gain is not None
    assert "tiny" in trip.report.read_text() or "resnet8" in trip.report.read_text()

    before = stamps(trip.path)
    again = run_recipe(tiny(tmp_path), tmp_path / "trip")
    assert again.records == trip.records
    assert stamps(trip.path) == before, "a stage whose inputs had not changed was done again"


def test_a_changed_export_keeps_the_trainings_and_the_former_bundle(tmp_path: Path) -> None:
    short = ("student.train.epochs=1", "student.control=false", "teacher=null")
    trip = run_recipe(tiny(tmp_path, *short, "export.precision=fp32"), tmp_path / "trip")
    assert [p.stem for p in trip.records] == ["x86-onnxruntime-fp32"]
    weights = stamps(trip.path)["student/model/weights.safetensors"]

    trip = run_recipe(tiny(tmp_path, *short, "export.max_drop=100.0"), tmp_path / "trip")
    assert len(trip.records) == 2
    assert stamps(trip.path)["student/model/weights.safetensors"] == weights
    assert (trip.path / "bundle.previous" / "manifest.json").is_file()


def test_a_recipe_that_lies_where_the_trip_would_is_kept(tmp_path: Path) -> None:
    recipe = tiny(tmp_path)
    with pytest.raises(RecipeError, match=r"recipe\.yaml: already exists") as caught:
        run_recipe(recipe, tmp_path)
    assert caught.value.fix == "choose another --out"
    assert (tmp_path / "recipe.yaml").read_text().startswith("name: tiny\ndata:")


def test_an_interrupted_benchmark_goes_on(tmp_path: Path) -> None:
    made = State(tmp_path)

    def interrupted(place: Path) -> None:
        (place / ".unfinished").mkdir(parents=True)
        raise KeyboardInterrupt

    def finish(place: Path) -> None:
        assert (place / ".unfinished").is_dir()

    for goes_on in (True, False):
        name = f"bench-{goes_on}"
        with pytest.raises(KeyboardInterrupt):
            made.make(name, ["inputs"], interrupted, goes_on=goes_on)
    made = State(tmp_path)
    assert made.make("bench-True", ["inputs"], finish, goes_on=True).is_dir()
    with pytest.raises(AssertionError):
        made.make("bench-False", ["inputs"], finish)
    assert (tmp_path / "bench-False.previous" / ".unfinished").is_dir()
    with pytest.raises(AssertionError):
        State(tmp_path).make("bench-True", ["others"], finish, goes_on=True)


def test_a_changed_training_is_refused_with_the_difference(tmp_path: Path) -> None:
    short = ("student.control=false", "teacher=null", "export.precision=fp32")
    run_recipe(tiny(tmp_path, *short, "student.train.epochs=1"), tmp_path / "trip")
    with pytest.raises(RunError, match=r"train\.epochs: 1 -> 2"):
        run_recipe(tiny(tmp_path, *short, "student.train.epochs=2"), tmp_path / "trip")


@pytest.mark.slow
def test_the_cifar10_recipe_on_a_few_hundred_images(shared_data: Path, tmp_path: Path) -> None:
    overrides = [
        f"data.path={_some_of_cifar10(shared_data, tmp_path)}",
        "teacher.model.name=resnet8",
        # A teacher that knows no more than chance would be refused.
        "teacher.train.epochs=8",
        "teacher.train.batch_size=32",
        "teacher.train.lr=0.05",
        "student.train.epochs=1",
        "export.max_drop=20.0",
        "bench.processes=1",
        "bench.seconds=0.1",
    ]
    recipe = load_recipe(ROOT / "examples" / "cifar10" / "recipe.yaml", overrides)
    trip = run_recipe(recipe, tmp_path / "trip")
    # Which CPU has bf16 is no business of the recipe.
    assert {p.stem for p in trip.records} - {"x86-openvino-bf16"} == {
        "x86-onnxruntime-fp32",
        "x86-onnxruntime-int8",
        "x86-openvino-fp32",
        "x86-openvino-int8",
        "x86-torch-fp32",
    }
    assert read_run(trip.path / "student").result["test"]["n"] == 600


def _some_of_cifar10(shared_data: Path, tmp_path: Path) -> Path:
    """Unpack 60 images of each class for training and 60 for testing."""
    with tarfile.open(shared_data / "cifar10.tar.gz") as archive:
        few = [m for m in archive if m.isfile() and int(Path(m.name).stem) < 60]
        archive.extractall(tmp_path, members=few, filter="data")
    return tmp_path / "cifar10"


def test_a_trip_is_not_for_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="a whole trip runs in one process") as caught:
        run_recipe(tiny(tmp_path), tmp_path / "trip")
    assert "finetune and distill" in caught.value.fix
    assert not (tmp_path / "trip").exists()


@pytest.mark.slow
def test_the_photographs_at_224_pixels(shared_data: Path, tmp_path: Path) -> None:
    with tarfile.open(shared_data / "pacs.tar") as archive:
        photos = [m for m in archive.getmembers() if m.name.startswith("pacs/photo/")]
        archive.extractall(tmp_path, members=photos, filter="data")
    overrides = [
        f"data.path={tmp_path / 'pacs' / 'photo'}",
        # The recipe's own schedule: a teacher of less would know no more than chance.
        "student.control=false",
        "export.max_drop=20.0",
        "bench.processes=1",
        "bench.seconds=0.2",
    ]
    recipe = load_recipe(ROOT / "examples" / "own-images" / "recipe.yaml", overrides)
    trip = run_recipe(recipe, tmp_path / "trip")
    assert {p.stem for p in trip.records} >= {"x86-openvino-fp32", "x86-onnxruntime-fp32"}
    # Whether the INT8 of so unsure a net is near enough is for the export to say.
    choices = read_manifest(tmp_path / "trip" / "bundle").choices
    assert len(choices) == 2
    assert all("INT8" in choice.verdict for choice in choices)


@pytest.mark.slow
def test_the_quickstart_in_python(tmp_path: Path) -> None:
    script = ROOT / "examples" / "digits" / "trip.py"
    argv = [sys.executable, str(script), "--epochs", "2", "--out", str(tmp_path / "trip")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=600)
    assert "the first digit is a 0" in done.stdout
    assert Path(done.stdout.strip().splitlines()[-1].removeprefix("report: ")).is_file()


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("student.loss=kd,kdd", "loss 'kdd' is unknown"),
        ("student={model: {name: resnet8}, loss: dkd, train: {mixup: 0.2}}", "one true class"),
        ("student.qat_for=x86-onnxruntime", "trained in float already"),
        ("teacher=null", "student.control is set, but the recipe has no teacher"),
    ],
)
def test_a_student_that_cannot_be_trained_is_refused_before_its_teacher_is(
    tmp_path: Path, override: str, what: str
) -> None:
    with pytest.raises(RecipeError, match=what):
        run_recipe(tiny(tmp_path, override), tmp_path / "trip")
    assert not (tmp_path / "trip").exists()


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("student.loss=dkd+hint@2", r"student.loss 'dkd\+hint@2' asks a teacher"),
        ("student.class_map=names.yaml", "student.class_map is set"),
        ("student.standardise=true", "student.standardise is set"),
    ],
)
def test_what_only_a_teacher_gives_a_meaning_to_is_refused_without_one(
    tmp_path: Path, override: str, what: str
) -> None:
    alone = tiny(tmp_path, "teacher=null", "student.control=false", override)
    with pytest.raises(RecipeError, match=f"{what}, but the recipe has no teacher") as caught:
        run_recipe(alone, tmp_path / "trip")
    assert "leave out student." in caught.value.fix


def test_losses_are_not_compared_where_nobody_teaches(tmp_path: Path) -> None:
    alone = tiny(tmp_path, "teacher=null", "student.control=false", "student.loss='kd,dkd'")
    with pytest.raises(
        RecipeError, match="compares losses, but the recipe has no teacher"
    ) as caught:
        run_recipe(alone, tmp_path / "trip")
    assert "add a teacher" in caught.value.fix
    assert not (tmp_path / "trip").exists()
