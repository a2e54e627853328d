"""Every planted fault is caught by ``export`` or by ``verify``, and nearly all are named.

How each is planted is in ``planted.py``, and damage to graphs in ``damage.py``.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgexfer.bench import feed
from edgexfer.bench.verify import verify_bundle
from edgexfer.core.errors import BundleError, EdgexferError
from edgexfer.data import decode
from edgexfer.data.dataset import Dataset, open_dataset
from edgexfer.export.stage import export
from edgexfer.recipe import ExportSection
from tests.export.damage import (
    appended,
    clipped_activations,
    drop_bias,
    drop_relu,
    drop_residual,
    leave_dropout_on,
    mix_channels,
    pad_one_side,
    permute_classes,
    permuted_scales,
    pool_largest,
    scale_of_weights,
    scale_weights,
    shifted_zero_point,
)
from tests.export.planted import (
    Fault,
    Precision,
    Scene,
    copy_of,
    exported_from_another_epoch,
    exported_in_train_mode,
    exported_with,
    fed_by,
    fitted_by,
    flip_a_bit,
    golden_of_another_model,
    labels_off_by_one,
    otherwise,
    overflow_of_half,
    packed,
    quantized_with,
    sealed_with,
    shift_labels_of_images,
    soften_images,
    stale_file,
    stale_int8,
    swap_classes_of_card,
    swap_labels_of_manifest,
    two_off,
    unscaled,
    weights_of_another_epoch,
    with_preprocess,
)

IMAGES = 40


def at(layer: str) -> str:
    """Return the pattern of a float rung that names a layer."""
    return rf"^parity: onnx fp32 differs from torch fp32: .* dB, .*; first at {layer}[ ,]"


def fed(slip: str) -> str:
    """Return the pattern of a rung that names a slip of preprocessing."""
    return rf"^parity: onnx fp32 differs .*; the input differs: {slip}"


def most(layer: str) -> str:
    """Return the pattern of an INT8 rung that names a layer."""
    return rf"^parity: x86-onnxruntime int8 .*; most is lost at {layer} "


def _faults() -> Iterator[Fault]:
    yield Fault(
        "bgr",
        fed_by(lambda x, p: feed.normalise(x, replace(p, channels="BGR"))),
        fed("channel order BGR in place of RGB$"),
    )
    yield Fault(
        "bgr pixels",
        fed_by(lambda x, p: feed.normalise(x[..., ::-1], p)),
        fed("channel order BGR in place of RGB before mean and std$"),
    )
    mean = r"mean \(0.485, 0.456, 0.406\) in place of \(0.3, 0.45, 0.6\)$"
    yield Fault("imagenet's mean", otherwise(mean=(0.485, 0.456, 0.406)), fed(mean))
    std = r"std \(0.25, 0.3, 0.5\) in place of \(0.25, 0.3, 0.4\)$"
    yield Fault("wrong std", otherwise(std=(0.25, 0.3, 0.5)), fed(std))
    yield Fault("not divided by 255", fed_by(unscaled), fed("pixel scale: 0..255"))
    yield Fault("nhwc bytes as nchw", fed_by(packed), fed("layout: NHWC values read as NCHW$"))
    yield Fault(
        "nhwc",
        fed_by(lambda x, p: feed.normalise(x, p).transpose(0, 2, 3, 1).copy()),
        "invalid dimensions for input: images",
    )
    yield Fault(
        "rows for columns",
        fed_by(lambda x, p: feed.normalise(x.transpose(0, 2, 1, 3), p)),
        fed("rows and columns swapped$"),
    )
    yield Fault(
        "resize filter",
        fitted_by(lambda x, p: decode.fit(x, replace(p, interpolation="bicubic"))),
        "parity: preprocess geometry: .*: resize filter bicubic in place of bilinear$",
    )
    yield Fault("crop", fitted_by(two_off), "parity: preprocess geometry: .*: crop off by 2, 0$")
    yield Fault("labels off by one", labels_off_by_one, "^labels: test image digits/")
    yield Fault("classes of the card", swap_classes_of_card, "class map: output 3 is '7'")
    yield Fault(
        "another epoch's file", weights_of_another_epoch, "weights.safetensors: differs from what"
    )
    yield Fault("another epoch's weights", exported_from_another_epoch, at("Conv conv1"))
    yield Fault("batch-norm in train mode", exported_in_train_mode, at(r".*\bconv1"))
    for name, damage, layer in (
        ("double softmax", appended("Softmax", axis=1), "Softmax after fc"),
        ("sigmoid", appended("Sigmoid"), "Sigmoid after fc"),
        ("order of the outputs", permute_classes, "Gemm fc"),
        ("scaled weights", scale_weights, "Conv layer2.0.conv1"),
        ("no bias", drop_bias, "Conv layer3.0.conv2"),
        ("no relu", drop_relu, "Identity after layer1.0.conv1"),
        ("no residual", drop_residual, "Relu after layer2.0.conv2"),
        ("padding to one side", pad_one_side, "Conv layer2.0.conv1"),
        ("largest for mean", pool_largest, "ReduceMax after layer3.0.conv2"),
        ("mixed channels", mix_channels, "Conv layer1.0.conv2"),
        ("dropout left on", leave_dropout_on, "Dropout after layer3.0.conv2"),
    ):
        yield Fault(name, exported_with(damage), at(layer))
    for name, damage, layer in (
        ("scale of weights", scale_of_weights, "Conv layer2.0.conv2"),
        ("permuted scales", permuted_scales, "Conv layer1.0.conv1"),
        ("clipped activations", clipped_activations, "DequantizeLinear after layer2.0.conv2"),
        ("shifted zero point", shifted_zero_point, "DequantizeLinear after layer3.0.conv1"),
    ):
        yield Fault(name, quantized_with(damage), most(layer), "int8")
    overflow = r"^parity: jetson-orin-nano fp16.*; first at Conv layer2.0.conv1 .*not finite$"
    yield Fault("overflow of fp16", overflow_of_half, overflow, "fp16", "jetson")
    flagged = overflow.replace("orin-nano", "xavier-nx")
    yield Fault("overflow by a flag", overflow_of_half, flagged, "fp16", "jetson-xavier-nx")


EXPORTED = tuple(_faults())

_ONE = r"^x86-onnxruntime-fp32: .* dB from its golden outputs"
SEALED = (
    Fault("bgr in the manifest", sealed_with(with_preprocess(channels="BGR")), _ONE),
    Fault("mean in the manifest", sealed_with(with_preprocess(mean=(0.5, 0.5, 0.5))), ""),
    Fault(
        "size in the manifest",
        sealed_with(with_preprocess(size=(14, 14))),
        r"^preprocess: .*expected uint8 \(-1, 14, 14, 3\)",
    ),
    Fault(
        "classes of the manifest",
        sealed_with(swap_labels_of_manifest),
        "^preprocess: .*labels.txt: class map: output 0 is '0' here and '1' in the manifest",
    ),
    Fault(
        "labels of the images",
        sealed_with(shift_labels_of_images),
        "^preprocess: .*labels.npy: class map: the golden outputs have 0 of 8 labels right",
    ),
    Fault(
        "images of another geometry",
        sealed_with(soften_images),
        "^preprocess: .*images.npy: image 0 is none of the evaluation images",
    ),
    Fault("golden outputs of another model", sealed_with(golden_of_another_model), _ONE),
    Fault("stale file", sealed_with(stale_file), _ONE),
    Fault("stale int8", sealed_with(stale_int8), r"^x86-onnxruntime-int8: .* dB from its golden"),
    Fault("one bit", flip_a_bit, r"fp32.onnx: differs from the manifest \(size or sha256\)"),
)


def section(target: str, precision: Precision) -> ExportSection:
    return ExportSection(
        targets=(target,),
        precision=precision,
        evaluation_images=IMAGES,
        calibration_images=IMAGES,
        max_drop=5.0,
    )


@pytest.fixture(scope="module")
def sound(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without a fault: what the faults below break does pass."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("sound") / "bundle"
    manifest = export(run, section("x86-onnxruntime", "int8"), place)
    assert [artefact.precision for artefact in manifest.artefacts] == ["fp32", "int8"]
    assert {f.status for f in verify_bundle(place, platform.machine())} == {"ok"}
    return place


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_dataset("digits")


@pytest.fixture
def scene(
    run: Path, sound: Path, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Scene:
    # It is read once for all; no fault is in it.
    monkeypatch.setattr("edgexfer.export.stage.open_data", lambda _: digits)
    copies = copy_of(run, tmp_path / "run"), copy_of(sound, tmp_path / "bundle")
    return Scene(monkeypatch, copies[0], sound, copies[1])


@pytest.mark.parametrize("fault", EXPORTED, ids=lambda f: str(f.name))
def test_a_fault_of_the_export_is_caught_and_named(fault: Fault, scene: Scene) -> None:
    fault.plant(scene)
    out = scene.bundle.parent / "out"
    with pytest.raises(EdgexferError) as caught:
        export(scene.run, section(fault.target, fault.precision), out)
    assert re.search(fault.named, caught.value.what), caught.value.what
    assert "\n" not in caught.value.what + caught.value.fix
    assert sorted(p.name for p in out.parent.iterdir()) == ["bundle", "run"]


@pytest.mark.parametrize("fault", SEALED, ids=lambda f: str(f.name))
def test_a_fault_of_a_sealed_bundle_is_caught_and_named(fault: Fault, scene: Scene) -> None:
    fault.plant(scene)
    try:
        findings = verify_bundle(scene.bundle, platform.machine())
    except BundleError as error:
        said = [error.what]
    else:
        said = [f"{f.name}: {f.detail}" for f in findings if f.status == "failed"]
    assert said
    assert any(re.search(fault.named, line) for line in said), said


def test_how_many_faults_there_are() -> None:
    faults = (*EXPORTED, *SEALED)
    assert len({fault.name for fault in faults}) == len(faults) == 42
    assert sum(bool(fault.named) for fault in faults) == 41
