"""Channels without weights are found, listed, and computed by INT8 as they are by FP32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgexfer.core.profile import Quantization
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.constant import constant_channels, in_words
from edgexfer.quantize.observe import run_batches, with_outputs
from edgexfer.quantize.qdq import quantize_qdq

pytestmark = pytest.mark.ort


def test_a_net_with_weights_everywhere_has_none(fp32: Path) -> None:
    assert constant_channels(fp32) == {}


@pytest.mark.parametrize("restricted", [True, False])
def test_a_channel_without_weights_is_listed_and_stays_what_it_is(
    restricted: bool, fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    proto = onnx.load(fp32)
    weighted = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm")]
    first, last = weighted[0], weighted[-1]
    for node, channels in ((first, [1, 4]), (last, [3])):
        (tensor,) = (t for t in proto.graph.initializer if t.name == node.input[1])
        weight = numpy_helper.to_array(tensor).copy()
        weight[channels] = 0
        tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    model, out = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    onnx.save(proto, model)
    found = constant_channels(model)
    assert found == {first.name: (1, 4), last.name: (3,)}
    assert in_words(found) == (
        f"3 constant channels stay as they are: {first.name} (1, 4), {last.name} (3)"
    )
    quantize_qdq(model, out, calibration, Quantization(), restricted=restricted)
    logits = [
        np.concatenate([batch[0] for batch in run_batches(read, calibration, "net")])
        for read in (with_outputs(onnx.load(f), [last.output[0]]) for f in (model, out))
    ]
    assert np.ptp(logits[0][:, 3]) == 0
    assert np.ptp(logits[1][:, 3]) == 0
    assert np.allclose(logits[0][0, 3], logits[1][0, 3], atol=0.05)
