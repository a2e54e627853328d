"""The TensorRT backend, on the API of every version, with numbers that went through its buffers.

The TensorRT here is a fake that computes with ONNX Runtime (see ``fake_engine``); nothing in this
file has seen a GPU.
"""

from __future__ import annotations

import ctypes
import errno
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgexfer.backends import tensorrt as backend
from edgexfer.backends._trt_stamp import stamp_of
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.errors import BackendError, DiskError
from edgexfer.core.files import read_json, write_json
from tests.backends.conftest import Pretend
from tests.backends.fake_cudart import FakeCudart
from tests.backends.fake_tensorrt import VERSIONS
from tests.bundles import SIZE

pytestmark = pytest.mark.ort
GPU = Plan(device="GPU")


def _batch(n: int = 1, seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((n, 3, SIZE, SIZE), np.float32)


def _expected(model: Path, batch: Any) -> Any:
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": batch})[0]


def _engine(model: Path, folder: Path, plan: Plan = GPU) -> Path:
    return backend.compile(model, folder / f"{plan.precision}.engine", plan)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("version", VERSIONS)
def test_it_builds_and_runs_on_every_version(
    version: str, precision: str, pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    trt = pretend(version)
    plan = Plan(precision, device="GPU", options={"max_batch": 4})
    model = onnx_files[precision]
    found: Any = get_backend("tensorrt")
    session = found.load(found.compile(model, tmp_path / "e.engine", plan), plan)
    assert session.active["precision"] == precision
    assert session.active["provider"] == "TensorRT GPU, Orin"
    assert session.active["layers"][precision] >= 1
    assert session.active["device_memory_bytes"] == 123_456
    assert session.active["cuda_graph"] == "on"
    assert [spec.shape for spec in session.inputs] == [(-1, 3, SIZE, SIZE)]
    # Another batch, and back again: shapes, addresses and graph must follow.
    for turn, n in enumerate((1, 1, 4, 1, 3)):
        batch = _batch(n, turn)
        found = session.run({"images": batch})["logits"]
        assert found.tobytes() == _expected(model, batch).tobytes()
        assert session.gpu_ns() > 0
    session.close()
    assert trt.world.cudart.left() == 0


def test_an_output_is_not_overwritten_by_the_next_run(
    pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    pretend()
    session = backend.load(_engine(onnx_files["fp32"], tmp_path), GPU)
    first = session.run({"images": _batch()})["logits"]
    kept = first.copy()
    session.run({"images": _batch(seed=1)})
    assert first.tobytes() == kept.tobytes()


@pytest.mark.parametrize(
    ("integrated", "memory"), [(True, "shared with the host"), (False, "its own")]
)
def test_it_tells_how_much_memory_of_the_device_it_took(
    pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path, integrated: bool, memory: str
) -> None:
    cudart = FakeCudart(integrated=integrated)
    pretend(cudart=cudart)
    session = backend.load(_engine(onnx_files["fp32"], tmp_path), GPU)
    on_device = sum(size for kind, size, _ in cudart.memory.values() if kind == "device")
    assert session.device_bytes() == on_device > 0
    assert session.active["memory"] == memory
    cudart.free = 100  # what other programs take later is not the engine's
    assert session.device_bytes() == on_device


@pytest.mark.parametrize(
    ("world", "options", "state"),
    [
        ({}, {}, "on"),
        ({}, {"cuda_graph": False}, "off"),
        ({"cudart": FakeCudart(captures=False)}, {}, "refused: IExecutionContext::enqueueV3"),
    ],
)
def test_a_graph_is_replayed_where_it_can_be(
    world: dict[str, Any],
    options: dict[str, Any],
    state: str,
    pretend: Pretend,
    onnx_files: dict[str, Path],
    tmp_path: Path,
) -> None:
    trt = pretend(**world)
    plan = Plan(device="GPU", options=options)
    session = backend.load(_engine(onnx_files["fp32"], tmp_path), plan)
    assert session.active["cuda_graph"].startswith(state)
    batch = _batch()
    trt.world.cudart.log.clear()
    found = session.run({"images": batch})["logits"]
    assert found.tobytes() == _expected(onnx_files["fp32"], batch).tobytes()
    assert ("cudaGraphLaunch" in trt.world.cudart.log) == (state == "on")
    session.close()
    assert trt.world.cudart.left() == 0


@pytest.mark.parametrize(
    ("feed", "reason"),
    [
        ({"images": np.zeros((1, 3, SIZE, SIZE + 1), np.float32)}, "was not built for"),
        ({"images": np.zeros((2, 3, SIZE, SIZE), np.float32)}, "was not built for"),
        ({"images": np.zeros((1, 3, SIZE, SIZE), np.float64)}, "is float64, not float32"),
        ({"pictures": np.zeros((1, 3, SIZE, SIZE), np.float32)}, "images"),
        ({"images": [[1.0]]}, "dtype"),
    ],
)
def test_a_wrong_input_is_one_error_and_the_next_run_is_right(
    feed: Any, reason: str, pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    pretend()
    session = backend.load(_engine(onnx_files["fp32"], tmp_path), GPU)
    with pytest.raises(BackendError, match=f"TensorRT stopped in a run .*{reason}") as caught:
        session.run(feed)
    assert caught.value.fix == "check names, shapes and types of what is fed"
    batch = _batch()
    found = session.run({"images": batch})["logits"]
    assert found.tobytes() == _expected(onnx_files["fp32"], batch).tobytes()


def test_an_engine_that_stops_says_what_tensorrt_said(
    pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    trt = pretend()
    plan = Plan(device="GPU", options={"cuda_graph": False})
    session = backend.load(_engine(onnx_files["fp32"], tmp_path), plan)
    trt.world.run_error = "Error Code 1: Cask (invalid kernel)\n  more"
    with pytest.raises(BackendError, match=r"Error Code 1: Cask \(invalid kernel\) more"):
        session.run({"images": _batch()})
    session.close()
    with pytest.raises(BackendError, match="the session is closed"):
        session.run({"images": _batch()})


def test_an_engine_that_stands_is_not_built_again(
    pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    trt = pretend()
    engine = _engine(onnx_files["fp32"], tmp_path)
    _engine(onnx_files["fp32"], tmp_path)
    assert len(trt.world.configs) == 1
    stamp = read_json(stamp_of(engine))
    assert (stamp["tensorrt"], stamp["gpu"], stamp["precision"]) == ("10.3.0", "Orin", "fp32")
    assert stamp["workspace_bytes"] == 3 << 30
    # Another file, other options, another TensorRT or a damaged engine: each is built.
    backend.compile(onnx_files["int8"], engine, Plan("int8", device="GPU"))
    backend.compile(onnx_files["fp32"], engine, Plan(device="GPU", options={"max_batch": 2}))
    assert len(trt.world.configs) == 3
    engine.write_bytes(engine.read_bytes()[:-1])
    backend.compile(onnx_files["fp32"], engine, Plan(device="GPU", options={"max_batch": 2}))
    assert len(trt.world.configs) == 4
    newer = pretend("10.7.0")
    backend.compile(onnx_files["fp32"], engine, Plan(device="GPU", options={"max_batch": 2}))
    assert len(newer.world.configs) == 1


@pytest.mark.parametrize(
    ("version", "world", "what"),
    [
        ("10.7.0", {}, "was built for tensorrt 10.3.0, this is 10.7.0"),
        (
            "10.3.0",
            {"cudart": FakeCudart(name="Thor", capability=(11, 0))},
            "was built for gpu Orin, this is Thor",
        ),
        (
            "10.3.0",
            {"cudart": FakeCudart(capability=(8, 6))},
            "was built for compute_capability 8.7, this is 8.6",
        ),
        (
            "10.3.0",
            {"cudart": FakeCudart(multiprocessors=16)},
            "was built for multiprocessors 8, this is 16",  # TensorRT itself only warns
        ),
    ],
)
def test_an_engine_of_another_place_is_refused(
    version: str,
    world: dict[str, Any],
    what: str,
    pretend: Pretend,
    onnx_files: dict[str, Path],
    tmp_path: Path,
) -> None:
    pretend()
    engine = _engine(onnx_files["fp32"], tmp_path)
    pretend(version, **world)
    with pytest.raises(BackendError, match=f"fp32.engine: {what}") as caught:
        backend.load(engine, GPU)
    assert "build it again on this device" in caught.value.fix


def test_an_engine_of_another_place_without_a_stamp_is_refused_by_tensorrt(
    pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    pretend()
    engine = _engine(onnx_files["fp32"], tmp_path)
    stamp_of(engine).unlink()
    pretend("10.7.0")
    with pytest.raises(BackendError, match=r"TensorRT 10\.7\.0 cannot load it .*Version tag"):
        backend.load(engine, GPU)
    pretend(cudart=FakeCudart(capability=(8, 6)))
    with pytest.raises(BackendError, match=r"cannot load it .*please rebuild") as caught:
        backend.load(engine, GPU)
    assert "build it again on this device" in caught.value.fix


def test_an_engine_of_trtexec_is_loaded_without_a_stamp(
    pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    pretend()
    engine = _engine(onnx_files["fp32"], tmp_path)
    stamp_of(engine).unlink()
    session = backend.load(engine, GPU)
    assert session.run({"images": _batch()})["logits"].shape == (1, 3)


def test_an_inspector_that_is_not_understood_is_no_obstacle(
    pretend: Pretend,
    onnx_files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trt = pretend()
    engine = _engine(onnx_files["fp32"], tmp_path)
    monkeypatch.setattr(trt.EngineInspector, "get_engine_information", lambda *_: "{}")
    session = backend.load(engine, GPU)
    assert session.active["layers"] is None
    assert session.run({"images": _batch()})["logits"].shape == (1, 3)


def test_what_cannot_be_loaded_says_why(
    pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    trt = pretend()
    with pytest.raises(BackendError, match="is ONNX, TensorRT runs engines") as caught:
        backend.load(onnx_files["fp32"], GPU)
    assert "compile_on: device" in caught.value.fix
    with pytest.raises(BackendError, match="cannot be read"):
        backend.load(tmp_path / "none.engine", GPU)
    (tmp_path / "bad.engine").write_bytes(b"no engine")
    with pytest.raises(BackendError, match="magicTagRead failed"):
        backend.load(tmp_path / "bad.engine", GPU)
    engine = _engine(onnx_files["fp32"], tmp_path)
    with pytest.raises(BackendError, match="was built for precision fp32, this is int8"):
        backend.load(engine, Plan("int8", device="GPU"))
    trt.world.no_room = True
    with pytest.raises(BackendError, match=r"room for its activations .*OutOfMemory"):
        backend.load(engine, GPU)
    trt.world.no_room, trt.world.cudart.free = False, 100
    with pytest.raises(BackendError, match=r"cudaHostAlloc failed \(out of memory\)"):
        backend.load(engine, GPU)
    assert trt.world.cudart.left() == 0
    write_json(stamp_of(engine), [1])
    with pytest.raises(BackendError, match="is not the stamp of an engine"):
        backend.load(engine, GPU)


@pytest.mark.parametrize(
    ("plan", "what"),
    [
        (Plan("bf16", device="GPU"), "cannot run precision 'bf16'"),
        (Plan(device="CPU"), "no device 'CPU'"),
        (Plan(device="GPU", options={"max_bach": 1}), "has no option 'max_bach'"),
        (Plan(device="GPU", options={"max_batch": 0}), "max_batch is 0"),
        (Plan("fp16", device="DLA", options={"max_batch": 2}), "a DLA takes one shape alone"),
        (Plan(device="GPU", options={"workspace_mib": "1G"}), "workspace_mib is '1G'"),
        (Plan(device="GPU", options={"calibration_cache": "c"}), "with precision fp32"),
        (Plan("int8", device="GPU", options={"calibration_cache": "../c"}), "is '../c'"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(
    plan: Plan, what: str, pretend: Pretend, onnx_files: dict[str, Path], tmp_path: Path
) -> None:
    pretend()
    for call in (backend.compile, None):
        with pytest.raises(BackendError, match=f"backend tensorrt: .*{what}"):
            if call is None:
                backend.load(tmp_path / "e.engine", plan)
            else:
                call(onnx_files["fp32"], tmp_path / "e.engine", plan)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_model_is_refused(pretend: Pretend, tmp_path: Path) -> None:
    pretend()
    with pytest.raises(BackendError, match=r"none\.onnx: no such file"):
        _engine(tmp_path / "none.onnx", tmp_path)


def test_a_full_disk_leaves_no_half_engine(
    pretend: Pretend,
    onnx_files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskError, match="no room left to write"):
        _engine(onnx_files["fp32"], tmp_path / "engines")
    assert list((tmp_path / "engines").iterdir()) == []


def test_without_tensorrt_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match="tensorrt: tensorrt cannot be imported") as caught:
        get_backend("tensorrt")
    assert "on a Jetson: sudo apt install python3-libnvinfer" in caught.value.fix
    assert "pip install 'edgexfer[tensorrt]'" in caught.value.fix


def test_without_cuda_there_is_one_clear_error(
    pretend: Pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(cudart=FakeCudart(devices=0))
    with pytest.raises(BackendError, match="tensorrt: there is no CUDA device"):
        get_backend("tensorrt")
    pretend(cudart=FakeCudart(lacks=("cudaGraphInstantiateWithFlags",)))
    with pytest.raises(BackendError, match="libcudart has no cudaGraphInstantiateWithFlags"):
        get_backend("tensorrt")

    def none(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", none)
    with pytest.raises(BackendError, match=r"libcudart cannot be loaded \(libcudart\.so: "):
        get_backend("tensorrt")
