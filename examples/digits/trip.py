"""The quickstart's trip in Python: teacher, student, bundle, benchmark, prediction, report.

Run it from anywhere: ``python examples/digits/trip.py``. It takes some minutes on a CPU; the few
epochs of ``--epochs 1`` are enough to see it go through.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import edgexfer
from edgexfer import (
    BenchSection,
    DataSection,
    ExportSection,
    ModelSection,
    StudentSection,
    TeacherSection,
    TrainSection,
)


def main() -> None:
    """Take the trip, and print what came of it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=Path("runs/digits"))
    options.add_argument("--epochs", type=int, default=15)
    given = options.parse_args()

    data = DataSection("digits")
    schedule = TrainSection(epochs=given.epochs, lr=3e-3, augment="shift", precision="fp32")

    teacher = TeacherSection(ModelSection("resnet56", size=16), strategy="scratch", train=schedule)
    taught = edgexfer.finetune(data, teacher, given.out / "teacher")
    print(f"teacher: {taught.result['test']['top1_pct']:.2f} %")

    student = StudentSection(ModelSection("resnet8", size=16), train=schedule)
    distilled = edgexfer.distill(data, given.out / "teacher", student, given.out / "student")
    print(f"student: {distilled.student.result['test']['top1_pct']:.2f} %")

    targets = ExportSection(("x86-onnxruntime", "x86-openvino"), "all", max_drop=5.0)
    edgexfer.export(given.out / "student", targets, given.out / "bundle")

    quick = BenchSection(processes=2, seconds=0.2)
    for record in edgexfer.bench(given.out / "bundle", given.out / "bench", section=quick):
        p50 = record.latency["p50"].value
        shown = "not measured" if p50 is None else f"p50 {p50 / 1e6:.3f} ms"
        print(f"{record.artefact['name']}: {shown} ({record.status})")

    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images[0] / 16 * 255).round().astype("uint8")
    with edgexfer.load_bundle(given.out / "bundle") as bundle:
        answer = bundle.predict(pixels[:, :, None].repeat(3, axis=2))
    print(f"the first digit is a {digits.target[0]}; the bundle says {answer.label}")

    print(f"report: {edgexfer.report([given.out], given.out / 'report.html')}")


if __name__ == "__main__":
    main()
