"""The schedule and the student that the tests of lessons and sweeps share."""

from __future__ import annotations

from edgexfer.recipe import ModelSection, StudentSection, TrainSection

TRAIN = TrainSection(
    epochs=2, batch_size=16, lr=1e-2, warmup=0.5, augment="none", precision="fp32", compile="off"
)
STUDENT = StudentSection(ModelSection("resnet8", size=16), train=TRAIN, teacher_engine="torch")
