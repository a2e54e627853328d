"""``edgexfer profiles``: the table, one profile and its sources, a bound, the faults of a file."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from edgexfer.cli import run
from edgexfer.profiles import check_profile, find_profile, list_profiles, profiles_dir
from tests.cli.test_verbs import answered, said

# 3x3 over 4 x 4 with 2 channels in and out, padded: 4*4 * 2*2 * 9 multiply-accumulates.
MODEL = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N,2,4,4] x) => (float[N,2,4,4] y) <float[2,2,3,3] w = {ZEROS}>
{ y = Conv <pads=[1,1,1,1]> (x, w) }""".replace("ZEROS", ", ".join(["0"] * 36))
MACS = 4 * 4 * 2 * 2 * 9


@pytest.fixture
def model(tmp_path: Path) -> Path:
    place = tmp_path / "net.onnx"
    place.write_bytes(onnx.parser.parse_model(MODEL).SerializeToString())
    return place


def test_the_table_has_a_line_for_each_target(capsys: pytest.CaptureFixture[str]) -> None:
    heads, _, *rows = said(capsys, "profiles", "list").splitlines()
    assert heads.split() == ["name", "also", "runtime", "precisions", "hardware", "title"]
    assert [row.split()[0] for row in rows] == [p.name for p in list_profiles()]
    seen = [row.split()[0] for row in rows if "not measured" not in row]
    assert seen == ["x86-onnxruntime", "x86-openvino", "x86-torch"]


def test_a_profile_is_shown_with_every_source(capsys: pytest.CaptureFixture[str]) -> None:
    jetson = find_profile("jetson-agx-orin")
    text = said(capsys, "profiles", "show", "jetson-agx-orin")
    lines = text.splitlines()
    for key, fact in jetson.facts.items():
        [line] = [item for item in lines if item.startswith(f"{key} ")]
        assert fact.kind in line
        assert fact.source in line
    for row in jetson.stack:
        [line] = [item for item in lines if item.startswith(f"{row.name} ")]
        assert row.runtime_version in line
        assert f"≤ {row.onnx_opset_max}" in line
    for mode, caps in jetson.power_modes.items():
        assert any(item.startswith(mode) and caps in item for item in lines), mode
    assert "provided, not measured" in text
    assert "limits      none" in text


def test_limits_and_seven_bits_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (profiles_dir() / "x86-avx2-onnxruntime.yaml").read_text()
    place = tmp_path / "x86-avx2-onnxruntime.yaml"
    place.write_text(text + "limits: {latency_p90_ms: 8.5, size_bytes: 4000000}\n")
    shown = said(capsys, "profiles", "show", place)
    assert "limits      p90 latency 8.5 ms, size 4000000 bytes" in shown
    assert "weights of 7 bits" in shown


def test_a_profile_can_be_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "jetson-orin-nano.yaml"
    place.write_text(said(capsys, "profiles", "show", "jetson", "--yaml"))
    assert check_profile(place) == find_profile("jetson")


def test_a_bound_says_what_it_rests_on(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "profiles", "show", "rpi5", "--model", model)
    assert f"Lower bound, not a prediction: net.onnx, batch 1, {MACS / 1e6:.4g} million" in text
    assert "from fp32_peak_gflop_s 154, computed: 4 cores x 16 operations per cycle" in text
    assert "assumed: every multiplication of a direct convolution is done" in text
    found = answered(capsys, "profiles", "show", "rpi5", "--model", model)
    assert found["profile"]["name"] == "rpi5-onnxruntime"
    bounds = {b["precision"]: b for b in found["lower_bounds"]}
    assert list(bounds) == ["int8", "fp32"]
    assert bounds["fp32"]["macs"] == MACS
    assert bounds["fp32"]["latency_ms"]["value"] == pytest.approx(2e3 * MACS / 154e9)
    assert bounds["fp32"]["latency_ms"]["used"][0]["fact"] == "fp32_peak_gflop_s"


def test_without_facts_there_is_a_reason(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "profiles", "show", "x86", "--model", model)
    assert "unknown: x86-onnxruntime has no fact int8_peak_*" in text
    assert "`edgexfer profiles probe --backend onnxruntime -o FILE.yaml` there" in text
    other = said(capsys, "profiles", "show", "nvidia-gpu", "--model", model)
    assert "add the peaks of your chip to its facts" in other
    assert "to bound it" not in said(capsys, "profiles", "show", "jetson", "--model", model)
    found = answered(capsys, "profiles", "show", "x86", "--model", model)
    for least in found["lower_bounds"]:
        assert least["latency_ms"]["value"] is None
        assert least["latency_ms"]["reason"]


def test_all_faults_of_a_file_come_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (profiles_dir() / "jetson-nano.yaml").read_text()
    place = tmp_path / "mine.yaml"
    place.write_text(
        text.replace("precisions: [fp16, fp32]", "precisions: [int8, fp16]")
        .replace("typing: weak", "typing: strong")
        .replace("gpu_clock_max_mhz", "gpu_clock_max")
    )
    capsys.readouterr()
    assert run(["profiles", "check", str(place)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    what, fix = err.splitlines()
    for part in (
        "name is 'jetson-nano'",
        "int8, which the chip lacks",
        "precisions has no fp32",
        "stack.0.typing is 'strong' for 8.2.1",
        "facts.gpu_clock_max has no unit",
    ):
        assert part in what
    assert what.count("(line ") == 5
    assert fix


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("show", "jetson", "--yaml", "--json"), "--yaml goes with neither"),
        (("show", "jetson", "--model", "none.onnx"), "none.onnx: no such file"),
        (("probe", "--backend", "tensort"), "'tensort' is unknown"),
        (("probe", "--name", "My Board"), "'My Board' is not a valid profile name"),
        (("probe", "-o", "pp.json"), "pp.json: is not the name of a profile file"),
        (("probe", "-o", "My Board.yaml"), "'My Board' is not a valid profile name"),
        (("probe", "-o", "pp.yaml", "--name", "mine"), "mine is not the name of pp.yaml"),
        (("probe", "-o", "profiles/x86-torch.yaml"), "already exists"),
    ],
)
def test_what_is_wrong_is_refused(
    words: tuple[str, ...], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["profiles", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert what in err


def test_a_backend_without_onnx_is_probed_without_peaks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    capsys.readouterr()
    assert run(["profiles", "probe", "--backend", "tensorrt", "--name", "here"]) == 0
    out, err = capsys.readouterr()
    assert "peaks are left out" in err
    assert "_peak_" not in out
    assert "backend: tensorrt" in out


def test_the_list_is_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(said(capsys, "profiles", "list", "--json"))
    assert [item["name"] for item in document] == [p.name for p in list_profiles()]
