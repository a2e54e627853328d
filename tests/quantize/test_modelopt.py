"""ModelOpt is an extra: where it is missing, that is said; what it makes is seen in the export."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest

from edgexfer.core.errors import BackendError
from edgexfer.export.passes.opset import lower_opset
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


@pytest.mark.skipif(find_spec("modelopt") is None, reason="the extra modelopt is not installed")
@pytest.mark.filterwarnings("ignore")  # of its imports
def test_an_opset_below_its_own_is_refused(
    fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    older = tmp_path / "op17.onnx"
    onnx.save(lower_opset(onnx.load(fp32), 17, older.name), older)
    with pytest.raises(BackendError) as caught:
        quantize_modelopt(older, tmp_path / "q.onnx", calibration)
    assert caught.value.what == "op17.onnx: ModelOpt wrote opset 19, the target takes 17"
    assert caught.value.fix == "leave --placement out"
