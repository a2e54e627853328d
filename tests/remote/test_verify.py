from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgexfer.core.bundle import read_manifest
from edgexfer.core.errors import BundleError
from edgexfer.remote.verify import verify
from tests.bundles import make_bundle, reseal


@pytest.mark.ort
@pytest.mark.ov
def test_it_checks_every_artefact_in_a_process_of_its_own(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", ["onnxruntime-int8", "openvino-fp32"])
    findings = verify(bundle)
    names = ["files", "preprocess", "x86-onnxruntime-int8", "x86-openvino-fp32"]
    assert [finding.name for finding in findings] == names
    assert {finding.status for finding in findings} == {"ok"}


@pytest.mark.ov
def test_a_float_type_that_the_cpu_lacks_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "bundle", ["openvino-fp32"])
    manifest = read_manifest(bundle)
    half = replace(manifest.artefacts[0], name="x86-openvino-fp16", precision="fp16")
    reseal(bundle, replace(manifest, artefacts=(*manifest.artefacts, half)))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    found = {finding.name: finding for finding in verify(bundle)}
    assert found["x86-openvino-fp32"].status == "ok"
    assert found["x86-openvino-fp16"].status == "skipped"
    assert found["x86-openvino-fp16"].detail == "this CPU has no fp16"


def test_a_finding_that_failed_is_an_answer(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    golden = bundle / "data/null-fp32.npy"
    np.save(golden, np.load(golden) + 1)
    reseal(bundle, read_manifest(bundle))
    statuses = {finding.name: finding.status for finding in verify(bundle)}
    assert statuses == {"files": "ok", "preprocess": "ok", "x86-null-fp32": "failed"}


def test_a_damaged_bundle_is_an_error(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    (bundle / "extra").touch()
    with pytest.raises(BundleError, match="extra: is not listed"):
        verify(bundle)
