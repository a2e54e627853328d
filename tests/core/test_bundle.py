from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgexfer.core.backend import TensorSpec
from edgexfer.core.bundle import (
    MANIFEST,
    Artefact,
    FileEntry,
    Manifest,
    all_entries,
    file_entry,
    get_artefact,
    is_safe,
    read_manifest,
    seal,
    verify_files,
)
from edgexfer.core.errors import BundleError
from edgexfer.core.preprocess import Preprocess

REMAKE = "export the bundle again, or copy it again from where it was made"


def make_bundle(place: Path) -> Path:
    """Seal a bundle of two artefacts that share their weights."""
    (place / "models").mkdir(parents=True)
    for name, content in {
        "models/a.xml": b"<a/>",
        "models/w.bin": b"w" * 99,
        "g.npy": b"g",
    }.items():
        (place / name).write_bytes(content)
    graph, weights = (file_entry(place, place / "models" / n) for n in ("a.xml", "w.bin"))
    spec = TensorSpec("x", (-1, 3, 8, 8), "float32")
    artefacts = (
        Artefact("a-fp32", "a", "openvino", "fp32", (graph, weights), (spec,), (spec,)),
        Artefact("b-fp32", "b", "openvino", "fp32", (graph, weights), (spec,), (spec,), opset=17),
    )
    manifest = Manifest(
        schema="edgexfer.bundle/1",
        name="student",
        model="resnet8",
        parameters=10,
        labels=("no", "<b>", "数"),
        preprocess=Preprocess((8, 8), 8),
        profiles={},
        artefacts=artefacts,
        evaluation=None,
        golden_images="g.npy",
        reference=None,
        parity=(),
        calibration={},
        lineage={},
        files=(file_entry(place, place / "g.npy"),),
        created_utc="2026-11-20T21:00:00Z",
    )
    seal(place, manifest)
    return place


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle")


def edit(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    value = json.loads((bundle / MANIFEST).read_text())
    change(value)
    (bundle / MANIFEST).write_text(json.dumps(value))


def test_a_sealed_bundle_is_whole_and_reads_back(bundle: Path) -> None:
    manifest = verify_files(bundle)
    assert manifest.labels == ("no", "<b>", "数")
    assert [e.path for e in all_entries(manifest)] == ["models/a.xml", "models/w.bin", "g.npy"]
    assert get_artefact(manifest, "b-fp32").opset == 17


def test_an_unknown_artefact_brings_the_nearest(bundle: Path) -> None:
    with pytest.raises(BundleError, match="artefact 'a-fp23' is not in the bundle") as caught:
        get_artefact(read_manifest(bundle), "a-fp23")
    assert "'a-fp32'" in caught.value.fix


def test_a_folder_without_a_manifest_is_not_sealed(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"not a sealed bundle \(no manifest\.json\)") as caught:
        verify_files(tmp_path)
    assert caught.value.fix == "name a folder that `edgexfer export` has made"


def link_a_file(bundle: Path) -> None:
    (bundle / "g.npy").unlink()
    (bundle / "g.npy").symlink_to("/etc/hostname")


def link_a_folder(bundle: Path) -> None:
    (bundle / "more").symlink_to(bundle / "models")


def put_a_pipe(bundle: Path) -> None:
    (bundle / "g.npy").unlink()
    os.mkfifo(bundle / "g.npy")
    edit(bundle, lambda m: m["files"][0].update(bytes=0))


def named(name: str) -> Callable[[Path], None]:
    """Give an artefact another name; records and engines are named after it."""
    return lambda b: edit(b, lambda m: m["artefacts"][0].update(name=name))


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (lambda b: (b / "g.npy").unlink(), "g.npy: is missing"),
        (lambda b: (b / "g.npy").write_bytes(b"h"), "g.npy: differs from the manifest"),
        (lambda b: (b / "g.npy").write_bytes(b"gg"), "g.npy: differs from the manifest"),
        (lambda b: (b / "x.so").write_bytes(b""), "x.so: is not listed in the manifest"),
        (lambda b: (b / "models" / ".x").write_bytes(b""), ".x: is not listed in the manifest"),
        (link_a_file, "g.npy: is a symbolic link"),
        (link_a_folder, "more: is a symbolic link"),
        (put_a_pipe, "g.npy: is not a plain file"),
        (lambda b: edit(b, lambda m: m["files"][0].update(path="../g.npy")), "unsafe path '../g"),
        (lambda b: edit(b, lambda m: m["files"][0].update(path="/g.npy")), "unsafe path '/g.npy'"),
        (
            lambda b: edit(b, lambda m: m.update(reference={"correct": 0, "n": 0})),
            "reference is 0 right of 0",
        ),
        (named("../e"), "unsafe name '../e'"),
        (named("/tmp/e"), "unsafe name '/tmp/e'"),
        (named(".."), "unsafe name '..' of an"),
        (named("b-fp32"), "two artefacts are named"),
        (lambda b: edit(b, lambda m: m.update(schema="edgexfer.bundle/2")), "expected 'edgexfer.b"),
        (lambda b: edit(b, lambda m: m.update(extra=1)), "unknown key extra"),
        (lambda b: edit(b, lambda m: m.pop("labels")), "key labels is missing"),
        (
            lambda b: edit(b, lambda m: m.update(parameters="10")),
            "parameters is '10', expected",
        ),
        (lambda b: (b / MANIFEST).write_text("[]"), "schema is None"),
        (lambda b: (b / MANIFEST).write_text('{"schema": '), "not readable as JSON"),
        (lambda b: (b / MANIFEST).write_text('{"a": 1, "a": 1}'), "duplicate key 'a'"),
    ],
)
def test_a_harmed_bundle_is_refused_by_the_name_of_the_file(
    bundle: Path, harm: Callable[[Path], None], what: str
) -> None:
    harm(bundle)
    with pytest.raises(BundleError) as caught:
        verify_files(bundle)
    assert what in caught.value.what
    assert REMAKE in caught.value.fix


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_changed_byte_is_found(bundle: Path, data: st.DataObject) -> None:
    names = ("models/a.xml", "models/w.bin", "g.npy")
    place = bundle / data.draw(st.sampled_from(names))
    sound = place.read_bytes()
    at = data.draw(st.integers(0, len(sound) - 1))
    flipped = sound[at] ^ (1 << data.draw(st.integers(0, 7)))
    place.write_bytes(sound[:at] + bytes([flipped]) + sound[at + 1 :])
    try:
        with pytest.raises(BundleError, match="differs from the manifest"):
            verify_files(bundle)
    finally:
        place.write_bytes(sound)


@given(st.binary(max_size=300))
def test_any_bytes_as_a_manifest_are_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    place = tmp_path_factory.getbasetemp() / "fuzz"
    place.mkdir(exist_ok=True)
    (place / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError):
        read_manifest(place)


@pytest.mark.parametrize(
    "path",
    [
        *("", "/a", "a//b", "a/", "./a", "a/./b", "..", "../a", "a/../b", "a/.."),
        *("C:\\a", "C:a", "a\\b", "a\x00b", "a\nb", "\x1f"),
    ],
)
def test_paths_that_could_leave_the_bundle_are_unsafe(path: str) -> None:
    assert not is_safe(path)


@given(st.lists(st.text("abcXYZ019_.- é", min_size=1), min_size=1, max_size=4))
def test_a_safe_path_stays_below_its_folder(parts: list[str]) -> None:
    path = "/".join(parts)
    inside = os.path.normpath(f"/bundle/{path}")
    if is_safe(path):
        assert inside == f"/bundle/{path}"
    else:
        assert {".", ".."} & set(parts)


def test_entries_are_relative_with_forward_slashes(bundle: Path) -> None:
    entry = file_entry(bundle, bundle / "models" / "w.bin")
    assert (entry.path, entry.bytes) == ("models/w.bin", 99)
    assert replace(entry, path="x") == FileEntry("x", 99, entry.sha256)


def test_one_path_with_two_contents_is_refused(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    first = manifest.artefacts[0]
    other = replace(first.files[0], sha256="0" * 64)
    forged = replace(first, files=(other, *first.files[1:]))
    seal(bundle, replace(manifest, artefacts=(forged, *manifest.artefacts[1:])))
    with pytest.raises(BundleError, match=r"models/a\.xml: is listed with two contents"):
        verify_files(bundle)


@pytest.mark.parametrize(
    "change",
    [{"golden_images": "h.npy"}, {"profiles": {"a": "profiles/a.json"}}],
    ids=["golden", "profile"],
)
def test_a_path_that_is_named_must_be_listed(bundle: Path, change: dict[str, Any]) -> None:
    seal(bundle, replace(read_manifest(bundle), **change))
    with pytest.raises(BundleError, match="is named in the manifest, not listed"):
        verify_files(bundle)
