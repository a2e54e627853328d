from __future__ import annotations

from pathlib import Path

import pytest

from edgexfer.bench.targets import artefacts_for
from edgexfer.core.bundle import read_manifest
from edgexfer.core.errors import BackendError, BundleError
from tests.bundles import make_bundle

pytestmark = pytest.mark.ort


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A bundle whose ONNX artefacts are for x86 and whose null artefact is for an ARM board."""
    kinds = ["null-fp32", "onnxruntime-fp32", "onnxruntime-int8"]
    machines = {"null": "aarch64", "onnxruntime": "x86_64"}
    return make_bundle(tmp_path / "bundle", kinds, machines=machines)


def _names(bundle: Path, targets: list[str] | None, machine: str) -> list[str]:
    return [a.name for a in artefacts_for(bundle, read_manifest(bundle), targets, machine)]


def test_the_kind_of_machine_decides_what_runs(mixed: Path) -> None:
    both = ["x86-onnxruntime-fp32", "x86-onnxruntime-int8"]
    assert _names(mixed, None, "x86_64") == both
    assert _names(mixed, None, "aarch64") == ["x86-null-fp32"]
    assert _names(mixed, ["x86-onnxruntime"], "x86_64") == both


def test_a_target_may_be_named_by_its_alias(mixed: Path) -> None:
    assert _names(mixed, ["my-null"], "aarch64") == ["x86-null-fp32"]


def test_a_named_target_for_another_machine_is_refused(mixed: Path) -> None:
    with pytest.raises(BackendError, match="x86-null is for a aarch64 machine") as caught:
        _names(mixed, ["x86-null"], "x86_64")
    assert caught.value.exit_code == 3
    assert "aarch64" in caught.value.fix


def test_an_unknown_target_names_the_nearest(mixed: Path) -> None:
    with pytest.raises(BundleError, match="has nothing for target 'x86-onnxrutime'") as caught:
        _names(mixed, ["x86-onnxrutime"], "x86_64")
    assert caught.value.fix == "did you mean 'x86-onnxruntime'?"


def test_a_bundle_with_nothing_for_this_machine_says_what_it_has(mixed: Path) -> None:
    with pytest.raises(BackendError, match=r"nothing in it is for riscv64.*x86-null \(aarch64\)"):
        _names(mixed, None, "riscv64")
