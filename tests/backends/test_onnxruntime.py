from __future__ import annotations

from pathlib import Path

import pytest

from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.errors import BackendError
from tests.bundles import write_onnx

pytestmark = pytest.mark.ort


@pytest.mark.parametrize(
    ("quantized", "asked", "found"), [(True, "fp32", "int8"), (False, "int8", "fp32")]
)
def test_the_plan_must_name_the_precision_of_the_file(
    tmp_path: Path, quantized: bool, asked: str, found: str
) -> None:
    path = write_onnx(tmp_path / "m.onnx", quantized=quantized)
    with pytest.raises(BackendError, match=f"is {found}, the plan asks for {asked}") as caught:
        get_backend("onnxruntime").load(path, Plan(asked))
    assert f"precision {found}" in caught.value.fix
    assert get_backend("onnxruntime").load(path, Plan(found)).active["precision"] == found


def test_threads_and_level_are_what_was_asked(tmp_path: Path) -> None:
    plan = Plan(threads=1, options={"graph_optimization": "none", "allow_spinning": False})
    session = get_backend("onnxruntime").load(write_onnx(tmp_path / "m.onnx"), plan)
    assert session.active == {
        "provider": "CPUExecutionProvider",
        "precision": "fp32",
        "threads": 1,
        "graph_optimization": "ORT_DISABLE_ALL",
    }


def test_a_missing_provider_never_becomes_the_cpu(tmp_path: Path) -> None:
    import onnxruntime as ort

    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this build has the CUDA provider")
    with pytest.raises(BackendError, match="CUDAExecutionProvider is not in this build") as caught:
        get_backend("onnxruntime").load(write_onnx(tmp_path / "m.onnx"), Plan(device="CUDA"))
    assert "choose device CPU" in caught.value.fix


def test_another_active_provider_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A fallback in silence cannot be provoked with the providers of a CPU build.
    import onnxruntime as ort

    from edgexfer.backends import onnxruntime as backend

    real = ort.InferenceSession.get_providers
    monkeypatch.setattr(
        ort.InferenceSession,
        "get_providers",
        lambda self: ["AzureExecutionProvider", *real(self)],
    )
    with pytest.raises(BackendError, match="runs on AzureExecutionProvider, not on CPUExecution"):
        backend.load(write_onnx(tmp_path / "m.onnx"), Plan())


@pytest.mark.parametrize("content", [b"", b"text", b"\x08\x08\x12\x04junk" * 50])
def test_a_damaged_file_is_one_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(BackendError, match=r"m\.onnx: (cannot be read|ONNX Runtime cannot load)"):
        get_backend("onnxruntime").load(path, Plan())


def test_an_unknown_level_names_the_nearest(tmp_path: Path) -> None:
    plan = Plan(options={"graph_optimization": "extend"})
    with pytest.raises(BackendError, match="graph_optimization is 'extend'") as caught:
        get_backend("onnxruntime").load(write_onnx(tmp_path / "m.onnx"), plan)
    assert "'extended'" in caught.value.fix
