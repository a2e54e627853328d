"""Small, real bundles for tests: real ONNX and OpenVINO files, real images, sealed as export seals.

The model is a strided convolution, ReLU, global average pooling and a linear layer, with weights
from a fixed seed; its INT8 twin has QuantizeLinear and DequantizeLinear nodes.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgexfer.bench.accuracy import predict
from edgexfer.core.backend import Plan, TensorSpec, get_backend
from edgexfer.core.bundle import (
    MANIFEST,
    SCHEMA,
    Artefact,
    EvalSet,
    Manifest,
    Reference,
    file_entry,
    seal,
)
from edgexfer.core.codec import encode
from edgexfer.core.files import write_json
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.profile import HardwareProfile

SIZE = 16
LABELS = ("cat", "dog", "owl")
PREPROCESS = Preprocess(size=(SIZE, SIZE), resize=SIZE, mode="squash")
TARGETS = {
    "null": "x86-null",
    "onnxruntime": "x86-onnxruntime",
    "openvino": "x86-openvino",
    "tensorrt": "gpu-tensorrt",
    "torch": "x86-torch",
}
SUFFIXES = {
    "null": ".npz",
    "onnxruntime": ".onnx",
    "openvino": ".xml",
    "tensorrt": ".onnx",
    "torch": ".pt2",
}
# Engines are built on the device, so another runtime gives the golden outputs.
STAND_IN = {"tensorrt": "onnxruntime"}
ALL = ("null-fp32", "onnxruntime-fp32", "onnxruntime-int8", "openvino-fp32", "openvino-int8")


def make_bundle(
    folder: Path,
    kinds: Sequence[str] = ("null-fp32",),
    *,
    images: int = 80,
    golden: bool = True,
    machines: dict[str, str] | None = None,
) -> Path:
    """Make and seal a bundle.

    Args:
        folder: where; created.
        kinds: artefacts to make, ``BACKEND-PRECISION`` of ``ALL``, ``torch-fp32``,
            ``tensorrt-fp32`` or ``tensorrt-int8``.
        images: evaluation images; 0 for a bundle without any.
        golden: store golden outputs.
        machines: the kind of machine that a backend's profile names, where it is not this one.
    """
    (folder / "data").mkdir(parents=True)
    chance = np.random.default_rng(0)
    pixels = _pixels(chance, max(images, 4))
    np.save(folder / "data/golden.npy", pixels[:4])
    if images:
        np.save(folder / "data/images.npy", pixels[:images])
        np.save(folder / "data/labels.npy", chance.integers(0, len(LABELS), images))
    artefacts = tuple(_artefact(folder, kind, golden) for kind in kinds)
    profiles = {}
    for backend in dict.fromkeys(kind.split("-")[0] for kind in kinds):
        profiles[TARGETS[backend]] = f"profiles/{TARGETS[backend]}.json"
        machine = (machines or {}).get(backend, platform.machine())
        _write_profile(folder / profiles[TARGETS[backend]], backend, machine)
    reseal(folder, _manifest(artefacts, profiles, images))
    return folder


def reseal(folder: Path, manifest: Manifest) -> None:
    """Seal a folder anew after a test has changed files or manifest, with the true hashes."""
    (folder / MANIFEST).unlink(missing_ok=True)
    own = {entry.path for artefact in manifest.artefacts for entry in artefact.files}
    artefacts = tuple(
        dataclasses.replace(a, files=tuple(file_entry(folder, folder / e.path) for e in a.files))
        for a in manifest.artefacts
    )
    places = sorted(path for path in folder.rglob("*") if path.is_file())
    files = tuple(
        file_entry(folder, path)
        for path in places
        if path.relative_to(folder).as_posix() not in own
    )
    seal(folder, dataclasses.replace(manifest, artefacts=artefacts, files=files))


def write_onnx(path: Path, *, quantized: bool = False) -> Path:
    """Write the test model as ONNX with a free batch, in FP32 or with Q/DQ nodes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    chance = np.random.default_rng(1)
    arrays: dict[str, Any] = {
        "conv.weight": chance.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "head.weight": chance.normal(0, 0.5, (len(LABELS), 8)).astype(np.float32),
        "head.bias": chance.normal(0, 0.1, len(LABELS)).astype(np.float32),
    }
    nodes, source, weight = [], "images", "conv.weight"
    if quantized:
        scale = np.float32(np.abs(arrays["conv.weight"]).max() / 127)
        arrays["scale.images"], arrays["zero.images"] = np.float32(0.03), np.int8(0)
        arrays["scale.weight"], arrays["zero.weight"] = scale, np.int8(0)
        arrays["conv.quantized"] = np.round(arrays.pop("conv.weight") / scale).astype(np.int8)
        pair = ["scale.images", "zero.images"]
        nodes += [
            helper.make_node("QuantizeLinear", ["images", *pair], ["images.q"]),
            helper.make_node("DequantizeLinear", ["images.q", *pair], ["images.dq"]),
            helper.make_node(
                "DequantizeLinear", ["conv.quantized", "scale.weight", "zero.weight"], ["conv.dq"]
            ),
        ]
        source, weight = "images.dq", "conv.dq"
    nodes += [
        helper.make_node("Conv", [source, weight], ["conv"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head.weight", "head.bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(LABELS)])],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def write_null(path: Path) -> Path:
    """Write an artefact of the null backend: a linear map of the test images."""
    weight = np.random.default_rng(2).normal(0, 0.02, (len(LABELS), 3 * SIZE * SIZE))
    bias = np.arange(len(LABELS), dtype=np.float32)
    np.savez(path, weight=weight.astype(np.float32), bias=bias, shape=np.array([3, SIZE, SIZE]))
    return path


def write_program(path: Path) -> Path:
    """Write a ``torch.export`` program of a model like the ONNX one, with a free batch."""
    import torch

    torch.manual_seed(0)
    layers = (torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1))
    model = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(8, len(LABELS)))
    example = (torch.zeros(2, 3, SIZE, SIZE),)
    shapes = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(model.eval(), example, dynamic_shapes=shapes), path)
    return path


def _pixels(chance: np.random.Generator, count: int) -> Any:
    return chance.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def _artefact(folder: Path, kind: str, golden: bool) -> Artefact:
    backend, precision = kind.split("-")
    place = folder / "models" / f"{kind}{SUFFIXES[backend]}"
    place.parent.mkdir(exist_ok=True)
    if backend == "null":
        write_null(place)
    elif backend == "torch":
        write_program(place)
    elif backend in ("onnxruntime", "tensorrt"):
        write_onnx(place, quantized=precision == "int8")
    else:
        onnx = write_onnx(folder / "source.onnx", quantized=precision == "int8")
        get_backend("openvino").compile(onnx, place, Plan(precision))
        onnx.unlink()
    files = [place] + ([place.with_suffix(".bin")] if backend == "openvino" else [])
    name = f"data/{kind}.npy"
    if golden:
        runtime = STAND_IN.get(backend, backend)
        session = get_backend(runtime).load(place, Plan(precision, threads=1))
        np.save(folder / name, predict(session, np.load(folder / "data/golden.npy"), PREPROCESS))
        session.close()
    return Artefact(
        name=f"{TARGETS[backend]}-{precision}",
        target=TARGETS[backend],
        backend=backend,
        precision=precision,
        files=tuple(file_entry(folder, path) for path in files),
        inputs=(TensorSpec("images", (-1, 3, SIZE, SIZE), "float32"),),
        outputs=(TensorSpec("logits", (-1, len(LABELS)), "float32"),),
        golden=name if golden else None,
        golden_sqnr_db=60.0 if golden else None,
    )


def _write_profile(path: Path, backend: str, machine: str) -> None:
    path.parent.mkdir(exist_ok=True)
    profile = HardwareProfile(
        name=TARGETS[backend],
        title=f"this machine with {backend}",
        backend=backend,
        device="GPU" if backend == "tensorrt" else "CPU",
        compile_on="device" if backend == "tensorrt" else "host",
        machine=machine,
        seen_on_hardware=True,
        aliases=(f"my-{backend}",),
    )
    write_json(path, encode(profile))


def _manifest(artefacts: tuple[Artefact, ...], profiles: dict[str, str], images: int) -> Manifest:
    evaluation = EvalSet("data/images.npy", "data/labels.npy", "test", images, images, "0" * 64)
    return Manifest(
        schema=SCHEMA,
        name="test",
        model="tiny",
        parameters=251,
        labels=LABELS,
        preprocess=PREPROCESS,
        profiles=profiles,
        artefacts=artefacts,
        evaluation=evaluation if images else None,
        golden_images="data/golden.npy",
        reference=Reference(correct=0, n=images) if images else None,
        parity=(),
        calibration={},
        lineage={"seed": 0},
        files=(),
        created_utc="2026-11-20T00:00:00Z",
    )
