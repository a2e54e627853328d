"""Profiles: the ones that come along, finding them, and every fault of one at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgexfer.core.errors import ProfileError
from edgexfer.core.profile import Fact, HardwareProfile
from edgexfer.profiles import (
    check_profile,
    find_profile,
    list_profiles,
    probe,
    profile_schema,
    profiles_dir,
    to_yaml,
)

GOOD = """\
name: board
title: A board
backend: onnxruntime
device: CPU
machine: aarch64
seen_on_hardware: false
"""


def write(folder: Path, text: str, name: str = "board") -> Path:
    place = folder / f"{name}.yaml"
    place.write_text(text)
    return place


def test_five_targets_come_along() -> None:
    profiles = {p.name: p for p in list_profiles()}
    assert sorted(profiles) == [
        "jetson-orin-nano",
        "rpi5-onnxruntime",
        "x86-onnxruntime",
        "x86-openvino",
        "x86-torch",
    ]
    unseen = [p.name for p in profiles.values() if not p.seen_on_hardware]
    assert unseen == ["jetson-orin-nano", "rpi5-onnxruntime"]


def test_names_and_aliases_are_unique_over_all_files() -> None:
    names = [n for p in list_profiles() for n in (p.name, *p.aliases)]
    assert len(names) == len(set(names))


def test_every_fact_has_its_source() -> None:
    facts = [(p.name, k, f) for p in list_profiles() for k, f in p.facts.items()]
    assert len(facts) >= 15
    for name, key, fact in facts:
        assert fact.source, f"{name}: {key}"


def test_jetson_takes_what_tensorrt_takes() -> None:
    jetson = find_profile("jetson")
    assert jetson.name == "jetson-orin-nano"
    assert jetson.backend == "tensorrt"
    assert jetson.compile_on == "device"
    assert jetson.quantization.activations == "int8"
    assert [r.name for r in jetson.stack if r.default] == ["JetPack 6.2"]
    assert "MAXN_SUPER" in jetson.power_modes


def test_an_alias_and_a_path_find_the_same_profile() -> None:
    path = profiles_dir() / "x86-openvino.yaml"
    assert find_profile("openvino") == find_profile(path) == find_profile("x86-openvino")


@pytest.mark.parametrize("name", ["jetsn", "../x86-torch", "x86_torch", ""])
def test_an_unknown_name_offers_the_nearest(name: str) -> None:
    with pytest.raises(ProfileError) as caught:
        find_profile(name)
    assert name in caught.value.what
    assert caught.value.fix


def test_the_nearest_name_is_named() -> None:
    with pytest.raises(ProfileError) as caught:
        find_profile("jetsn")
    assert "'jetsn' is unknown" in caught.value.what
    assert "did you mean 'jetson'" in caught.value.fix


def test_a_minimal_profile_is_good(tmp_path: Path) -> None:
    assert check_profile(write(tmp_path, GOOD)).title == "A board"


def test_wrong_types_are_all_reported_with_key_and_line(tmp_path: Path) -> None:
    text = GOOD.replace("false", "no") + (
        "precisions: [int8, fp64]\n"
        "presicions: [fp32]\n"
        "quantization: {scheme: qdqq}\n"
        "facts:\n"
        "  tops:\n"
        "    value: 3\n"
        "    kind: guess\n"
        "    source: me\n"
    )
    with pytest.raises(ProfileError) as caught:
        check_profile(write(tmp_path, text))
    what = caught.value.what
    assert "seen_on_hardware (line 6) is 'no'" in what
    assert "precisions.1 (line 7) is 'fp64'" in what
    assert "unknown key presicions (line 8)" in what
    assert "quantization.scheme (line 9) is 'qdqq'" in what
    assert "facts.tops.kind (line 13) is 'guess'" in what
    assert "did you mean 'precisions'" in caught.value.fix


CONTRADICTIONS = {
    "name: board": ("name: bord", "name is 'bord' (line 1)", "name it 'board'"),
    "backend: onnxruntime": (
        "backend: onnxrt",
        "backend is 'onnxrt' (line 3)",
        "did you mean 'onnxruntime'",
    ),
    "device: CPU": (
        "device: CPU\nprecisions: [int8]",
        "precisions has no fp32 (line 5)",
        "list fp32",
    ),
    "machine: aarch64": (
        "machine: aarch64\nquantization: {scheme: nncf}",
        "quantization.scheme is 'nncf' (line 6)",
        "takes 'qdq'",
    ),
    "title: A board": (
        "title: A board\naliases: [b, b]",
        "aliases holds 'b' twice (line 3)",
        "name 'b' once",
    ),
    "seen_on_hardware: false": (
        "seen_on_hardware: false\naliases: [No_Name]",
        "aliases: 'No_Name' is no name (line 7)",
        "use a-z",
    ),
    "machine: aarch64\n": (
        "machine: aarch64\nfacts: {x: {value: 1, kind: measured, source: ' '}}\n",
        "facts.x.source is empty (line 6)",
        "say where",
    ),
}


@pytest.mark.parametrize("old", CONTRADICTIONS)
def test_a_contradiction_is_named_with_its_mend(old: str, tmp_path: Path) -> None:
    new, what, fix = CONTRADICTIONS[old]
    with pytest.raises(ProfileError) as caught:
        check_profile(write(tmp_path, GOOD.replace(old, new)))
    assert what in caught.value.what
    assert fix in caught.value.fix


def test_all_contradictions_come_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("name: board", "name: bord").replace("onnxruntime", "onnxrt")
    with pytest.raises(ProfileError) as caught:
        check_profile(write(tmp_path, text + "precisions: [int8, int8]\n"))
    for part in ("bord", "onnxrt", "no fp32", "'int8' twice"):
        assert part in caught.value.what


@pytest.mark.parametrize(
    ("backend", "quantization", "what", "fix"),
    [
        ("tensorrt", "activations: uint8", "activations is 'uint8'", "TensorRT takes 'int8'"),
        ("openvino", "scheme: nncf, weights: int8-per-tensor", "weights is", "NNCF makes"),
        ("openvino", "scheme: nncf, reduce_range: true", "reduce_range is True", "leave it out"),
    ],
)
def test_what_a_quantizer_would_not_heed_is_refused(
    backend: str, quantization: str, what: str, fix: str, tmp_path: Path
) -> None:
    text = GOOD.replace("onnxruntime", backend) + f"quantization: {{{quantization}}}\n"
    with pytest.raises(ProfileError) as caught:
        check_profile(write(tmp_path, text))
    assert f"quantization.{what}" in caught.value.what
    assert fix in caught.value.fix
    check_profile(write(tmp_path, text + "precisions: [fp32]\n"))


def test_one_default_row_at_most(tmp_path: Path) -> None:
    row = (
        "{name: A, runtime_version: '1', python: '3', glibc: '2', onnx_opset_max: 20, "
        "default: true}"
    )
    text = GOOD + f"stack: [{row}, {row.replace('A', 'B')}]\n"
    with pytest.raises(ProfileError, match="2 default rows"):
        check_profile(write(tmp_path, text))


def test_int8_is_refused_where_the_runtime_has_none(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="int8, which backend torch cannot run"):
        check_profile(write(tmp_path, GOOD.replace("onnxruntime", "torch")))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"none\.yaml: no such file"):
        check_profile(tmp_path / "none.yaml")


TEXT = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=30)


@settings(deadline=None, max_examples=25)
@given(title=TEXT, source=TEXT, value=st.integers() | st.booleans() | TEXT)
def test_yaml_round_trip(
    tmp_path_factory: pytest.TempPathFactory, title: str, source: str, value: object
) -> None:
    facts = {"x": Fact(value, "recalled", source)}
    profile = replace(find_profile("x86-torch"), title=title, facts=facts)
    place = write(tmp_path_factory.getbasetemp(), to_yaml(profile), profile.name)
    assert check_profile(place) == profile


FACTS = {
    "machine": "x86_64",
    "cpu": "Intel(R) Xeon(R) CPU @ 2.20GHz",
    "cpu_flags": ["avx2"],
    "cores": 2,
    "governor": None,
    "load1": 3.5,
    "absent": {"governor": "no cpufreq"},
}


def test_probe_keeps_what_lasts_and_marks_it_measured(tmp_path: Path) -> None:
    profile = probe(FACTS)
    assert profile.name == "intel-xeon-onnxruntime"
    assert {f.kind for f in profile.facts.values()} == {"measured"}
    assert set(profile.facts) == {"cpu", "cpu_flags", "cores"}
    place = write(tmp_path, to_yaml(profile), profile.name)
    assert check_profile(place) == profile


@pytest.mark.parametrize(
    ("changes", "backend", "activations", "reduced"),
    [
        ({}, "tensorrt", "int8", False),
        ({}, "onnxruntime", "uint8", True),
        ({"cpu_flags": ["avx512_vnni"]}, "onnxruntime", "uint8", False),
        ({"cpu_flags": None}, "onnxruntime", "uint8", False),
        ({"machine": "aarch64"}, "onnxruntime", "int8", False),
        ({}, "openvino", "int8", False),
    ],
)
def test_probe_chooses_the_types_that_the_processor_multiplies(
    changes: dict[str, object], backend: str, activations: str, reduced: bool
) -> None:
    found = probe({**FACTS, **changes}, backend).quantization
    assert (found.activations, found.reduce_range) == (activations, reduced)


def test_probe_reads_this_machine() -> None:
    from edgexfer.bench.device import facts

    assert isinstance(probe(facts()), HardwareProfile)


@pytest.mark.parametrize(
    ("backend", "name", "what"),
    [("tensort", None, "'tensort' is unknown"), ("torch", "My Board", "'My Board' is no name")],
)
def test_probe_refuses(backend: str, name: str | None, what: str) -> None:
    with pytest.raises(ProfileError) as caught:
        probe(FACTS, backend, name)
    assert what in caught.value.what
    assert caught.value.fix


def test_the_schema_lists_the_words_that_may_be_used() -> None:
    schema = json.loads(profile_schema())
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["$defs"]["Fact"]["properties"]["kind"]["enum"] == [
        "datasheet",
        "computed",
        "measured",
        "recalled",
    ]
    assert schema["additionalProperties"] is False
