"""ModelOpt is an extra: where it is missing, that is said; what it makes is seen in the export."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgexfer.core.errors import BackendError
from edgexfer.quantize.calibration import Calibration
from edgexfer.quantize.modelopt import quantize_modelopt


def test_without_the_extra_it_is_named(
    fp32: Path, calibration: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "modelopt", None)
    with pytest.raises(BackendError) as caught:
        quantize_modelopt(fp32, tmp_path / "q.onnx", calibration)
    assert caught.value.what.startswith("ModelOpt cannot be imported (")
    assert "pip install 'edgexfer[modelopt]'" in caught.value.fix
    assert not (tmp_path / "q.onnx").exists()
