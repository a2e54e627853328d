"""Several tasks on the whole trip: from a recipe with a table of labels to the page."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgexfer
from edgexfer.cli import run
from edgexfer.core.record import read_record
from edgexfer.core.rundir import read_run
from edgexfer.pipeline import Trip, run_recipe
from edgexfer.recipe import DataSection, ModelSection, TeacherSection, TrainSection, load_recipe
from edgexfer.report.accuracy import image_sets, task_tables
from edgexfer.report.changes import changes
from edgexfer.report.collect import collect
from edgexfer.report.view import grouped
from tests.pictures import write_folder, write_table

pytestmark = [pytest.mark.torch, pytest.mark.ort]

TRAIN = TrainSection(
    epochs=4,
    batch_size=16,
    lr=1e-2,
    augment="none",
    precision="fp32",
    compile="off",
    balance="uncertainty",
)
# The student learns too little to be right everywhere, so that there is something to tell.
RECIPE = """\
name: tasks
data: {path: PICTURES, labels: TABLE}
teacher:
  model: {name: resnet8, size: 16}
  strategy: scratch
  train: {epochs: 4, batch_size: 16, lr: 1e-2, augment: none, precision: fp32, compile: "off",
          balance: uncertainty}
student:
  model: {name: resnet8, size: 16}
  train: {epochs: 1, batch_size: 16, lr: 1e-3, augment: none, precision: fp32, compile: "off"}
export: {targets: [x86-onnxruntime], precision: all, max_drop: 90.0}
bench: {processes: 1, seconds: 0.05, samples: 40}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSection:
    place = tmp_path_factory.mktemp("tabled")
    pictures = write_folder(place / "pictures")
    return DataSection(str(pictures), labels=str(write_table(pictures, place / "labels.csv")))


@pytest.fixture(scope="module")
def trip(tmp_path_factory: pytest.TempPathFactory, data: DataSection) -> Trip:
    place = tmp_path_factory.mktemp("trip")
    text = RECIPE.replace("PICTURES", data.path).replace("TABLE", str(data.labels))
    (place / "recipe.yaml").write_text(text)
    return run_recipe(load_recipe(place / "recipe.yaml"), place / "trip")


def test_recipe_command_line_and_python_train_the_same(
    tmp_path: Path, trip: Trip, data: DataSection
) -> None:
    wanted = read_run(trip.path / "teacher").result["weights_sha256"]
    words = ["finetune", "--data", data.path, "--labels", str(data.labels), "--model", "resnet8"]
    words += ["--size", "16", "--strategy", "scratch", "--balance", "uncertainty", "--lr", "1e-2"]
    words += ["--epochs", "4", "--batch-size", "16", "--augment", "none", "--precision", "fp32"]
    assert run([*words, "--compile", "off", "--out", str(tmp_path / "cli")]) == 0
    assert read_run(tmp_path / "cli").result["weights_sha256"] == wanted
    section = TeacherSection(ModelSection("resnet8", size=16), "scratch", train=TRAIN)
    info = edgexfer.finetune(data, section, tmp_path / "api")
    assert info.result["weights_sha256"] == wanted


def test_the_page_looks_at_each_task(trip: Trip) -> None:
    found = collect([trip.path])
    rows = [row for group in grouped(found) for row in group.rows]
    [table] = task_tables(rows)
    assert table.names == ("colour", "warm")
    assert {row.artefact for row, _ in table.lines} == {
        *("x86-torch-fp32", "x86-onnxruntime-fp32", "x86-onnxruntime-int8")
    }
    sets = image_sets(found, rows)
    assert [images.task for images in sets] == ["colour", "warm"]
    for number, images in enumerate(sets):
        assert images.names == found.bundles[0].manifest.tasks[number].classes
        assert sum(line.n for line in images.lines) == len(images.labels) == len(images.numbers)
        for subject in images.subjects:
            accuracy = read_record(trip.path / "bench" / f"{subject.row.artefact}.json").accuracy
            assert accuracy is not None
            told = accuracy.tasks[number]
            right = sum(a == b for a, b in zip(subject.predictions, images.labels, strict=True))
            assert (len(images.labels), right) == (told.n, told.correct)
        assert {hop.task for hop in images.hops} == {images.task}
        for part in changes(images):
            for pair in part.pairs:
                assert {pair.label, pair.said} <= set(images.names)
    shares = [share for images in sets for line in images.lines for share in line.shares]
    assert min(shares) < 1, "nobody errs: there was nothing to tell"
    text = trip.report.read_text(encoding="utf-8")
    assert "Accuracy in each task" in text and "Accuracy of each class in warm" in text
    markdown = trip.report.with_suffix(".md").read_text(encoding="utf-8")
    assert "## Accuracy in each task" in markdown and "warm, ECE" in markdown
    assert "ECE" in text
