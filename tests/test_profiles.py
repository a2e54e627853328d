"""Profiles: the ones that come along, finding them, and every fault of one at once."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgexfer.core.errors import ProfileError
from edgexfer.core.profile import Fact, HardwareProfile, Precision
from edgexfer.profiles import (
    check_profile,
    contradictions,
    find_profile,
    list_profiles,
    profile_schema,
    profiles_dir,
    read_peak,
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


# Every target that comes along, by what it is.
JETSONS = (
    *("jetson-orin-nano", "jetson-orin-nano-4gb", "jetson-orin-nx-16gb", "jetson-orin-nx-8gb"),
    *("jetson-agx-orin-64gb", "jetson-agx-orin-32gb", "jetson-xavier-nx", "jetson-agx-thor"),
    *("jetson-t4000", "jetson-nano"),
    *(f"jetson-{m}-dla" for m in ("orin-nx-8gb", "orin-nx-16gb", "xavier-nx")),
    *("jetson-agx-orin-32gb-dla", "jetson-agx-orin-64gb-dla"),
)
INTEL = (
    "intel-core-ultra-openvino",
    *(
        f"intel-{g}-lake-{d}-openvino"
        for g in ("meteor", "lunar", "panther")
        for d in ("gpu", "npu")
    ),
    *("intel-n100-openvino", "intel-n97-openvino", "intel-atom-x7425e-openvino"),
)
ARM = ("rpi4-onnxruntime", "rpi5-onnxruntime", "rpi5-openvino", "rk3588-onnxruntime")
SEEN = ("x86-onnxruntime", "x86-openvino", "x86-torch")
X86 = (
    *SEEN,
    *("x86-avx2-onnxruntime", "x86-avx512-vnni-onnxruntime"),
    *("x86-amx-onnxruntime", "x86-amx-openvino"),
)
ALL = {p.name: p for p in list_profiles()}


def test_every_target_comes_along_and_says_whether_it_was_seen() -> None:
    assert sorted(ALL) == sorted((*JETSONS, *INTEL, *ARM, *X86, "nvidia-gpu"))
    assert {p.name for p in ALL.values() if p.seen_on_hardware} == set(SEEN)


def test_names_and_aliases_are_unique_over_all_files() -> None:
    names = [n for p in ALL.values() for n in (p.name, *p.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("jetson", "jetson-orin-nano"),
        ("jetson-agx-orin", "jetson-agx-orin-64gb"),
        ("jetson-thor", "jetson-agx-thor"),
        ("x86", "x86-onnxruntime"),
        ("x86-avx2", "x86-avx2-onnxruntime"),
        ("openvino", "x86-openvino"),
        ("torch", "x86-torch"),
        ("rpi4", "rpi4-onnxruntime"),
        ("rpi5", "rpi5-onnxruntime"),
        ("raspberry-pi-5", "rpi5-onnxruntime"),
        ("orin-nano", "jetson-orin-nano"),
        ("jetson-orin-nano-super", "jetson-orin-nano"),
        ("core-ultra", "intel-core-ultra-openvino"),
        ("n100", "intel-n100-openvino"),
    ],
)
def test_an_alias_stands_for_one_target(alias: str, name: str) -> None:
    assert find_profile(alias).name == name


def test_every_fact_has_its_source_and_a_formula_where_it_is_computed() -> None:
    facts = [(p.name, k, f) for p in ALL.values() for k, f in p.facts.items()]
    assert len(facts) >= 150
    for name, key, fact in facts:
        assert fact.source, f"{name}: {key}"
        if fact.kind == "computed":
            assert " x " in fact.source, f"{name}: {key}"
            assert re.search(r"\d", fact.source), f"{name}: {key}"


FORMULA = re.compile(
    r"^(\d+) SM x (?:(\d+) tensor cores x )?(\d+) operations per cycle x ([\d.]+) GHz"
)


def test_peaks_are_what_their_formulas_give() -> None:
    checked = 0
    for profile in ALL.values():
        for key, fact in profile.facts.items():
            match = FORMULA.match(fact.source)
            peak = read_peak(key)
            if match and peak:
                sms, cores, each, ghz = match.groups()
                value = int(sms) * int(cores or 1) * int(each) * float(ghz) * 1e9 / peak[1]
                assert fact.value == pytest.approx(value, rel=0.005), f"{profile.name}: {key}"
                checked += 1
    assert checked == 24


def test_releases_of_one_name_are_one_thing_on_every_board() -> None:
    rows = [(p.backend, row) for p in ALL.values() for row in p.stack]
    assert len(rows) >= 50
    # What a board has is its own: a DLA, and which release an export is made for.
    plain = {(b, replace(row, dla=False, default=False)) for b, row in rows}
    assert len(plain) == len({(b, row.name, row.runtime_version) for b, row in rows})
    for profile in ALL.values():
        assert sum(row.default for row in profile.stack) == 1, profile.name


def test_dla_is_said_by_release() -> None:
    assert {r.name for r in ALL["jetson-agx-orin-64gb"].stack if r.dla} == {
        *("JetPack 5.1", "JetPack 6.0", "JetPack 6.2", "JetPack 7.2.2 with TensorRT 11.4")
    }
    assert not any(row.dla for row in ALL["jetson-orin-nano"].stack)
    assert not any(row.dla for row in ALL["jetson-agx-thor"].stack)


def test_every_board_with_a_dla_has_a_profile_of_it() -> None:
    boards = {p.name for p in ALL.values() if p.device == "GPU" and any(r.dla for r in p.stack)}
    of_dla = {p.name.removesuffix("-dla"): p for p in ALL.values() if p.device == "DLA"}
    assert set(of_dla) == boards
    for name, profile in of_dla.items():
        assert {r.name for r in profile.stack} == {r.name for r in ALL[name].stack if r.dla}


def test_a_cpu_without_vnni_keeps_weights_to_seven_bits() -> None:
    reduced = {p.name for p in ALL.values() if p.quantization.reduce_range}
    assert reduced == {"x86-avx2-onnxruntime"}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_the_precisions_of_a_backend_are_its_own(backend: str) -> None:
    """One table stands in the backend, one in the check, which may not import it."""
    module = importlib.import_module(f"edgexfer.backends.{backend}")
    profile = replace(ALL["x86-torch"], backend=backend, arithmetic=())
    for precision in get_args(Precision):
        wanted = replace(profile, precisions=tuple(dict.fromkeys(("fp32", precision))))
        wrong = [f for f in faults_of(wanted) if "cannot run" in f]
        assert bool(wrong) == (precision not in module.PRECISIONS), precision


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


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("lunar-lake-n", "intel-lunar-lake-npu-openvino"),
        ("Nano Super", "jetson-orin-nano"),
        ("NX_16gb", "jetson-orin-nx-16gb, jetson-orin-nx-16gb-dla"),
    ],
)
def test_a_part_of_a_name_or_title_offers_all_that_have_it(name: str, offered: str) -> None:
    with pytest.raises(ProfileError) as caught:
        find_profile(name)
    assert caught.value.fix == f"did you mean {offered}? (`edgexfer profiles list`)"


def test_a_name_like_no_other_is_sent_to_the_list() -> None:
    with pytest.raises(ProfileError) as caught:
        find_profile("coral-tpu-usb")
    assert "`edgexfer profiles list`" in caught.value.fix
    assert "`edgexfer profiles probe -o FILE`" in caught.value.fix
    assert len(caught.value.fix) < 100


def test_the_nearest_name_is_named() -> None:
    with pytest.raises(ProfileError) as caught:
        find_profile("jetsn")
    assert "'jetsn' is unknown" in caught.value.what
    assert "did you mean 'jetson'" in caught.value.fix


def faults_of(profile: HardwareProfile) -> list[str]:
    return [fault for _, fault, _ in contradictions(profile, profile.name)]


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


def test_wrong_shape_and_wrong_sense_are_reported_at_once(tmp_path: Path) -> None:
    text = (
        "name: board\nbackend: tensorrtt\nseen_on_hardware: false\n"
        "facts:\n  clock: {value: 1.8, kind: recalled, source: me}\n"
        "  cores: {value: 4, kind: guessed, source: ' '}\n"
        "stack:\n"
        "  - {name: a, runtime_version: 8.x, python: '3.8', glibc: '2.31', onnx_opset_max: 17,"
        " typing: weak}\n"
    )
    with pytest.raises(ProfileError) as caught:
        check_profile(write(tmp_path, text))
    what = caught.value.what
    for key in ("title", "device", "machine"):
        assert f"key {key} is missing" in what
        assert f"add {key}" in caught.value.fix
    assert "backend is 'tensorrtt' (line 2)" in what
    assert "did you mean 'tensorrt'?" in caught.value.fix
    assert "facts.clock has no unit (line 5)" in what
    assert "facts.cores.kind (line 6) is 'guessed'" in what
    assert "facts.cores.source" not in what  # that fact is mended first
    assert "stack.0.runtime_version is '8.x' (line 8)" in what
    assert "typing" not in what  # which is right is not known before the backend is


def test_a_word_that_is_none_of_the_choices_gets_the_nearest(tmp_path: Path) -> None:
    text = GOOD.replace("backend: onnxruntime", "backend: openvno") + "precisions: [fp8, fp32]\n"
    with pytest.raises(ProfileError) as caught:
        check_profile(write(tmp_path, text))
    assert "precisions.0 (line 7) is 'fp8'" in caught.value.what
    assert "backend is 'openvno'" in caught.value.what
    assert "precisions.0: known: bf16, fp16, fp32, int8" in caught.value.fix
    assert "did you mean 'openvino'?" in caught.value.fix


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
    "device: CPU\nmachine": (
        "device: TPU\nmachine",
        "device is 'TPU' (line 4)",
        "runs on CPU or CUDA",
    ),
    "aarch64\nseen": (
        "aarch64\nprecisions: [fp16, fp32]\nseen",
        "precisions lists fp16, which backend onnxruntime cannot run (line 6)",
        "take fp16 out",
    ),
    "aarch64\nseen_": (
        "aarch64\narithmetic: [fp32]\nseen_",
        "precisions lists int8, which the chip lacks",
        "list fp32, as in arithmetic",
    ),
    "machine: aarch64": (
        "machine: aarch64\nquantization: {scheme: nncf}",
        "quantization.scheme is 'nncf' (line 6)",
        "takes 'qdq'",
    ),
    "false": (
        "false\nlimits: {latency_p90_ms: -5, size_bytes: 0, accuracy_drop_pt: 0.0}",
        "limits.latency_p90_ms is -5.0 (line 7); limits.size_bytes is 0 (line 7)",
        "give latency_p90_ms a number above 0, or leave it out",
    ),
    "title: A board": (
        "title: A board\naliases: [b, b]",
        "aliases holds 'b' twice (line 3)",
        "name 'b' once",
    ),
    "seen_on_hardware: false": (
        "seen_on_hardware: false\naliases: [No_Name]",
        "aliases: 'No_Name' is not a valid name (line 7)",
        "use a-z",
    ),
    "machine: aarch64\n": (
        "machine: aarch64\nfacts: {x: {value: 1, kind: measured, source: ' '}}\n",
        "facts.x.source is empty (line 6)",
        "say where",
    ),
    "machine: aarch64\nse": (
        "machine: aarch64\nfacts:\n  clock: {value: 1.8, kind: recalled, source: me}\nse",
        "facts.clock has no unit (line 7)",
        "end its key in _gb",
    ),
    "machine: aarch64\nsee": (
        "machine: aarch64\nfacts: {int8_peak_tflop_s: {value: 1, kind: recalled, source: me}}\nsee",
        "facts.int8_peak_tflop_s is not a peak that can be read (line 6)",
        "int8_peak_top_s",
    ),
    "machine: aarch64\nseen": (
        "machine: aarch64\nfacts: {memory_gb: {value: 0, kind: recalled, source: me}}\nseen",
        "facts.memory_gb is 0, expected a number above 0 (line 6)",
        "leave out memory_gb",
    ),
    "machine: aarch64\nseen_": (
        "machine: aarch64\n"
        "facts:\n"
        "  int8_peak_top_s: {value: 1, kind: recalled, source: me}\n"
        "  int8_dense_peak_gop_s: {value: 1, kind: recalled, source: me}\n"
        "seen_",
        "facts.int8_dense_peak_gop_s is another peak than int8_peak_top_s (line 8)",
        "keep one",
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
    device = "GPU" if backend == "tensorrt" else "CPU"
    text = GOOD.replace("onnxruntime", backend).replace("CPU", device)
    text += f"quantization: {{{quantization}}}\n"
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


@pytest.mark.parametrize(
    ("backend", "row", "what", "fix"),
    [
        ("tensorrt", "runtime_version: 11.4.1, typing: weak", "typing is 'weak'", "strong typing"),
        ("tensorrt", "runtime_version: 8.5.2, typing: strong", "typing is 'strong'", "say weak"),
        ("openvino", "runtime_version: '2026.4', typing: weak", "typing is 'weak'", "leave it out"),
        ("tensorrt", "runtime_version: latest", "runtime_version is 'latest'", "numbers with dots"),
        ("tensorrt", "runtime_version: 10.3.0, onnx_opset_max: 170", "max is 170", "7 to 40"),
        ("tensorrt", "runtime_version: 10.3.0, dla: true", "dla is true", "take dla out"),
    ],
)
def test_a_release_that_cannot_be_is_refused(
    backend: str, row: str, what: str, fix: str, tmp_path: Path
) -> None:
    opset = "" if "opset" in row else ", onnx_opset_max: 17"
    text = GOOD.replace("onnxruntime", backend).replace("CPU", "GPU") + (
        "precisions: [fp32]\n"
        "facts: {dla_cores: {value: 0, kind: recalled, source: me}}\n"
        "stack:\n"
        f"  - {{name: A, python: '3', glibc: '2', {row}{opset}}}\n"
    )
    with pytest.raises(ProfileError) as caught:
        check_profile(write(tmp_path, text))
    assert f"stack.0.{what.split()[0]}" in caught.value.what or what in caught.value.what
    assert "(line 10)" in caught.value.what
    assert fix in caught.value.fix


def test_a_chip_without_fp32_needs_none(tmp_path: Path) -> None:
    text = GOOD.replace("onnxruntime", "openvino").replace("CPU", "NPU") + (
        "precisions: [fp16]\narithmetic: [fp16, int8]\n"
    )
    assert check_profile(write(tmp_path, text)).precisions == ("fp16",)


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
    facts = {"x_count": Fact(value, "recalled", source)}
    profile = replace(find_profile("x86-torch"), title=title, facts=facts)
    place = write(tmp_path_factory.getbasetemp(), to_yaml(profile), profile.name)
    assert check_profile(place) == profile


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
