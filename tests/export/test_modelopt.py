"""Q/DQ placed by NVIDIA ModelOpt stands on the same ladder, fed by the same images."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest

from edgexfer.core.bundle import get_artefact
from edgexfer.core.errors import RecipeError
from edgexfer.export.lint import lint, lint_target
from edgexfer.export.stage import export
from edgexfer.profiles import find_profile
from edgexfer.recipe import ExportSection

JETSON = ExportSection(
    targets=("jetson",), precision="int8", calibration_images=60, placement="modelopt"
)


@pytest.mark.skipif(find_spec("modelopt") is None, reason="the extra modelopt is not installed")
@pytest.mark.filterwarnings("ignore")  # of its imports
def test_what_modelopt_places_passes_the_ladder_and_the_rules(run: Path, tmp_path: Path) -> None:
    manifest = export(run, JETSON, tmp_path / "theirs")
    name = f"{find_profile('jetson').name}-int8"
    made = get_artefact(manifest, name)
    assert made.scheme is not None
    assert "placed by NVIDIA ModelOpt" in made.scheme
    assert "modelopt" in made.made_by
    assert manifest.calibration["n"] == 60
    (rung,) = [rung for rung in manifest.parity if "int8" in rung.name]
    assert rung.passed
    assert rung.drop_pt is not None
    file = tmp_path / "theirs" / made.files[0].path
    assert [
        f for f in lint(file, lint_target(find_profile("jetson"))) if f.severity == "error"
    ] == []
    kinds = [node.op_type for node in onnx.load(file).graph.node]
    assert kinds.count("QuantizeLinear") > 0


@pytest.mark.parametrize(
    ("target", "precision", "explain", "what"),
    [
        ("x86-onnxruntime", "int8", False, "is for INT8 on TensorRT, which no target has here"),
        ("jetson", "fp16", False, "is for INT8 on TensorRT, which no target has here"),
        ("jetson", "int8", True, "--explain measures edgexfer's own placement"),
    ],
)
def test_a_placement_of_no_use_is_refused_before_anything_is_written(
    target: str, precision: str, explain: bool, what: str, run: Path, tmp_path: Path
) -> None:
    section = ExportSection((target,), precision=precision, placement="modelopt")  # type: ignore[arg-type] # one of its words
    with pytest.raises(RecipeError) as caught:
        export(run, section, tmp_path / "bundle", explain=explain)
    assert what in caught.value.what
    assert caught.value.fix.startswith("leave --placement out")
    assert list(tmp_path.iterdir()) == []
