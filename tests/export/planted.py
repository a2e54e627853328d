"""Faults to plant into an export and into a sealed bundle, and what must be said of each.

Each is planted into the stage that would have the bug: what feeds an artefact, what makes images,
the run's card, the exporter, the quantizer, or the files of a bundle that are sealed once more.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from edgexfer.bench import feed
from edgexfer.core.bundle import Manifest, read_manifest
from edgexfer.core.preprocess import Preprocess
from edgexfer.data import decode
from edgexfer.models.onnx import export_onnx
from edgexfer.models.store import load_model, save_model
from tests.bundles import reseal

Array = Any
Damage = Callable[[onnx.ModelProto], None]
Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class Scene:
    """Where a fault is planted.

    Attributes:
        patch: for the length of one test.
        run: a copy of a trained run.
        sound: a bundle of it without a fault, FP32 and INT8 for ONNX Runtime.
        bundle: a copy of that.
    """

    patch: pytest.MonkeyPatch
    run: Path
    sound: Path
    bundle: Path


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: of it.
        plant: does it.
        named: a pattern of the layer or the stage in what is said; empty where it is only caught.
        precision: what is exported.
        target: for which.
    """

    name: str
    plant: Callable[[Scene], None]
    named: str
    precision: Precision = "fp32"
    target: str = "x86-onnxruntime"


def fed_by(change: Callable[[Array, Preprocess], Array]) -> Callable[[Scene], None]:
    """Feed artefacts otherwise than the trainer feeds its model."""

    def plant(scene: Scene) -> None:
        scene.patch.setattr("edgexfer.bench.accuracy.normalise", change)

    return plant


def unscaled(images: Array, preprocess: Preprocess) -> Array:
    """Normalise as if 0..255 were 0..1."""
    mean, std = (np.array(v, np.float32) for v in (preprocess.mean, preprocess.std))
    return np.ascontiguousarray(((images - mean) / std).transpose(0, 3, 1, 2), np.float32)


def packed(images: Array, preprocess: Preprocess) -> Array:
    """Give the bytes of NHWC as NCHW."""
    fed = feed.normalise(images, preprocess)
    return np.ascontiguousarray(fed.transpose(0, 2, 3, 1)).reshape(fed.shape)


def otherwise(**changes: Any) -> Callable[[Scene], None]:
    """Feed artefacts with another mean or std."""
    return fed_by(lambda images, preprocess: feed.normalise(images, replace(preprocess, **changes)))


def fitted_by(change: Callable[[Array, Preprocess], Array]) -> Callable[[Scene], None]:
    """Make images of another geometry."""

    def plant(scene: Scene) -> None:
        scene.patch.setattr("edgexfer.data.store.fit", change)

    return plant


def two_off(image: Array, preprocess: Preprocess) -> Array:
    """Crop two pixels too far down."""
    fitted = np.pad(decode.fit(image, preprocess), ((0, 2), (0, 0), (0, 0)), mode="edge")
    return np.ascontiguousarray(fitted[2:])


def labels_off_by_one(scene: Scene) -> None:
    """Shift the labels of the images that are drawn."""
    from edgexfer.data.images import sample

    def shifted(*args: Any, **kwargs: Any) -> Any:
        images, labels, keys = sample(*args, **kwargs)
        return images, (labels + 1) % 10, keys

    scene.patch.setattr("edgexfer.data.images.sample", shifted)


def swap_classes_of_card(scene: Scene) -> None:
    """Swap two names in the model's card."""
    place = scene.run / "model" / "model.json"
    card = json.loads(place.read_text())
    card["classes"][3], card["classes"][7] = card["classes"][7], card["classes"][3]
    place.write_text(json.dumps(card))


def weights_of_another_epoch(scene: Scene) -> None:
    """Leave the weights file of another epoch beside the card."""
    place = scene.run / "model" / "weights.safetensors"
    card = (scene.run / "model" / "model.json").read_bytes()
    _save_other(scene.run)
    (scene.run / "model" / "model.json").write_bytes(card)
    assert place.is_file()


def _save_other(run: Path) -> None:
    model, card = load_model(run)
    save_model(
        run,
        _another_epoch(model),
        name=card.name,
        classes=card.classes,
        preprocess=card.preprocess,
        origin=card.origin,
        options=card.options,
    )


def _another_epoch(model: torch.nn.Module) -> torch.nn.Module:
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1 + 0.1 * torch.randn(weight.shape, generator=chance))
    return model


def exported_from_another_epoch(scene: Scene) -> None:
    """Hand the exporter another epoch's weights."""

    def export(model: torch.nn.Module, *args: Any, **kwargs: Any) -> Path:
        return export_onnx(_another_epoch(copy.deepcopy(model)), *args, **kwargs)

    scene.patch.setattr("edgexfer.export.lower.export_onnx", export)


def exported_in_train_mode(scene: Scene) -> None:
    """Let the batch-norms that the exporter sees take the statistics of the batch."""
    from edgexfer.models.onnx import frozen

    def training(model: torch.nn.Module) -> torch.nn.Module:
        still = frozen(model)
        for module in still.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean = module.running_var = None
        return still

    scene.patch.setattr("edgexfer.models.onnx.frozen", training)


def exported_with(damage: Damage) -> Callable[[Scene], None]:
    """Damage what the exporter writes."""

    def plant(scene: Scene) -> None:
        def export(_: torch.nn.Module, size: tuple[int, int], out: Path, **kwargs: Any) -> Path:
            return _damaged(scene.sound / "models" / "fp32.onnx", out, damage)

        scene.patch.setattr("edgexfer.export.lower.export_onnx", export)

    return plant


def quantized_with(damage: Damage) -> Callable[[Scene], None]:
    """Damage what the quantizer writes."""

    def plant(scene: Scene) -> None:
        # Another INT8 would be searched for, and found: the fault is in none of its parts.
        scene.patch.setattr("edgexfer.export.lower.Lowering.tune", lambda *_: None, raising=False)

        def quantize(_: Path, out: Path, *args: Any, **kwargs: Any) -> str:
            _damaged(int8_file(scene.sound), out, damage)
            return "qdq"

        scene.patch.setattr("edgexfer.quantize.qdq.quantize_qdq", quantize)

    return plant


def int8_file(bundle: Path) -> Path:
    """Return a bundle's INT8 file."""
    (found,) = (bundle / "models").glob("int8*.onnx")
    return found


def _damaged(file: Path, out: Path, damage: Damage) -> Path:
    proto = onnx.load(file)
    damage(proto)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, out)
    return out


def _nodes(proto: onnx.ModelProto, op: str) -> list[onnx.NodeProto]:
    return [node for node in proto.graph.node if node.op_type == op]


def _conv(proto: onnx.ModelProto, module: str) -> onnx.NodeProto:
    return next(n for n in _nodes(proto, "Conv") if any(module in name for name in n.input))


def _change(proto: onnx.ModelProto, name: str, edit: Callable[[Array], Array]) -> None:
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(tensor)), name))


def appended(op: str, **attributes: Any) -> Damage:
    """Put one more operator behind the logits."""

    def damage(proto: onnx.ModelProto) -> None:
        proto.graph.node[-1].output[0] = "inner"
        proto.graph.node.append(helper.make_node(op, ["inner"], ["logits"], op, **attributes))

    return damage


def permute_classes(proto: onnx.ModelProto) -> None:
    """Give the outputs in another order."""
    for name in proto.graph.node[-1].input[1:]:
        _change(proto, name, lambda values: np.roll(values, 1, axis=0))


def scale_weights(proto: onnx.ModelProto) -> None:
    """Scale the weights of one layer by a hundredth."""
    name = _conv(proto, "layer2.0.conv1").input[1]
    _change(proto, name, lambda values: values * np.float32(1.01))


def drop_bias(proto: onnx.ModelProto) -> None:
    """Forget the bias of one layer."""
    _change(proto, _conv(proto, "layer3.0.conv2").input[2], np.zeros_like)


def drop_relu(proto: onnx.ModelProto) -> None:
    """Forget one activation."""
    _nodes(proto, "Relu")[1].op_type = "Identity"


def drop_residual(proto: onnx.ModelProto) -> None:
    """Forget the shortcut of the second stage."""
    node = _nodes(proto, "Add")[1]
    node.op_type = "Identity"
    del node.input[1:]


def pad_one_side(proto: onnx.ModelProto) -> None:
    """Pad a strided convolution as another framework does."""
    node = _conv(proto, "layer2.0.conv1")
    pads = next(a for a in node.attribute if a.name == "pads")
    pads.ints[:] = [0, 0, 2, 2]


def pool_largest(proto: onnx.ModelProto) -> None:
    """Take the largest in place of the mean."""
    _nodes(proto, "ReduceMean")[0].op_type = "ReduceMax"


def mix_channels(proto: onnx.ModelProto) -> None:
    """Give the channels of one layer in another order."""
    for name in _conv(proto, "layer1.0.conv2").input[1:]:
        _change(proto, name, lambda values: values[::-1].copy())


def leave_dropout_on(proto: onnx.ModelProto) -> None:
    """Drop features by chance, as in training."""
    last = proto.graph.node[-1]
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "ratio"))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "training"))
    node = helper.make_node(
        "Dropout", [last.input[0], "ratio", "training"], ["dropped"], "drop", seed=0
    )
    last.input[0] = "dropped"
    proto.graph.node.insert(len(proto.graph.node) - 1, node)


def scale_of_weights(proto: onnx.ModelProto) -> None:
    """Read one layer's INT8 weights with four times their scale."""
    name = _dequantizer(proto, _conv(proto, "layer2.0.conv2").input[1]).input[1]
    _change(proto, name, lambda values: values * np.float32(4))


def permuted_scales(proto: onnx.ModelProto) -> None:
    """Give the scales of one layer's channels in another order."""
    name = _dequantizer(proto, _conv(proto, "layer1.0.conv1").input[1]).input[1]
    _change(proto, name, lambda values: np.sort(values)[np.argsort(-values).argsort()])


def clipped_activations(proto: onnx.ModelProto) -> None:
    """Leave one tensor a twentieth of its range."""
    name = _dequantizer(proto, _conv(proto, "layer3.0.conv1").input[0]).input[1]
    _change(proto, name, lambda values: np.asarray(values * np.float32(0.05)))


def shifted_zero_point(proto: onnx.ModelProto) -> None:
    """Read one tensor with another zero point than it was written with."""
    node = _dequantizer(proto, _conv(proto, "layer3.0.conv2").input[0])
    old = next(t for t in proto.graph.initializer if t.name == node.input[2])
    shifted = numpy_helper.to_array(old) + np.array(100, numpy_helper.to_array(old).dtype)
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(shifted), "shifted"))
    node.input[2] = "shifted"


def _dequantizer(proto: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in _nodes(proto, "DequantizeLinear") if n.output[0] == name)


def overflow_of_half(scene: Scene) -> None:
    """Train a layer to values beyond FP16, which the next one divides again."""
    model, card = load_model(scene.run)
    with torch.no_grad():
        block = model.get_submodule("layer2.0")
        norm, after = block.get_submodule("bn1"), block.get_submodule("conv2")
        for tensor in norm.parameters():
            tensor.mul_(1e6)
        for tensor in after.parameters():
            tensor.mul_(1e-6)
    save_model(
        scene.run,
        model,
        name=card.name,
        classes=card.classes,
        preprocess=card.preprocess,
        origin=card.origin,
        options=card.options,
    )


def sealed_with(change: Callable[[Path, Manifest], Manifest | None]) -> Callable[[Scene], None]:
    """Change files or manifest of a bundle, and seal it again with the true hashes."""

    def plant(scene: Scene) -> None:
        manifest = read_manifest(scene.bundle)
        reseal(scene.bundle, change(scene.bundle, manifest) or manifest)

    return plant


def _preprocess(**changes: Any) -> Callable[[Path, Manifest], Manifest]:
    return lambda _, manifest: replace(manifest, preprocess=replace(manifest.preprocess, **changes))


def swap_labels_of_manifest(_: Path, manifest: Manifest) -> Manifest:
    """Swap two names in the manifest."""
    labels = list(manifest.labels)
    labels[0], labels[1] = labels[1], labels[0]
    return replace(manifest, labels=tuple(labels))


def shift_labels_of_images(bundle: Path, manifest: Manifest) -> None:
    """Shift the labels of the evaluation images."""
    assert manifest.evaluation is not None
    place = bundle / manifest.evaluation.labels
    np.save(place, (np.load(place) + 1) % 10)


def soften_images(bundle: Path, manifest: Manifest) -> None:
    """Ship evaluation images that another filter has made."""
    assert manifest.evaluation is not None
    place = bundle / manifest.evaluation.images
    images = np.load(place)
    np.save(place, (images // 2 + np.roll(images, 1, axis=2) // 2).astype(np.uint8))


def golden_of_another_model(bundle: Path, manifest: Manifest) -> None:
    """Ship the golden outputs of a model that answers otherwise by a little."""
    place = bundle / str(manifest.artefacts[0].golden)
    golden = np.load(place)
    np.save(place, golden + np.float32(0.05) * np.abs(golden).max() * np.sin(golden))


def stale_file(bundle: Path, manifest: Manifest) -> None:
    """Ship the file of an export before."""
    place = bundle / manifest.artefacts[0].files[0].path
    _damaged(place, place, scale_weights)


def stale_int8(bundle: Path, _: Manifest) -> None:
    """Ship an INT8 file that was calibrated for other weights."""
    _damaged(int8_file(bundle), int8_file(bundle), clipped_activations)


def flip_a_bit(scene: Scene) -> None:
    """Change one bit on the way to the device."""
    place = scene.bundle / "models" / "fp32.onnx"
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 4
    place.write_bytes(content)


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


EXPORTED = tuple(_faults())

_ONE = r"^x86-onnxruntime-fp32: .* dB from its golden outputs"
SEALED = (
    Fault("bgr in the manifest", sealed_with(_preprocess(channels="BGR")), _ONE),
    Fault("mean in the manifest", sealed_with(_preprocess(mean=(0.5, 0.5, 0.5))), ""),
    Fault(
        "size in the manifest",
        sealed_with(_preprocess(size=(14, 14))),
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


def copy_of(folder: Path, to: Path) -> Path:
    """Return a copy of a run or a bundle that a fault may damage."""
    return Path(shutil.copytree(folder, to))
