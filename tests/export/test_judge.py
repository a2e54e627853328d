"""By which runtime a target's file is judged on this machine, and how that runs it."""

from __future__ import annotations

import pytest

from edgexfer.export.judge import route
from edgexfer.profiles import find_profile


def test_tensorrt_s_int8_is_judged_as_it_was_written() -> None:
    # What ONNX Runtime's optimiser makes of Q/DQ typed as FP16 is no property of the file.
    way = route(find_profile("jetson"), "int8")
    assert (way.runtime, way.plan.precision) == ("onnxruntime", "int8")
    assert way.plan.options == {"graph_optimization": "none"}
    assert way.where == "run in onnxruntime"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_s_float_files_may_be_rewritten(precision: str) -> None:
    plan = route(find_profile("jetson"), precision).plan
    assert (plan.precision, plan.options) == ("fp32", {})


def test_a_runtime_of_this_machine_judges_its_own_files() -> None:
    way = route(find_profile("x86-onnxruntime"), "int8")
    assert (way.runtime, way.plan.options, way.where) == ("onnxruntime", {}, "")
