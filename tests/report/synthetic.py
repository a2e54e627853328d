"""A synthetic trip on disk: real files of the real types, with figures drawn from a seeded law."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from edgexfer.core.bundle import Artefact, EvalSet, Manifest, Reference, Rung, file_entry, seal
from edgexfer.core.codec import encode
from edgexfer.core.files import sha256_bytes, sha256_file, write_json
from edgexfer.core.model import SCHEMA as MODEL_SCHEMA
from edgexfer.core.model import ModelCard, write_card
from edgexfer.core.preprocess import Preprocess
from edgexfer.core.record import SCHEMA as RECORD_SCHEMA
from edgexfer.core.record import Accuracy, Record, write_record
from edgexfer.core.rundir import SCHEMA as RUN_SCHEMA
from edgexfer.core.rundir import RunInfo
from edgexfer.core.samples import ColdStart, ProcessRun
from edgexfer.core.stats import quantile, wilson

CLASSES = tuple(f"digit {n}" for n in range(10))
MACHINE: dict[str, Any] = {
    "cpu": "Example CPU @ 2.50GHz",
    "machine": "x86_64",
    "usable_cores": 2,
    "memory_bytes": 8_000_000_000,
}
SETTINGS: dict[str, Any] = {
    "scenario": "single_stream",
    "batch": 1,
    "threads": 0,
    "processes": 3,
    "seconds": 2.0,
    "seed": 0,
}


@dataclass(frozen=True)
class Spec:
    """What one record is to say."""

    name: str = "x86-onnxruntime-int8"
    target: str = "x86-onnxruntime"
    backend: str = "onnxruntime"
    precision: str = "int8"
    p50_ms: float = 0.2
    wrong: int = 9
    size_bytes: int = 83_000
    status: str = "ok"
    reasons: tuple[str, ...] = ()
    changes: dict[str, Any] = field(default_factory=dict)


TEACHER = Spec("x86-torch-fp32", "x86-torch", "torch", "fp32", 3.1, 4, 1_120_000)
STUDENT = (
    Spec("x86-onnxruntime-fp32", precision="fp32", p50_ms=0.31, wrong=8, size_bytes=320_000),
    Spec(p50_ms=0.22, wrong=9),
    Spec("x86-openvino-fp32", "x86-openvino", "openvino", "fp32", 0.27, 8, 325_000),
    Spec("x86-openvino-int8", "x86-openvino", "openvino", "int8", 0.19, 10, 98_000),
)


def make_labels(n: int = 360) -> np.ndarray[Any, Any]:
    return np.arange(n, dtype=np.int64) % len(CLASSES)


def make_confidences(wrong: Collection[int], n: int) -> tuple[float, ...]:
    """Return probabilities that are high, and lower where the answer is wrong."""
    rng = random.Random(11)
    top = [0.62 if i in wrong else 0.97 for i in range(n)]
    return tuple(round(p - rng.uniform(0, 0.12), 4) for p in top)


def make_images(labels: np.ndarray[Any, Any], edge: int = 32) -> np.ndarray[Any, Any]:
    """Return pictures of the digits of the classes, uint8 (N, H, W, 3)."""
    pictures = []
    for label in labels.tolist():
        picture = Image.new("RGB", (edge, edge), (20, 24, 60))
        ink = (250, 240 - 12 * label, 120)
        ImageDraw.Draw(picture).text((edge // 3, edge // 5), str(label), ink, font_size=edge // 2)
        pictures.append(np.asarray(picture))
    return np.stack(pictures)


def make_record(spec: Spec, bundle: dict[str, Any] | None = None, n: int = 360) -> Record:
    """Make a record whose first ``spec.wrong`` images, in a seeded order, are wrong."""
    rng = random.Random(sha256_bytes(spec.name.encode()))
    processes = tuple(_process(rng, order, spec.p50_ms) for order in range(3))
    pooled = [ns for p in processes for ns in p.infer_ns]
    labels = make_labels(n).tolist()
    order = random.Random(7).sample(range(n), n)
    wrong = set(order[: spec.wrong])
    predictions = tuple((y + 1) % len(CLASSES) if i in wrong else y for i, y in enumerate(labels))
    low, high = wilson(n - spec.wrong, n)
    top1 = 100 * (n - spec.wrong) / n
    record = Record(
        schema=RECORD_SCHEMA,
        status=spec.status,
        reasons=spec.reasons,
        warnings=(),
        bundle=bundle or {"name": "student", "model": "resnet8", "parameters": 78_042},
        artefact={
            "name": spec.name,
            "target": spec.target,
            "backend": spec.backend,
            "precision": spec.precision,
            "sha256": sha256_bytes(spec.name.encode()),
            "size_bytes": spec.size_bytes,
        },
        profile={"name": spec.target, "limits": {"accuracy_drop_pt": None}},
        active={"provider": "CPU", "precision": spec.precision},
        device=dict(MACHINE),
        settings=dict(SETTINGS),
        latency={f"p{q}": quantile(pooled, q / 100) for q in (50, 90, 95, 99)},
        stages={
            name: {"p50": quantile([ns] * 50, 0.5)}
            for name, ns in (("decode", 60_000), ("resize", 25_000), ("pre", 9000), ("post", 2000))
        },
        accuracy=Accuracy(
            *("test", n, n - spec.wrong, top1, 100 * low, 100 * high, None, predictions),
            confidences=make_confidences(wrong, n),
        ),
        power=None,
        absent={"power": "no energy sensor is here"},
        processes=processes,
        created_utc="2026-11-20T21:00:00Z",
        data={"split": "test", "n": n, "labels_sha256": sha256_bytes(bytes(labels))},
        cold_start={
            **{"startup_ns": 30e6, "import_ns": 80e6, "deserialise_ns": 2e6, "compile_ns": 10e6},
            **{"load_ns": 12e6, "first_ns": 0.9e6, "total_ns": 122.9e6},
        },
        memory={"host_bytes": 31_000_000},
    )
    return replace(record, **spec.changes)


def failed(spec: Spec, reason: str) -> Record:
    """Make the record of an artefact that could not run."""
    changes: dict[str, Any] = {"latency": {}, "stages": {}, "accuracy": None, "processes": ()}
    changes.update(cold_start={}, memory={})
    return make_record(replace(spec, status="failed", reasons=(reason,), changes=changes))


def make_run(place: Path, kind: str, wrong: int, seed: int, n: int = 360) -> None:
    """Write a finished run with its events and model card."""
    rng = random.Random(seed)
    (place / "model").mkdir(parents=True)
    order = random.Random(7).sample(range(n), n)
    low, high = wilson(n - wrong, n)
    test = Accuracy("test", n, n - wrong, 100 * (n - wrong) / n, 100 * low, 100 * high, None, ())
    info = RunInfo(
        schema=RUN_SCHEMA,
        kind=kind,
        status="done",
        config={"train": {"epochs": 12}},
        data={"path": "digits"},
        data_fingerprint="d" * 64,
        lineage={"seed": 0, "versions": {"torch": "2.15.0"}},
        result={"test": encode(test), "seconds": 21.0},
        created_utc="2026-11-20T20:58:00Z",
    )
    write_json(place / "run.json", encode(info))
    labels = make_labels(n).tolist()
    missed = set(order[:wrong])
    said = [(y + 1) % len(CLASSES) if i in missed else y for i, y in enumerate(labels)]
    saved = {"labels": labels, "predictions": said}
    write_json(place / "predictions.json", {**saved, "confidences": make_confidences(missed, n)})
    lines = []
    for epoch in range(1, 13):
        gap = 0.85**epoch
        top1 = 98.5 - 60 * gap + rng.uniform(-0.4, 0.4)
        lines.append(
            f'{{"event": "train", "step": {epoch * 20}, "epoch": {epoch}, '
            f'"loss": {0.05 + 2 * gap:.4f}, "images_per_s": 8000}}\n'
            f'{{"event": "val", "step": {epoch * 20}, "epoch": {epoch}, "top1_pct": {top1:.2f}}}\n'
        )
    (place / "metrics.jsonl").write_text("".join(lines))
    write_card(place, _card("resnet20" if kind == "finetune" else "resnet8"))


def make_bundle(
    place: Path, name: str, model: str, specs: Sequence[Spec], classes: tuple[str, ...] = CLASSES
) -> dict[str, Any]:
    """Write a sealed bundle and return what its records say of it."""
    place.mkdir(parents=True)
    labels = make_labels()
    np.save(place / "labels.npy", labels)
    np.save(place / "images.npy", make_images(labels))
    artefacts = []
    for spec in specs:
        file = place / f"{spec.name}.onnx"
        file.write_bytes(spec.name.encode())
        entry = file_entry(place, file)
        artefacts.append(
            Artefact(spec.name, spec.target, spec.backend, spec.precision, (entry,), (), ())
        )
    ladder = (
        Rung("onnx fp32", "torch fp32", 360, 121.4, 8.5e-7, 100.0, limits={"sqnr_db": 100.0}),
        Rung(
            "x86-onnxruntime int8",
            "onnx fp32",
            360,
            24.1,
            0.41,
            99.4,
            97.5,
            0.28,
            -0.6,
            1.4,
            limits={"drop_pt": 1.0},
            notes=("360 images cannot exclude a drop of more than 1 point",),
        ),
    )
    manifest = Manifest(
        schema="edgexfer.bundle/1",
        name=name,
        model=model,
        parameters=272_474 if name == "teacher" else 78_042,
        labels=classes,
        preprocess=Preprocess((32, 32), 32),
        profiles={},
        artefacts=tuple(artefacts),
        evaluation=EvalSet("images.npy", "labels.npy", "test", len(labels), 360, "d" * 64),
        golden_images="golden.npy",
        reference=Reference(352, 360),
        parity=ladder if name != "teacher" else (),
        calibration={"split": "train", "n": 300},
        lineage={"seed": 0, "git": "0123456", "versions": {"onnx": "1.23.2"}},
        files=tuple(file_entry(place, place / name) for name in ("labels.npy", "images.npy")),
        created_utc="2026-11-20T20:59:00Z",
    )
    seal(place, manifest)
    digest = sha256_file(place / "manifest.json")
    return {
        "name": name,
        "model": model,
        "parameters": manifest.parameters,
        "manifest_sha256": digest,
    }


def make_trip(place: Path) -> Path:
    """Write a whole trip: three runs, two bundles, five records."""
    make_run(place / "teacher", "finetune", 4, seed=1)
    make_run(place / "student", "distill", 8, seed=2)
    make_run(place / "control", "distill", 11, seed=3)
    teacher = make_bundle(place / "teacher-bundle", "teacher", "resnet20", [TEACHER])
    student = make_bundle(place / "bundle", "student", "resnet8", STUDENT)
    (place / "bench").mkdir()
    write_record(place / "bench" / "teacher.json", make_record(TEACHER, teacher))
    for spec in STUDENT:
        write_record(place / "bench" / f"{spec.name}.json", make_record(spec, student))
    return place


def _process(rng: random.Random, order: int, p50_ms: float) -> ProcessRun:
    centre = p50_ms * rng.lognormvariate(0, 0.02)
    infer = tuple(round(1e6 * centre * rng.lognormvariate(0, 0.06)) for _ in range(200))
    return ProcessRun(
        order=order,
        warmup_ns=infer[:20],
        warmup_converged=True,
        infer_ns=infer,
        pre_ns=(9000,) * 20,
        post_ns=(2000,) * 20,
        cold_start=ColdStart(
            30_000_000, 80_000_000, 2_000_000, 10_000_000, 12_000_000, 900_000, 122_900_000
        ),
        peak_pss_bytes=92_000_000,
        pss_before_load_bytes=61_000_000,
    )


def _card(model: str) -> ModelCard:
    return ModelCard(
        MODEL_SCHEMA, model, CLASSES, Preprocess((32, 32), 32), 78_042, "a" * 64, "scratch"
    )
