"""The ladder stops at the first rung that is enough, and takes the fewest nodes out of INT8."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgexfer.bench.compare import compare
from edgexfer.core.explanation import Step, Verdict
from edgexfer.core.profile import HardwareProfile
from edgexfer.profiles import find_profile
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.clipping import METHODS
from edgexfer.quantize.qdq import check_qdq
from edgexfer.quantize.search import OF_MOST, Found, Wanted, find_int8
from edgexfer.quantize.sensitivity import logits_of, quantized_nodes


def judge_by(ratio_db: float, fp32: Path, images: Calibration) -> Callable[[Path], Verdict]:
    """Let pass what reaches a signal-to-noise ratio."""
    wanted = logits_of(onnx.load(fp32), images, "fp32")

    def judge(file: Path) -> Verdict:
        difference = compare(wanted, logits_of(onnx.load(file), images, "int8"))
        passed = difference.at_least(ratio_db)
        return Verdict(passed, difference.sqnr_db, difference.agreement_pct, 0.0)

    return judge


@pytest.fixture(params=["x86-onnxruntime", "jetson"])
def profile(request: pytest.FixtureRequest) -> HardwareProfile:
    return find_profile(request.param)


def search(
    ratio_db: float, fp32: Path, out: Path, profile: HardwareProfile, images: Calibration
) -> Found:
    judge = judge_by(ratio_db, fp32, images)
    told: list[Step] = []
    found = find_int8(Wanted(fp32, profile, images), out, judge, told.append)
    assert tuple(told) == found.steps
    check_qdq(out, strict=profile.backend == "tensorrt")
    # What was written is what was judged.
    verdicts = {step.name: step.verdict for step in found.steps}
    assert judge(out) == verdicts[found.chosen]
    assert found.scheme.endswith(f", {found.chosen}")
    return found


def test_a_low_bar_stops_at_the_first_rung_that_betters_min_max(
    fp32: Path, calibration: Calibration, profile: HardwareProfile, tmp_path: Path
) -> None:
    found = search(33.5, fp32, tmp_path / "q.onnx", profile, calibration)
    names = [step.name for step in found.steps]
    assert names[: len(METHODS)] == list(METHODS)
    assert found.chosen.endswith("biases corrected")
    assert not [name for name in names if "in float" in name]
    assert found.float_nodes == ()


def test_a_high_bar_keeps_the_fewest_nodes_in_float(
    fp32: Path, calibration: Calibration, profile: HardwareProfile, tmp_path: Path
) -> None:
    found = search(38.0, fp32, tmp_path / "q.onnx", profile, calibration)
    count = len(found.float_nodes)
    assert found.chosen.endswith(f"{count} node{'s' if count > 1 else ''} in float")
    assert count >= 1
    tried = {s.name: s.verdict.passed for s in found.steps if "in float" in s.name}
    fewer = [ok for name, ok in tried.items() if int(name.split(", ")[-1].split()[0]) < count]
    assert not any(fewer)
    graph = onnx.load(tmp_path / "q.onnx")
    # ONNX Runtime's quantizer may feed them what it has quantized for others.
    weights = {tensor.name for tensor in onnx.load(fp32).graph.initializer}
    left = [n for n in graph.graph.node if n.name in found.float_nodes and len(n.input) > 1]
    assert left
    assert all(node.input[1] in weights for node in left if node.op_type in ("Conv", "Gemm"))
    if profile.backend == "tensorrt":
        assert not set(found.float_nodes) & {name for name, _ in quantized_nodes(graph)}


def test_where_nothing_is_enough_the_best_is_taken(
    fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    profile = find_profile("jetson")
    found = search(500.0, fp32, tmp_path / "q.onnx", profile, calibration)
    best = max(found.steps[1:], key=lambda s: s.verdict.sqnr_db or 0.0)
    assert found.chosen == best.name


def test_it_gives_up_where_half_of_the_nodes_in_float_are_not_enough(
    fp32: Path, calibration: Calibration, profile: HardwareProfile, tmp_path: Path
) -> None:
    found = search(500.0, fp32, tmp_path / "q.onnx", profile, calibration)
    (mixed,) = [step.name for step in found.steps if "in float" in step.name]
    most = int(mixed.split(", ")[-1].split()[0])
    said = re.fullmatch(r"not even (\d+) of (\d+) nodes in float were enough", found.in_vain)
    assert said
    assert int(said[1]) == most == int(said[2]) // 2


def test_a_judge_that_sees_no_fault_wants_less_noise_than_that_of_min_max(
    fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    profile = find_profile("jetson")
    found = search(0.0, fp32, tmp_path / "q.onnx", profile, calibration)
    verdicts = {step.name: step.verdict for step in found.steps}
    plain, taken = verdicts["min-max"].sqnr_db, verdicts[found.chosen].sqnr_db
    assert plain is not None
    assert taken is not None
    assert taken >= plain + 3.0


def test_what_answers_unlike_fp32_is_not_built_upon(
    fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    """Though as many of its answers are right, and more are the same: that is chance."""
    of_name: dict[str, Verdict] = {
        "mse": Verdict(False, 17.0, 81.5, 4.6),
        "percentile-99.99": Verdict(False, 2.0, 83.1, 4.6, alike=False),
    }
    told: list[Step] = []
    order = iter(["min-max", *METHODS[1:]])

    def judge(file: Path) -> Verdict:
        del file
        return of_name.get(next(order, ""), Verdict(False, 1.0, 60.0, 9.0, alike=False))

    wanted = Wanted(fp32, find_profile("jetson"), calibration)
    find_int8(wanted, tmp_path / "q.onnx", judge, told.append)
    built = [step.name for step in told if ", " in step.name]
    assert built and all(name.startswith("mse, ") for name in built)


def test_what_was_refused_is_not_handed_out_again(
    fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    """The judge sees other images and may like it best of all: then it is what is built upon."""
    tried: list[str] = []

    def judge(file: Path) -> Verdict:
        tried.append(file.name)
        # The last range that is tried is that of most images.
        liked = len(tried) == len(METHODS) + 1
        return Verdict(liked, 30.0 if liked else 10.0 + len(tried) / 100, 99.0, 0.0)

    wanted = Wanted(fp32, find_profile("jetson"), calibration, refused=OF_MOST)
    found = find_int8(wanted, tmp_path / "q.onnx", judge)
    verdicts = {step.name: step.verdict for step in found.steps}
    assert verdicts[OF_MOST].passed
    assert found.chosen != OF_MOST
    assert f"{OF_MOST}, biases corrected" in verdicts


@pytest.mark.ov
def test_nncf_is_searched_too(fp32: Path, calibration: Calibration, tmp_path: Path) -> None:
    from edgexfer.bench.accuracy import predict
    from edgexfer.core.backend import Plan, get_backend

    wanted = logits_of(onnx.load(fp32), calibration, "fp32")

    def judge(file: Path) -> Verdict:
        session = get_backend("openvino").load(file, Plan("int8"))
        logits = predict(session, calibration.images, calibration.preprocess, batch=16)
        session.close()
        difference = compare(wanted, np.asarray(logits))
        passed = difference.at_least(500.0)
        return Verdict(passed, difference.sqnr_db, difference.agreement_pct, 0.0)

    few = Calibration(calibration.images[:16], calibration.preprocess, calibration.keys[:16])
    wanted_of = Wanted(fp32, find_profile("openvino"), few)
    found = find_int8(wanted_of, tmp_path / "q.xml", judge)
    names = [step.name for step in found.steps]
    assert names[:3] == ["nncf's own ranges", "mse", "percentile-99.99"]
    assert any("in float" in name for name in names[3:])
    assert judge(tmp_path / "q.xml").sqnr_db is not None
    ratios = {step.name: step.verdict.sqnr_db or 0.0 for step in found.steps}
    assert max(ratios[n] for n in names if "in float" in n) > ratios["nncf's own ranges"] + 1
