from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgexfer.bench.verify import Finding, nothing_ran, verify_bundle
from edgexfer.core.bundle import FileEntry, Reference, read_manifest, seal
from edgexfer.core.errors import BundleError
from tests.bundles import reseal

HERE = platform.machine()


def _by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_a_whole_bundle_is_found_whole(bundle: Path) -> None:
    found = _by_name(verify_bundle(bundle, HERE))
    assert list(found) == ["files", "preprocess", "x86-null-fp32"]
    assert {finding.status for finding in found.values()} == {"ok"}
    assert "equal to the bit, 100 % agreement" in found["x86-null-fp32"].detail


def _flip(bundle: Path) -> None:
    place = bundle / "models/null-fp32.npz"
    content = bytearray(place.read_bytes())
    content[100] ^= 1
    place.write_bytes(content)


def _link(bundle: Path) -> None:
    place = bundle / "data/labels.npy"
    place.rename(bundle.parent / "labels.npy")
    place.symlink_to(bundle.parent / "labels.npy")


def _climb(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    bad = FileEntry("../outside", 0, "0" * 64)
    seal(bundle, dataclasses.replace(manifest, files=(*manifest.files, bad)))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (_flip, r"null-fp32\.npz: differs from the manifest"),
    "missing file": (lambda b: (b / "data/golden.npy").unlink(), r"golden\.npy: is missing"),
    "foreign file": (lambda b: (b / "extra").touch(), "extra: is not listed"),
    "symbolic link": (_link, r"labels\.npy: is a symbolic link"),
    "path that climbs": (_climb, r"unsafe path '\.\./outside'"),
    "cut short": (lambda b: os.truncate(b / "data/images.npy", 99), r"images\.npy: differs"),
    "no manifest": (lambda b: (b / "manifest.json").unlink(), "is not a sealed bundle"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_bundle_is_refused_before_anything_is_loaded(bundle: Path, name: str) -> None:
    damage, text = DAMAGE[name]
    damage(bundle)
    with pytest.raises(BundleError, match=text) as caught:
        verify_bundle(bundle, HERE)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("key", ["golden_images", "profiles"])
def test_a_path_that_the_manifest_names_cannot_leave_the_bundle(bundle: Path, key: str) -> None:
    manifest = read_manifest(bundle)
    inside: dict[str, str] = {
        "golden_images": manifest.golden_images,
        "profiles": manifest.profiles["x86-null"],
    }
    outside = bundle.parent / "outside"
    (bundle / inside[key]).rename(outside)
    changes: dict[str, Any] = {
        "golden_images": "../outside",
        "profiles": {"x86-null": "../outside"},
    }
    reseal(bundle, dataclasses.replace(manifest, **{key: changes[key]}))
    with pytest.raises(BundleError, match=r"unsafe path '\.\./outside' in the manifest"):
        verify_bundle(bundle, HERE)


def test_wrong_golden_outputs_are_a_finding(bundle: Path) -> None:
    place = bundle / "data/null-fp32.npy"
    np.save(place, -np.load(place))
    reseal(bundle, read_manifest(bundle))
    found = _by_name(verify_bundle(bundle, HERE))["x86-null-fp32"]
    assert found.status == "failed"
    assert "dB from its golden outputs" in found.detail
    assert "runtime's version" in found.fix


def test_labels_outside_the_classes_are_a_finding(bundle: Path) -> None:
    place = bundle / "data/labels.npy"
    np.save(place, np.load(place) + 1)
    reseal(bundle, read_manifest(bundle))
    found = _by_name(verify_bundle(bundle, HERE))["preprocess"]
    assert found.status == "failed"
    assert "labels outside 0..2" in found.detail


def test_images_of_another_size_are_a_finding(bundle: Path) -> None:
    np.save(bundle / "data/images.npy", np.zeros((80, 8, 8, 3), np.uint8))
    reseal(bundle, read_manifest(bundle))
    found = _by_name(verify_bundle(bundle, HERE))["preprocess"]
    assert found.status == "failed"
    assert "is uint8 (80, 8, 8, 3)" in found.detail


def test_an_artefact_for_another_machine_is_skipped(bundle: Path) -> None:
    found = _by_name(verify_bundle(bundle, "riscv64"))["x86-null-fp32"]
    assert (found.status, found.detail) == ("skipped", f"is for {HERE}, this is riscv64")


def test_that_nothing_could_run_is_said_with_what_would(bundle: Path) -> None:
    assert nothing_ran(verify_bundle(bundle, HERE)) == ""
    said = nothing_ran(verify_bundle(bundle, "riscv64"))
    assert said.startswith("nothing could run here, so nothing was computed: ")
    assert "`python3 edgexfer.pyz verify .` on the device" in said
    manifest = read_manifest(bundle)
    other = dataclasses.replace(manifest.artefacts[0], backend="tensorrt")
    reseal(bundle, dataclasses.replace(manifest, artefacts=(other,)))
    assert "tensorrt" in nothing_ran(verify_bundle(bundle, HERE))


def test_an_artefact_whose_runtime_is_missing_is_skipped(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    other = dataclasses.replace(manifest.artefacts[0], backend="tensorrt")
    reseal(bundle, dataclasses.replace(manifest, artefacts=(other,)))
    found = _by_name(verify_bundle(bundle, HERE))["x86-null-fp32"]
    assert found.status == "skipped"
    assert "backend tensorrt" in found.detail


def test_a_file_that_the_runtime_refuses_is_a_finding(bundle: Path) -> None:
    (bundle / "models/null-fp32.npz").write_bytes(b"sealed, and still no artefact")
    reseal(bundle, read_manifest(bundle))
    found = _by_name(verify_bundle(bundle, HERE))["x86-null-fp32"]
    assert found.status == "failed"
    assert "is not an artefact of the null backend" in found.detail


def test_without_golden_outputs_there_is_nothing_to_compare(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    bare = dataclasses.replace(manifest.artefacts[0], golden=None)
    reseal(bundle, dataclasses.replace(manifest, artefacts=(bare,)))
    found = _by_name(verify_bundle(bundle, HERE))["x86-null-fp32"]
    assert (found.status, found.detail) == ("skipped", "the bundle has no golden outputs for it")


def test_names_of_classes_other_than_the_manifest_s_are_a_finding(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    (bundle / "labels.txt").write_text("cat\ndog\nowl\n")
    reseal(bundle, manifest)
    assert _by_name(verify_bundle(bundle, HERE))["preprocess"].status == "ok"
    for names, said in (
        ("dog\ncat\nowl\n", "output 0 is 'dog' here and 'cat' in the manifest"),
        ("cat\ndog\n", "output 2 is None here and 'owl' in the manifest"),
    ):
        (bundle / "labels.txt").write_text(names)
        reseal(bundle, manifest)
        found = _by_name(verify_bundle(bundle, HERE))["preprocess"]
        assert found.status == "failed"
        assert found.detail.endswith(f"labels.txt: class map: {said}")
        assert "export the bundle again" in found.fix


def test_golden_images_of_another_export_are_a_finding(bundle: Path) -> None:
    place = bundle / "data/golden.npy"
    golden = np.load(place)
    np.save(place, np.concatenate([golden[:2], 255 - golden[2:]]))
    reseal(bundle, read_manifest(bundle))
    found = _by_name(verify_bundle(bundle, HERE))["preprocess"]
    assert found.status == "failed"
    assert "golden.npy: image 2 is none of the evaluation images" in found.detail


def test_labels_that_the_golden_outputs_never_fit_are_a_finding(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    golden = np.load(bundle / "data/null-fp32.npy").argmax(1)
    labels = np.load(bundle / "data/labels.npy")
    scored = dataclasses.replace(manifest, reference=Reference(len(labels), len(labels)))
    for off, status in ((0, "ok"), (1, "failed")):
        labels[: len(golden)] = (golden + off) % 3
        np.save(bundle / "data/labels.npy", labels)
        reseal(bundle, scored)
        found = _by_name(verify_bundle(bundle, HERE))["preprocess"]
        assert found.status == status
    assert "labels.npy: class map: the golden outputs have 0 of 4 labels right" in found.detail


@pytest.mark.parametrize("names", [("c\u2028at", "d\x85og", "o\x0bw\rl"), ()])
def test_names_of_classes_may_hold_what_some_take_for_the_end_of_a_line(
    bundle: Path, names: tuple[str, ...]
) -> None:
    text = "".join(f"{name}\n" for name in names)
    (bundle / "labels.txt").write_bytes(text.encode())
    reseal(bundle, dataclasses.replace(read_manifest(bundle), labels=names))
    assert "labels.txt" not in _by_name(verify_bundle(bundle, HERE))["preprocess"].detail
