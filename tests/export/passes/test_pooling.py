"""Means as poolings: the same numbers, in windows that the DLA takes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from edgexfer.export.passes.editor import Editor, attribute
from edgexfer.export.passes.pooling import WINDOW, means_to_pooling, reshapes_to_flatten
from tests.export.passes.graphs import graph, kinds, noise, run

pytestmark = pytest.mark.ort

node = helper.make_node
AXES = {"axes": np.array([2, 3], np.int64)}


def _pooled(model: onnx.ModelProto) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    means_to_pooling(Editor(changed, "it"))
    reshapes_to_flatten(Editor(changed, "it"))
    onnx.checker.check_model(changed, full_check=True)
    return changed


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 7), (6, 14), (16, 10), (64, 3)])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_becomes_poolings_of_small_windows(height: int, width: int, keepdims: int) -> None:
    model = graph(
        [node("ReduceMean", ["x", "axes"], ["y"], keepdims=keepdims)],
        AXES,
        shape=("batch", 4, height, width),
        out=("batch", 4, 1, 1) if keepdims else ("batch", 4),
    )
    changed = _pooled(model)
    x = noise(2, 4, height, width)
    assert kinds(changed) == ({"AveragePool"} if keepdims else {"AveragePool", "Flatten"})
    windows = [attribute(n, "kernel_shape", [0]) for n in changed.graph.node]
    assert max(max(window) for window in windows) <= WINDOW
    np.testing.assert_allclose(run(changed, x), run(model, x), rtol=2e-6, atol=2e-6)


def test_a_size_without_small_factors_is_pooled_as_a_whole() -> None:
    model = graph([node("ReduceMean", ["x", "axes"], ["y"])], AXES, shape=(2, 4, 11, 11))
    changed = _pooled(model)
    assert kinds(changed) == {"GlobalAveragePool"}
    x = noise(2, 4, 11, 11)
    np.testing.assert_allclose(run(changed, x), run(model, x), atol=2e-6)


def test_an_older_mean_and_a_global_pooling_are_taken_too() -> None:
    nodes = [
        node("ReduceMean", ["x"], ["a"], axes=[-1, -2]),
        node("GlobalAveragePool", ["x"], ["b"]),
        node("Sub", ["a", "b"], ["y"]),
    ]
    changed = _pooled(graph(nodes, opset=13, out=("batch", 4, 1, 1)))
    assert kinds(changed) == {"AveragePool", "Sub"}
    assert not run(changed, noise(2, 4, 6, 6)).any()


def test_other_means_stay() -> None:
    model = graph([node("ReduceMean", ["x", "axes"], ["y"])], {"axes": np.array([1], np.int64)})
    assert kinds(_pooled(model)) == {"ReduceMean"}


def test_a_reshape_to_logits_becomes_a_flatten() -> None:
    constants = {**AXES, "shape": np.array([-1, 4], np.int64)}
    nodes = [
        node("ReduceMean", ["x", "axes"], ["m"]),
        node("Reshape", ["m", "shape"], ["y"]),
    ]
    model = graph(nodes, constants, out=("batch", 4))
    changed = _pooled(model)
    assert kinds(changed) == {"AveragePool", "Flatten"}
    x = noise(2, 4, 6, 6)
    np.testing.assert_allclose(run(changed, x), run(model, x), atol=2e-6)
