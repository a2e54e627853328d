"""``--explain`` names the layer that is to blame, whether the export passes or not."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from edgexfer.cli.export import command
from edgexfer.core.errors import BundleError, ParityError, ProfileError
from edgexfer.core.explanation import Explanation, explanation_folder, read_explanations
from edgexfer.core.files import read_json
from edgexfer.core.profile import Quantization
from edgexfer.data.dataset import open_dataset
from edgexfer.export.explain import draw, to_text
from edgexfer.export.stage import export
from edgexfer.quantize.calibration import Calibration, draw_calibration
from edgexfer.quantize.layers import measure_layers, responsible
from edgexfer.quantize.observe import extremes
from edgexfer.quantize.qdq import Placed, write_qdq
from edgexfer.recipe import ExportSection
from tests.export.digits import PREPROCESS, measured_images, stretched_run

ONE = ExportSection(
    targets=("x86-onnxruntime",),
    precision="int8",
    evaluation_images=60,
    calibration_images=60,
    max_drop=5.0,
)


@pytest.fixture(scope="module")
def refused(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the bundle of a run would be whose INT8 nothing mends, explained and refused."""
    folder = tmp_path_factory.mktemp("refused")
    stretched = stretched_run(run, folder / "run", mendable=False)
    with pytest.raises(ParityError, match="x86-onnxruntime int8") as caught:
        export(stretched, ONE, folder / "bundle", explain=True)
    why = r"the best of \d+ tries, .*; not even \d+ of \d+ nodes in float were enough; most is lost"
    assert re.search(why, caught.value.what)
    return folder / "bundle"


@pytest.fixture(scope="module")
def explanation(refused: Path) -> Explanation:
    (found,) = read_explanations(explanation_folder(refused))
    return found


def test_a_refused_export_leaves_its_explanation_and_nothing_else(refused: Path) -> None:
    assert sorted(p.name for p in refused.parent.iterdir()) == ["bundle.explain", "run"]
    names = sorted(p.name for p in explanation_folder(refused).iterdir())
    assert names == ["x86-onnxruntime.json", "x86-onnxruntime.svg"]
    assert read_json(explanation_folder(refused) / names[0])["schema"] == "edgexfer.explanation/1"


def test_the_first_failing_rung_and_all_tries_are_in_it(explanation: Explanation) -> None:
    assert explanation.first_failed is not None
    assert explanation.first_failed.name == "x86-onnxruntime int8"
    assert not explanation.first_failed.passed
    assert not explanation.passed
    names = [step.name for step in explanation.steps]
    assert names[0] == "min-max"
    assert any("biases corrected" in name for name in names)
    assert any("in float" in name for name in names)


def test_the_table_shows_the_worst_first(explanation: Explanation) -> None:
    lines = to_text(explanation).splitlines()
    assert lines[0].startswith("x86-onnxruntime: first failing rung: x86-onnxruntime int8, plain")
    assert "nothing that was tried passes" in lines[0]
    table = lines[next(i for i, line in enumerate(lines) if "alone dB" in line) + 1 :]
    shares = [float(line.split()[2]) for line in table if "quieter" not in line]
    assert shares == sorted(shares, reverse=True)
    assert table[0].split()[0] == explanation.responsible[0]
    assert table[0].endswith("<")
    assert table[-1] == f"  and {len(explanation.layers) - 12} quieter layers"


def test_the_plot_is_a_picture_of_every_layer_and_always_the_same(
    explanation: Explanation, refused: Path
) -> None:
    text = (explanation_folder(refused) / "x86-onnxruntime.svg").read_text()
    assert ET.fromstring(text).tag.endswith("svg")
    for layer in explanation.layers:
        assert f"{layer.node} ({layer.op_type})" in text
    assert draw(explanation) == text


def test_an_export_that_passes_is_explained_too(run: Path, tmp_path: Path) -> None:
    manifest = export(run, ONE, tmp_path / "bundle", explain=True)
    (found,) = read_explanations(explanation_folder(tmp_path / "bundle"))
    assert found.first_failed is None
    assert found.passed
    assert found.steps == ()
    assert "INT8 passes by plain calibration" in to_text(found)
    # The seal holds, and the same request finds it.
    assert export(run, ONE, tmp_path / "bundle", explain=True) == manifest


def test_a_bundle_that_was_made_without_is_not_explained(run: Path, tmp_path: Path) -> None:
    export(run, ONE, tmp_path / "bundle")
    with pytest.raises(BundleError) as caught:
        export(run, ONE, tmp_path / "bundle", explain=True)
    assert "was made without an explanation" in caught.value.what
    assert "another --out" in caught.value.fix


def test_the_command_prints_the_table_beside_the_error(
    refused: Path, tmp_path: Path, run: Path
) -> None:
    arguments = [str(run), "--target", "jetson", "--precision", "int8", "--explain"]
    arguments += ["--out", str(tmp_path / "b"), "--calibration-images", "40"]
    done = CliRunner().invoke(command, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("{")
    assert "jetson-orin-nano: INT8 passes by plain calibration" in done.stderr
    stretched = str(refused.parent / "run")
    failed = CliRunner().invoke(
        command, [stretched, *arguments[1:-4], "--out", str(tmp_path / "c"), "--max-drop", "1"]
    )
    assert isinstance(failed.exception, ParityError)
    assert "first failing rung: jetson-orin-nano int8" in failed.stderr
    assert "alone dB" in failed.stderr


def test_what_another_export_has_explained_is_not_shown_with_an_error(
    refused: Path, run: Path, tmp_path: Path
) -> None:
    shutil.copytree(explanation_folder(refused), explanation_folder(tmp_path / "b"))
    arguments = [str(run), "--target", "jetzon", "--explain", "--out", str(tmp_path / "b")]
    done = CliRunner().invoke(command, arguments)
    assert isinstance(done.exception, ProfileError)
    assert done.stderr == ""


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    images, _ = measured_images(100)
    return draw_calibration(open_dataset("digits"), 32, PREPROCESS, measured=images)


def scale_weights(proto: onnx.ModelProto, node: str) -> None:
    """Make one channel of a layer's weight a hundred times what it was."""
    name = next(n for n in proto.graph.node if n.name == node).input[1]
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    values = np.array(numpy_helper.to_array(tensor))
    values[0] *= 100
    tensor.CopyFrom(numpy_helper.from_array(values, name))


@pytest.mark.parametrize("which", [1, 3, 5])
def test_a_weight_that_one_scale_cannot_hold_is_named(
    which: int, fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    proto = onnx.load(fp32)
    bad = [n.name for n in proto.graph.node if n.op_type == "Conv"][which]
    scale_weights(proto, bad)
    onnx.save(proto, tmp_path / "f.onnx")
    scheme = Quantization(activations="int8", weights="int8-per-tensor")
    ends = extremes(tmp_path / "f.onnx", calibration)
    write_qdq(tmp_path / "f.onnx", tmp_path / "q.onnx", ends, Placed(scheme, True, whole=True))
    layers = measure_layers(tmp_path / "q.onnx", tmp_path / "f.onnx", calibration)
    assert bad in {layer.node for layer in responsible(layers)}
    per_channel = Placed(Quantization(activations="int8"), True, whole=True)
    write_qdq(tmp_path / "f.onnx", tmp_path / "q.onnx", ends, per_channel)
    mended = measure_layers(tmp_path / "q.onnx", tmp_path / "f.onnx", calibration)
    before = next(layer for layer in layers if layer.node == bad)
    after = next(layer for layer in mended if layer.node == bad)
    assert before.alone_db is not None
    assert after.alone_db is None or after.alone_db > before.alone_db + 3


def test_an_activation_with_an_outlier_is_named(
    fp32: Path, calibration: Calibration, tmp_path: Path
) -> None:
    ends = dict(extremes(fp32, calibration))
    ends["relu_3"] = type(ends["relu_3"])(0.0, 200 * ends["relu_3"].high)
    placed = Placed(Quantization(activations="int8"), True, whole=True)
    write_qdq(fp32, tmp_path / "q.onnx", ends, placed)
    layers = measure_layers(tmp_path / "q.onnx", fp32, calibration)
    taker = next(n.name for n in onnx.load(fp32).graph.node if n.input[0] == "relu_3")
    assert [layer.node for layer in responsible(layers)] == [taker]
    bad = next(layer for layer in layers if layer.node == taker)
    assert bad.input_db is not None
    assert bad.input_db == min(x.input_db for x in layers if x.input_db is not None)
    assert bad.weight_db is not None
    assert bad.weight_db > 30
