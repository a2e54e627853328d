"""Bad inputs that stages wrote and something spoilt: runs, profiles, bundles, records.

See ``bad.py`` for the others and for what a case may use.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

from tests.cli.bad import AS_TRAINED, Place, distill, finetune
from tests.pictures import COLOURS, write_folder

# Runs.


def out_below_a_file(p: Place) -> list[str]:
    (p.here / "file").write_text("mine")
    return finetune(p.pictures, out=p.here / "file" / "out")


def out_holds_something_else(p: Place) -> list[str]:
    (p.here / "out").mkdir()
    (p.here / "out" / "thesis.tex").write_text("years of work")
    return finetune(p.pictures, out=p.here / "out")


def run_with_other_settings(p: Place) -> list[str]:
    return finetune(p.pictures, *AS_TRAINED, "--lr", "0.5", out=p.own_run())


def run_locked(p: Place) -> list[str]:
    import fcntl

    run = p.own_run()
    holder = (run / ".lock").open("a+")
    fcntl.flock(holder, fcntl.LOCK_EX)
    HELD.append(holder)
    return finetune(p.pictures, out=run)


HELD: list[io.TextIOWrapper] = []


def teacher_unfinished(p: Place) -> list[str]:
    run = p.own_run()
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**info, "status": "interrupted"}))
    return distill(p, teacher=run)


def teacher_is_no_run(p: Place) -> list[str]:
    return distill(p, teacher=p.pictures)


def teacher_lacks_a_class(p: Place) -> list[str]:
    root = write_folder(p.here / "more", 8, {**COLOURS, "mauve": (200, 120, 200)})
    return distill(p, data=root)


def run_weights_flipped(p: Place) -> list[str]:
    run = p.own_run()
    _flip(run / "model" / "weights.safetensors")
    return ["export", str(run), "--target", "x86-onnxruntime", "--out", str(p.here / "bundle")]


def export_unknown_target(p: Place) -> list[str]:
    return ["export", str(p.run), "--target", "x86-onnxrt", "--out", str(p.here / "bundle")]


def export_over_something(p: Place) -> list[str]:
    (p.here / "bundle").mkdir()
    (p.here / "bundle" / "thesis.tex").write_text("years of work")
    argv = ["export", str(p.run), "--target", "x86-onnxruntime"]
    return [*argv, "--out", str(p.here / "bundle")]


# Profiles.


def profile_unknown(p: Place) -> list[str]:
    return ["profiles", "show", "jetzon"]


def profile_many_faults(p: Place) -> list[str]:
    place = p.here / "mine.yaml"
    place.write_text("name: mine\ntitle: 3\nbackend: onnxrt\nmachine: x86_64\nprecisons: [fp32]\n")
    return ["profiles", "check", str(place)]


# Bundles.


def bundle_is_none(p: Place) -> list[str]:
    return ["verify", str(p.pictures)]


def bundle_flipped_bit(p: Place) -> list[str]:
    bundle = p.own_bundle()
    _flip(next(bundle.rglob("*.onnx")))
    return ["verify", str(bundle)]


def bundle_file_missing(p: Place) -> list[str]:
    bundle = p.own_bundle()
    next(bundle.rglob("*.onnx")).unlink()
    return ["bench", str(bundle), "--out", str(p.here / "bench")]


def bundle_foreign_file(p: Place) -> list[str]:
    bundle = p.own_bundle()
    (bundle / "extra.so").write_bytes(b"\x7fELF")
    return ["predict", str(bundle), "a.png"]


def bundle_climbs(p: Place) -> list[str]:
    bundle = p.own_bundle()
    text = (bundle / "manifest.json").read_text()
    manifest = json.loads(text)
    path = manifest["artefacts"][0]["files"][0]["path"]
    (bundle / "manifest.json").write_text(text.replace(json.dumps(path), '"../evil.onnx"'))
    return ["verify", str(bundle)]


def bundle_of_the_future(p: Place) -> list[str]:
    bundle = p.own_bundle()
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "schema": "edgexfer.bundle/9"}))
    return ["verify", str(bundle)]


def bundle_manifest_cut(p: Place) -> list[str]:
    bundle = p.own_bundle()
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text[: len(text) // 2])
    return ["verify", str(bundle)]


def artefact_unknown(p: Place) -> list[str]:
    image = str(next((p.pictures / "red").iterdir()))
    return ["predict", str(p.bundle), image, "--artefact", "x86-onnxruntime-fp31"]


def predict_no_image(p: Place) -> list[str]:
    place = p.here / "words.png"
    place.write_text("not a picture")
    return ["predict", str(p.bundle), str(place)]


def bench_target_not_in_bundle(p: Place) -> list[str]:
    return ["bench", str(p.bundle), "--target", "jetson", "--out", str(p.here / "bench")]


def bench_runtime_missing(p: Place) -> list[str]:
    bundle = p.own_bundle()
    text = (bundle / "manifest.json").read_text()
    text = text.replace('"backend": "onnxruntime"', '"backend": "tensorrt"')
    (bundle / "manifest.json").write_text(text)
    image = str(next((p.pictures / "red").iterdir()))
    return ["predict", str(bundle), image, "--artefact", "x86-onnxruntime-fp32"]


def eval_bundle_without_data(p: Place) -> list[str]:
    return ["eval", str(p.bundle)]


def report_of_nothing(p: Place) -> list[str]:
    return ["report", str(p.pictures), "-o", str(p.here / "report.html")]


def report_of_a_damaged_record(p: Place) -> list[str]:
    place = p.here / "record.json"
    place.write_text('{"schema": "edgexfer.bench/2", "status": "ok"}')
    return ["report", str(place), "-o", str(p.here / "report.html")]


def report_of_a_record_of_another_schema(p: Place) -> list[str]:
    place = p.here / "record.json"
    place.write_text('{"schema": "edgexfer.bench/1", "status": "ok"}')
    return ["report", str(place), "-o", str(p.here / "report.html")]


def report_below_a_file(p: Place) -> list[str]:
    (p.here / "taken").write_text("mine")
    return ["report", str(p.bundle), "-o", str(p.here / "taken" / "report.html")]


def report_over_another_s_notes(p: Place) -> list[str]:
    (p.here / "notes.md").write_text("mine")
    return ["report", str(p.bundle), "-o", str(p.here / "notes.html")]


def report_as_markdown(p: Place) -> list[str]:
    return ["report", str(p.bundle), "-o", str(p.here / "report.md")]


def init_over_a_file(p: Place) -> list[str]:
    (p.here / "recipe.yaml").write_text("mine")
    argv = ["init", str(p.pictures), "--target", "x86-openvino"]
    return [*argv, "-o", str(p.here / "recipe.yaml")]


def verb_unknown(p: Place) -> list[str]:
    return ["finetun"]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
