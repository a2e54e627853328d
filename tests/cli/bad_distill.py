"""Bad inputs of ``distill``: losses, layers, teachers, caches and targets that cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.cli.bad import Place, distill


def loss_empty_term(p: Place) -> list[str]:
    return distill(p, "--loss", "kd+")


def loss_negative_weight(p: Place) -> list[str]:
    return distill(p, "--loss", "-1*kd")


def loss_named_twice(p: Place) -> list[str]:
    return distill(p, "--loss", "kd,kd")


def loss_layer_of_logits(p: Place) -> list[str]:
    return distill(p, "--loss", "kd@layer2")


def layer_that_does_not_exist(p: Place) -> list[str]:
    return distill(p, "--loss", "kd+hint@layr2")


def stage_that_does_not_exist(p: Place) -> list[str]:
    return distill(p, "--loss", "kd+attention@9")


def mixup_with_one_true_class(p: Place) -> list[str]:
    return distill(p, "--loss", "dkd", "--mixup", "0.2")


def teacher_weights_too_many(p: Place) -> list[str]:
    return distill(p, "--teacher-weights", "1,2")


def teacher_weight_zero(p: Place) -> list[str]:
    return distill(p, "--teacher-weights", "0")


def class_map_missing(p: Place) -> list[str]:
    return distill(p, "--class-map", str(p.here / "names.yaml"))


def class_map_of_unknown_classes(p: Place) -> list[str]:
    place = p.here / "names.yaml"
    place.write_text("read: red\n")
    return distill(p, "--class-map", str(place))


def teacher_onnx_without_a_card(p: Place) -> list[str]:
    import onnx

    proto = onnx.load(_onnx_of(p))
    del proto.metadata_props[:]
    place = p.here / "bare.onnx"
    onnx.save(proto, place)
    return distill(p, teacher=place)


def teacher_onnx_cut_short(p: Place) -> list[str]:
    place = p.here / "cut.onnx"
    place.write_bytes(_onnx_of(p).read_bytes()[:2000])
    return distill(p, teacher=place)


def teacher_onnx_has_no_layers(p: Place) -> list[str]:
    place = p.here / "teacher.onnx"
    shutil.copy(_onnx_of(p), place)
    return distill(p, "--loss", "kd+hint", teacher=place)


def teacher_bundle_with_a_flipped_bit(p: Place) -> list[str]:
    bundle = p.own_bundle()
    place = bundle / "models" / "fp32.onnx"
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.write_bytes(bytes(data))
    return distill(p, teacher=bundle)


def cache_without_room(p: Place) -> list[str]:
    return distill(p, "--teacher-cache", "on", "--cache-gb", "1e-9")


def cache_beside_a_feature_loss(p: Place) -> list[str]:
    return distill(p, "--teacher-cache", "on", "--loss", "kd+hint")


def quantized_before_it_is_trained(p: Place) -> list[str]:
    return distill(p, "--qat-for", "x86-onnxruntime")


def quantized_for_nncf(p: Place) -> list[str]:
    return distill(p, "--qat-for", "x86-openvino", "--weights", _weights(p))


def quantized_for_nobody(p: Place) -> list[str]:
    return distill(p, "--qat-for", "x86-onnxruntim", "--weights", _weights(p))


def quantized_with_a_feature_loss(p: Place) -> list[str]:
    more = ("--loss", "kd+hint", "--weights", _weights(p))
    return distill(p, "--qat-for", "x86-onnxruntime", *more)


def unlabelled_missing(p: Place) -> list[str]:
    return distill(p, "--unlabelled", str(p.here / "camera"))


def unlabelled_is_the_data(p: Place) -> list[str]:
    return distill(p, "--unlabelled", str(p.pictures))


def unlabelled_without_images(p: Place) -> list[str]:
    (p.here / "camera").mkdir()
    return distill(p, "--unlabelled", str(p.here / "camera"))


def milestones_of_no_steps(p: Place) -> list[str]:
    return distill(p, "--milestones", "1")


def seeds_zero(p: Place) -> list[str]:
    return distill(p, "--seeds", "0")


def assistant_unknown(p: Place) -> list[str]:
    return distill(p, "--assistants", "resnt14")


def engine_that_cannot(p: Place) -> list[str]:
    return distill(p, "--teacher-engine", "openvino", "--loss", "kd+hint")


def _onnx_of(p: Place) -> Path:
    manifest = json.loads((p.bundle / "manifest.json").read_text())
    files = [f["path"] for a in manifest["artefacts"] for f in a["files"]]
    return Path(p.bundle, next(str(f) for f in files if f.endswith("fp32.onnx")))


def _weights(p: Place) -> str:
    return str(p.run / "model" / "weights.safetensors")
