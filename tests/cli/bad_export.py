"""Bad inputs of ``export``, ``profiles`` and ``verify``: targets, runs and files."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.bad import Place

PROFILE = """\
name: mine
title: A board of mine
backend: onnxruntime
device: CPU
machine: x86_64
seen_on_hardware: false
precisions: [int8, fp32]
quantization: {scheme: qdq, activations: uint8}
"""


def _export(
    p: Place, *more: str, run: Path | None = None, target: str = "x86-onnxruntime"
) -> list[str]:
    return ["export", str(run or p.run), "--target", target, "--out", str(p.here / "out"), *more]


def _mine(p: Place, text: str) -> list[str]:
    place = p.here / "mine.yaml"
    place.write_text(text)
    return _export(p, target=str(place))


def profile_of_an_unknown_backend(p: Place) -> list[str]:
    return _mine(p, PROFILE.replace("backend: onnxruntime", "backend: onnxrt"))


def profile_of_a_precision_that_the_chip_lacks(p: Place) -> list[str]:
    return _mine(p, PROFILE + "arithmetic: [fp32]\n")


def profile_of_a_precision_that_the_backend_lacks(p: Place) -> list[str]:
    return _mine(p, PROFILE.replace("[int8, fp32]", "[bf16, fp32]"))


def profile_of_an_unknown_device(p: Place) -> list[str]:
    return _mine(p, PROFILE.replace("device: CPU", "device: NPU"))


def profile_of_an_impossible_quantization(p: Place) -> list[str]:
    return _mine(p, PROFILE.replace("scheme: qdq", "scheme: nncf"))


def profile_of_a_future_opset(p: Place) -> list[str]:
    row = "{name: R, runtime_version: '1', python: '3.11', glibc: '2.35', onnx_opset_max: 99}"
    return _mine(p, PROFILE + f"stack: [{row}]\n")


def profile_of_a_fact_without_a_unit(p: Place) -> list[str]:
    return _mine(p, PROFILE + "facts: {memory: {value: 8, kind: datasheet, source: a sheet}}\n")


def profile_is_missing(p: Place) -> list[str]:
    return _export(p, target=str(p.here / "no.yaml"))


def export_target_twice(p: Place) -> list[str]:
    return _export(p, target="x86-onnxruntime,x86")


def export_no_target(p: Place) -> list[str]:
    return _export(p, target=",")


def export_precision_that_the_target_lacks(p: Place) -> list[str]:
    return _export(p, "--precision", "bf16")


def export_precision_unknown(p: Place) -> list[str]:
    return _export(p, "--precision", "int4")


def export_of_no_run(p: Place) -> list[str]:
    return _export(p, run=p.pictures)


def export_of_a_bundle(p: Place) -> list[str]:
    return _export(p, run=p.bundle)


def export_onto_a_file(p: Place) -> list[str]:
    (p.here / "out").write_text("mine")
    return _export(p)


def export_calibration_of_nothing(p: Place) -> list[str]:
    return _export(p, "--calibration-images", "0")


def export_calibration_folder_empty(p: Place) -> list[str]:
    """Empty the data set that the run was trained with."""
    run, data = p.own_run(), p.here / "data"
    (data / "train").mkdir(parents=True)
    info = json.loads((run / "run.json").read_text())
    info["data"]["path"] = str(data)
    (run / "run.json").write_text(json.dumps(info))
    return _export(p, run=run)


def export_data_has_changed(p: Place) -> list[str]:
    run = p.own_run()
    info = json.loads((run / "run.json").read_text())
    info["data"]["path"] = str(p.own_pictures(red=9, green=9, blue=9))
    (run / "run.json").write_text(json.dumps(info))
    return _export(p, run=run)


def export_drop_negative(p: Place) -> list[str]:
    return _export(p, "--max-drop", "-1")


def show_model_cut_short(p: Place) -> list[str]:
    place = p.here / "cut.onnx"
    place.write_bytes(next((p.bundle / "models").glob("fp32*.onnx")).read_bytes()[:2000])
    return ["profiles", "show", "jetson", "--model", str(place)]


def show_model_is_missing(p: Place) -> list[str]:
    return ["profiles", "show", "jetson", "--model", str(p.here / "no.onnx")]


def probe_unknown_backend(p: Place) -> list[str]:
    del p
    return ["profiles", "probe", "--backend", "onnxrt"]


def probe_bad_name(p: Place) -> list[str]:
    del p
    return ["profiles", "probe", "--name", "../mine"]


def verify_weights_swapped_for_a_link(p: Place) -> list[str]:
    bundle = p.own_bundle()
    victim = next(bundle.rglob("*.onnx"))
    victim.rename(p.here / "elsewhere.onnx")
    victim.symlink_to(p.here / "elsewhere.onnx")
    return ["verify", str(bundle)]
