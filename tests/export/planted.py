"""Faults to plant into an export and into a sealed bundle.

Each is planted into the stage that would have the bug: what feeds an artefact, what makes images,
the run's card, the exporter, the quantizer, or the files of a bundle that are sealed once more.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from edgexfer.bench import feed
from edgexfer.core.bundle import Manifest, read_manifest
from edgexfer.core.preprocess import Preprocess
from edgexfer.data import decode
from edgexfer.models.onnx import export_onnx
from edgexfer.models.store import load_model, save_model
from tests.bundles import reseal
from tests.export.damage import (
    Damage,
    clipped_activations,
    damaged,
    scale_weights,
)

Array = Any
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
            return damaged(scene.sound / "models" / "fp32.onnx", out, damage)

        scene.patch.setattr("edgexfer.export.lower.export_onnx", export)

    return plant


def quantized_with(damage: Damage) -> Callable[[Scene], None]:
    """Damage what the quantizer writes."""

    def plant(scene: Scene) -> None:
        # Another INT8 would be searched for, and found: the fault is in none of its parts.
        scene.patch.setattr("edgexfer.export.lower.Lowering.tune", lambda *_: None, raising=False)

        def quantize(_: Path, out: Path, *args: Any, **kwargs: Any) -> str:
            damaged(int8_file(scene.sound), out, damage)
            return "qdq"

        scene.patch.setattr("edgexfer.quantize.qdq.quantize_qdq", quantize)

    return plant


def int8_file(bundle: Path) -> Path:
    """Return a bundle's INT8 file."""
    (found,) = (bundle / "models").glob("int8*.onnx")
    return found


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


def with_preprocess(**changes: Any) -> Callable[[Path, Manifest], Manifest]:
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
    damaged(place, place, scale_weights)


def stale_int8(bundle: Path, _: Manifest) -> None:
    """Ship an INT8 file that was calibrated for other weights."""
    damaged(int8_file(bundle), int8_file(bundle), clipped_activations)


def flip_a_bit(scene: Scene) -> None:
    """Change one bit on the way to the device."""
    place = scene.bundle / "models" / "fp32.onnx"
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 4
    place.write_bytes(content)


def copy_of(folder: Path, to: Path) -> Path:
    """Return a copy of a run or a bundle that a fault may damage."""
    return Path(shutil.copytree(folder, to))
