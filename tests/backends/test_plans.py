"""What holds for every backend: plans are followed to the letter or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgexfer.core.backend import BACKENDS, Plan, get_backend
from edgexfer.core.errors import BackendError
from tests.bundles import SIZE, write_null, write_onnx, write_program

HERE = ("null", "onnxruntime", "openvino", "torch")
WRITERS = {
    "null": (write_null, ".npz"),
    "onnxruntime": (write_onnx, ".onnx"),
    "openvino": (write_onnx, ".onnx"),
    "torch": (write_program, ".pt2"),
}


def _marked(names: tuple[str, ...]) -> list[object]:
    marks = {"onnxruntime": pytest.mark.ort, "openvino": pytest.mark.ov, "torch": pytest.mark.torch}
    return [pytest.param(n, marks=[marks[n]] if n in marks else []) for n in names]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: writer(folder / f"{name}{suffix}") for name, (writer, suffix) in WRITERS.items()}


@pytest.mark.parametrize("name", _marked(HERE))
def test_a_session_says_what_it_takes_gives_and_is(name: str, files: dict[str, Path]) -> None:
    backend = get_backend(name)
    assert name == backend.NAME
    assert all(backend.versions().values())
    session = backend.load(files[name], Plan(threads=1))
    assert [spec.shape for spec in session.inputs] == [(-1, 3, SIZE, SIZE)]
    assert [spec.shape for spec in session.outputs] == [(-1, 3)]
    assert {spec.dtype for spec in (*session.inputs, *session.outputs)} == {"float32"}
    assert session.active["precision"] == "fp32"
    assert session.active["provider"]
    batch = np.random.default_rng(0).random((1, 3, SIZE, SIZE), np.float32)
    first = session.run({session.inputs[0].name: batch})[session.outputs[0].name]
    kept = first.copy()
    session.run({session.inputs[0].name: batch + 1})
    assert first.tobytes() == kept.tobytes(), "an output must not be overwritten by the next run"
    session.close()


@pytest.mark.parametrize("name", _marked(HERE))
def test_an_unknown_option_is_refused(name: str, files: dict[str, Path]) -> None:
    with pytest.raises(BackendError, match=f"backend {name}: has no option 'graph_optimisation'"):
        get_backend(name).load(files[name], Plan(options={"graph_optimisation": "all"}))


@pytest.mark.parametrize("name", _marked(HERE))
def test_an_unknown_precision_is_refused(name: str, files: dict[str, Path]) -> None:
    with pytest.raises(BackendError, match=f"backend {name}: cannot run precision 'fp8'") as caught:
        get_backend(name).load(files[name], Plan("fp8"))
    assert "use fp32" in caught.value.fix


@pytest.mark.parametrize("name", _marked(HERE[1:]))
def test_a_device_that_is_not_here_is_refused(name: str, files: dict[str, Path]) -> None:
    with pytest.raises(BackendError, match="MARS"):
        get_backend(name).load(files[name], Plan(device="MARS"))


@pytest.mark.parametrize("name", _marked(HERE[1:]))
def test_a_wrong_input_is_one_error(name: str, files: dict[str, Path]) -> None:
    session = get_backend(name).load(files[name], Plan(threads=1))
    with pytest.raises(BackendError, match="stopped in a run") as caught:
        session.run({session.inputs[0].name: np.zeros((1, 3, SIZE, SIZE + 1), np.float32)})
    assert "shapes" in caught.value.fix
    session.close()


def test_an_unknown_backend_names_the_nearest() -> None:
    with pytest.raises(BackendError, match="backend 'openvin' is unknown") as caught:
        get_backend("openvin")
    assert caught.value.fix == "did you mean 'openvino'?"


def test_the_backends_that_are_tested_elsewhere() -> None:
    # TensorRT needs a GPU; test_tensorrt.py holds it against its API.
    assert [name for name in BACKENDS if name not in HERE] == ["tensorrt"]
