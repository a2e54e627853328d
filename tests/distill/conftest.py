"""Pictures of three colours, and a teacher that knows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgexfer.recipe import DataSection, TeacherSection
from tests.distill.taught import STUDENT, TRAIN
from tests.pictures import write_folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSection:
    return DataSection(str(write_folder(tmp_path_factory.mktemp("data") / "pictures", 32)))


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory, data: DataSection) -> Path:
    from edgexfer.transfer.finetune import finetune

    section = TeacherSection(STUDENT.model, "scratch", train=replace(TRAIN, epochs=3))
    place = tmp_path_factory.mktemp("runs") / "teacher"
    finetune(data, section, place)
    return place
