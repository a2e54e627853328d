"""A TensorRT that is not there, for the tests of its backend."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.backends.fake_tensorrt import install, make_tensorrt
from tests.bundles import write_onnx

Pretend = Callable[..., Any]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Make the fake of a version importable until the test ends; the newest one counts."""

    def make(version: str = "10.3.0", **world: Any) -> Any:
        trt = make_tensorrt(version, **world)
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        monkeypatch.setattr(ctypes, "CDLL", ctypes.CDLL)  # so that it is put back
        install(trt)
        return trt

    return make


@pytest.fixture(scope="session")
def onnx_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The test model in each precision that TensorRT takes from a file."""
    from edgexfer.export.half import to_half

    folder = tmp_path_factory.mktemp("onnx")
    fp32 = write_onnx(folder / "fp32.onnx")
    int8 = write_onnx(folder / "int8.onnx", quantized=True)
    return {"fp32": fp32, "int8": int8, "fp16": to_half(fp32, folder / "fp16.onnx")}
