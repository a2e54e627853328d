"""Every planted fault is caught by ``export`` or by ``verify``, and nearly all are named.

The table of faults is in ``planted.py``.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest
import torch

from edgexfer.bench.verify import verify_bundle
from edgexfer.core.errors import BundleError, EdgexferError
from edgexfer.export.stage import export
from edgexfer.recipe import ExportSection
from tests.export.planted import EXPORTED, SEALED, Fault, Precision, Scene, copy_of

IMAGES = 60


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


@pytest.fixture
def scene(run: Path, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
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
    assert len({fault.name for fault in faults}) == len(faults) == 41
    assert sum(bool(fault.named) for fault in faults) == 40
