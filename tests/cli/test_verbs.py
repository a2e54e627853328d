"""The verbs on a tiny trip: what they print, what --json prints, and the Python API beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import edgexfer
from edgexfer.cli import run
from edgexfer.recipe import load_recipe
from tests.cli.bad import Place
from tests.pictures import picture, write_folder


def said(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    """Run a command, check its exit code, and return its stdout."""
    capsys.readouterr()
    found = run([str(w) for w in words])
    out, err = capsys.readouterr()
    assert found == code, err
    return out


def answered(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> Any:
    """Run a command with --json; its whole stdout must be one JSON document."""
    return json.loads(said(capsys, *words, "--json", code=code))


def test_eval_of_a_run_and_of_its_bundle_agree(
    good: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_score,) = answered(capsys, "eval", good.run)
    scores = answered(capsys, "eval", good.bundle, "--data", good.pictures)
    by_name = {s["name"]: s for s in scores}
    assert by_name["x86-onnxruntime-fp32"]["correct"] == run_score["correct"]
    assert run_score["n"] == sum(c["n"] for c in run_score["classes"].values()) > 0
    assert "worst class" in said(capsys, "eval", good.run)


def test_audit_compares_a_bundle_with_its_run_class_by_class(
    good: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    subjects = (good.run, good.bundle, "--data", good.pictures)
    found = answered(capsys, "audit", *subjects)
    scores = answered(capsys, "eval", good.bundle, "--data", good.pictures)
    assert [s["name"] for s in found["subjects"][1:]] == [
        f"{good.bundle.name}/{s['name']}" for s in scores
    ]
    for subject, score in zip(found["subjects"][1:], scores, strict=True):
        assert {g["group"]: g["correct"] for g in subject["groups"]} == {
            name: c["correct"] for name, c in score["classes"].items()
        }
    assert "points" in said(capsys, "audit", *subjects, "--max-drop", "100")
    # A few images cannot show that a group loses less than a tenth of a point.
    assert "limit: " in said(capsys, "audit", *subjects, "--max-drop", "0.1", code=1)


def test_eval_matches_classes_by_name(
    good: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = tmp_path / "two"
    for name in ("red", "blue"):  # `green` is gone, so every index differs
        shutil.copytree(good.pictures / name, two / name)
    (score,) = answered(capsys, "eval", good.run, "--data", two)
    assert sorted(score["classes"]) == ["blue", "red"]
    assert score["top1_pct"] > 60


def test_predict_says_the_colour(
    good: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture((200, 50, 40), seed=4242).save(tmp_path / "new.png")
    (prediction,) = answered(capsys, "predict", good.bundle, tmp_path / "new.png")
    assert prediction["label"] == "red"
    assert sum(prediction["probabilities"].values()) == pytest.approx(1.0)
    assert "new.png: red" in said(capsys, "predict", good.bundle, tmp_path / "new.png")


def test_predict_in_python_takes_files_bytes_and_arrays(good: Place) -> None:
    file = next((good.pictures / "blue").iterdir())
    with edgexfer.load_bundle(good.bundle) as bundle:
        import numpy as np
        from PIL import Image

        sources = (file, file.read_bytes(), np.asarray(Image.open(file)))
        answers = [bundle.predict(source) for source in sources]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0].label == "blue"


def test_predict_sees_a_large_photograph_as_training_would(good: Place, tmp_path: Path) -> None:
    from edgexfer.data.dataset import open_dataset
    from edgexfer.data.images import load_images

    photos = tmp_path / "photos"
    for name in ("blue", "red"):
        (photos / name).mkdir(parents=True)
        for i in range(5):
            picture((90, 90, 160), seed=i, size=800).save(photos / name / f"{i}.jpg", quality=90)
    with edgexfer.load_bundle(good.bundle) as bundle:
        images = load_images(open_dataset(str(photos)), "train", bundle.manifest.preprocess)
        for i, key in enumerate(images.keys):
            seen, _ = bundle.prepare(photos / key)
            assert (images.pixels([i])[0].permute(1, 2, 0).numpy() == seen).all()
        assert len(images) > 0


def test_verify_finds_a_good_bundle_good(good: Place, capsys: pytest.CaptureFixture[str]) -> None:
    findings = answered(capsys, "verify", good.bundle)
    assert {f["status"] for f in findings} == {"ok"}
    assert {"files", "preprocess", "x86-onnxruntime-int8"} <= {f["name"] for f in findings}


def test_bench_writes_records_and_a_table(
    good: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("--processes", 2, "--seconds", 0.05, "--samples", 60)
    out = said(capsys, "bench", good.bundle, "--out", tmp_path / "bench", *short)
    assert "x86-onnxruntime-int8" in out
    records = sorted((tmp_path / "bench").glob("*.json"))
    assert len(records) == 2
    page = said(capsys, "report", good.bundle, *records, "-o", tmp_path / "r.html").strip()
    assert Path(page).stat().st_size > 10_000


def test_profiles_are_listed_shown_probed_and_checked(
    good: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = {p["name"] for p in answered(capsys, "profiles", "list")}
    assert {"x86-onnxruntime", "x86-openvino", "rpi5-onnxruntime", "jetson-orin-nano"} <= listed
    assert "provided, not measured" in said(capsys, "profiles", "list")
    assert answered(capsys, "profiles", "show", "jetson")["name"] == "jetson-orin-nano"
    place = tmp_path / "pp.yaml"
    probed = said(capsys, "profiles", "probe", "-o", place)
    assert probed == f"{place}: is written. Name it with --target {place}\n"
    assert "good profile" in said(capsys, "profiles", "check", place)
    assert answered(capsys, "profiles", "show", place)["name"] == "pp"
    file = next((good.bundle / "models").glob("fp32*.onnx"))
    assert "nothing found for pp" in said(capsys, "lint", file, "--target", place)


def test_doctor_finds_the_base_whole(capsys: pytest.CaptureFixture[str]) -> None:
    findings = answered(capsys, "doctor")
    by_name = {f["name"]: f for f in findings}
    assert by_name["backend onnxruntime"]["status"] == "ok"
    assert not [f for f in findings if f["status"] == "missing"]
    assert "python3-libnvinfer" in by_name["backend tensorrt"]["fix"]


def test_data_check_tells_good_from_bad(
    good: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "red" in said(capsys, "data", "check", good.pictures)
    spoilt = write_folder(tmp_path / "spoilt", 8)
    (spoilt / "red" / "00.png").write_bytes(b"no picture")
    found = answered(capsys, "data", "check", spoilt, code=1)
    assert "red/00.png" in json.dumps(found)


@pytest.mark.parametrize("target", ["x86-openvino", "jetson,rpi5-onnxruntime"])
def test_init_writes_a_recipe_that_loads(
    good: Place, tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "recipe.yaml"
    said(capsys, "init", good.pictures, "--target", target, "-o", place)
    recipe = load_recipe(place)
    assert recipe.export.targets == tuple(target.split(","))
    assert recipe.data.path == str(good.pictures)
    assert recipe.student.model.size == 16
    assert place.read_text().count("#") > 8


def test_init_takes_imagenet_models_for_large_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for c, colour in {"no": (20, 40, 60), "<yes>": (200, 100, 50)}.items():
        (tmp_path / "photos" / c).mkdir(parents=True)
        for i in range(4):
            picture(colour, seed=i, size=230).save(tmp_path / "photos" / c / f"{i}.jpg")
    said(capsys, "init", tmp_path / "photos", "--target", "jetson", "-o", tmp_path / "r.yaml")
    recipe = load_recipe(tmp_path / "r.yaml")
    assert recipe.teacher is not None
    assert (recipe.teacher.model.name, recipe.teacher.strategy) == ("resnet50", "freeze")
    assert (recipe.student.model.size, recipe.teacher.model.pretrained) == (224, True)


def test_finished_runs_are_not_trained_again(
    good: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.cli.bad import AS_TRAINED, finetune

    before = (good.run / "run.json").read_bytes()
    out = said(capsys, *finetune(good.pictures, *AS_TRAINED, out=good.run))
    assert "on 14 test images" in out or "test images" in out
    assert (good.run / "run.json").read_bytes() == before
