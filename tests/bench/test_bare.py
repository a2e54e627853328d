"""Models that are in no bundle: what is taken for one, and a job of each runtime for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgexfer.bench.bare import Wish, bare_subjects, check_wish, is_model, select
from edgexfer.bench.job import SCHEMA, Job
from edgexfer.bench.run import run_job
from edgexfer.bench.suite import Settings, run_suite
from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.bundle import read_manifest
from edgexfer.core.errors import InputError
from tests.bundles import make_bundle, write_onnx

BRIEF = Settings(processes=1, seconds=0.01, samples=50, threads=1, seed=0)


def _job(folder: Path, wish: Wish, model: Path, **changes: object) -> Job:
    (subject,) = bare_subjects(model, folder, wish)
    job = Job(SCHEMA, str(folder), subject.artefact.name, 0, True, 50, 0.01, 1.0, 1, 0)
    return Job(**{**vars(job), "bare": subject.bare, **changes})


@pytest.mark.ort
@pytest.mark.ov
def test_one_model_with_several_runtimes_and_precisions_gives_a_record_for_each(
    tmp_path: Path,
) -> None:
    model = write_onnx(tmp_path / "net.onnx")
    wish = Wish(("onnxruntime", "openvino"), ("fp32", "int8"))
    subjects = bare_subjects(model, tmp_path / "model", wish)
    records = {s.artefact.name: r for s, r in run_suite(subjects, BRIEF, run_job)}
    assert set(records) == {
        f"net-{runtime}-{precision}" for runtime in wish.runtimes for precision in wish.precisions
    }
    for name, record in records.items():
        # The file is a float model; asked for INT8, a runtime says so and stops no other.
        assert (record.status == "failed") == name.endswith("int8")
    record = records["net-openvino-fp32"]
    assert record.bundle["name"] == "net.onnx"
    assert record.artefact["size_bytes"] == model.stat().st_size
    assert record.absent["accuracy"] == "a bare model has no evaluation images"
    assert record.absent["pre"] == "a bare model says nothing of its images and labels"
    assert "inputs are random numbers, not images" in record.warnings
    assert record.cold_start["deserialise_ns"] + record.cold_start["compile_ns"] > 0
    assert "is int8" not in records["net-onnxruntime-int8"].reasons[0]


@pytest.mark.ov
def test_an_ir_comes_with_its_weights(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "net.onnx", quantized=True)
    model = get_backend("openvino").compile(source, tmp_path / "net.xml", Plan("int8"))
    (subject,) = bare_subjects(model, tmp_path / "model", Wish())
    assert subject.artefact.name == "net-openvino-int8"
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["net.bin", "net.xml"]
    result = run_job(_job(tmp_path / "model", Wish(), model))
    assert result.failure is None
    assert result.active["precision"] == "int8"


@pytest.mark.ort
def test_weights_outside_an_onnx_file_go_with_it(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(write_onnx(tmp_path / "whole.onnx"))
    place = tmp_path / "net.onnx"
    (tmp_path / "sub").mkdir()
    named = "sub/net.w"
    onnx.save_model(model, place, save_as_external_data=True, location=named, size_threshold=0)
    folder = tmp_path / "model"
    (subject,) = bare_subjects(place, folder, Wish(), [tmp_path / named])
    assert [entry.path for entry in subject.artefact.files] == ["net.onnx", named]
    job = _job(folder, Wish(), place)
    assert run_job(job).failure is None
    # What a benchmark that was broken off left does not make a hard link of them.
    assert (tmp_path / named).stat().st_nlink == 1


@pytest.mark.ort
@pytest.mark.ov
def test_an_operator_that_a_runtime_lacks_is_named_with_the_mend(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(write_onnx(tmp_path / "net.onnx"))
    model.graph.node[0].op_type, model.graph.node[0].domain = "NoSuchConv", "com.microsoft"
    model.opset_import.add(domain="com.microsoft", version=1)
    onnx.save(model, tmp_path / "odd.onnx")
    for runtime in ("onnxruntime", "openvino"):
        job = _job(tmp_path / runtime, Wish((runtime,)), tmp_path / "odd.onnx")
        failure = run_job(job).failure
        assert failure is not None
        assert "NoSuchConv" in failure.what
        assert failure.fix == "write it without that operator, or name a runtime that has it"


@pytest.mark.ort
def test_inputs_differ_and_have_the_batch_that_was_asked_for(tmp_path: Path) -> None:
    from edgexfer.bench.inputs import open_inputs
    from edgexfer.bench.job import load

    job = _job(tmp_path / "model", Wish(), write_onnx(tmp_path / "net.onnx"), batch=3)
    source = open_inputs(job, load(job))
    first, second = source.feed(0)["images"], source.feed(1)["images"]
    assert (first.shape, first.dtype) == ((3, 3, 16, 16), np.float32)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, source.feed(0)["images"])
    assert source.count == 64


@pytest.mark.ort
def test_sizes_that_a_model_leaves_free_are_asked_for(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(write_onnx(tmp_path / "net.onnx"))
    shape = model.graph.input[0].type.tensor_type.shape
    shape.dim[2].dim_param, shape.dim[3].dim_param = "h", "w"
    onnx.save(model, tmp_path / "free.onnx")
    failure = run_job(_job(tmp_path / "model", Wish(), tmp_path / "free.onnx")).failure
    assert failure is not None
    assert "images leaves its size free" in failure.what
    assert "--shape images:1x3x1x1" in failure.fix
    wish = Wish(shapes={"images": (2, 3, 20, 24)})
    assert run_job(_job(tmp_path / "model", wish, tmp_path / "free.onnx")).failure is None


@pytest.mark.ort
def test_sizes_that_are_no_batch_as_it_was_asked_for_are_refused(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "net.onnx")
    wish = Wish(shapes={"images": (1, 3, 16, 16)})
    failure = run_job(_job(tmp_path / "model", wish, model, batch=4)).failure
    assert failure is not None
    assert failure.what == "net.onnx: input images of (1, 3, 16, 16) is no batch of 4"
    assert failure.fix == "begin --shape with the batch, or leave --batch out"
    assert run_job(_job(tmp_path / "model", wish, model)).failure is None


@pytest.mark.ort
def test_an_input_of_text_is_named(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Cast", ["text"], ["number"], to=TensorProto.FLOAT)],
        "text",
        [helper.make_tensor_value_info("text", TensorProto.STRING, [1])],
        [helper.make_tensor_value_info("number", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "text.onnx")
    failure = run_job(_job(tmp_path / "model", Wish(), tmp_path / "text.onnx")).failure
    assert failure is not None
    assert (failure.what, failure.fix) == (
        "input text is of type string",
        "bench a model of numbers",
    )


@pytest.mark.ort
def test_torch_is_never_imported(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "net.onnx")
    code = (
        "import sys; from edgexfer.cli import run;"
        "code = run(['bench', *sys.argv[1:], '--processes', '1', '--seconds', '0.01']);"
        "assert not {'torch', 'onnx', 'torchvision', 'timm'} & set(sys.modules); sys.exit(code)"
    )
    argv = [sys.executable, "-c", code, str(model)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "net-onnxruntime-fp32" in done.stdout


def test_what_is_taken_for_a_model(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    assert is_model(Path("a/net.ONNX"))
    assert not is_model(tmp_path / "folder.onnx")
    assert not is_model(Path("net.tflite"))


@pytest.mark.parametrize(
    ("wish", "what"),
    [
        (Wish(runtimes=("onnxrt",)), "--runtime: 'onnxrt' is unknown"),
        (Wish(precisions=("fp31",)), "--precision: 'fp31' is unknown"),
    ],
)
def test_a_wish_that_nobody_can_grant(wish: Wish, what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        check_wish(wish)
    assert caught.value.fix.startswith("did you mean")


@pytest.mark.ort
def test_a_bundles_artefacts_are_chosen_by_runtime_and_precision(tmp_path: Path) -> None:
    kinds = ["null-fp32", "onnxruntime-fp32", "onnxruntime-int8"]
    artefacts = read_manifest(make_bundle(tmp_path / "bundle", kinds)).artefacts
    assert select(artefacts, Wish()) == list(artefacts)
    found = select(artefacts, Wish(("onnxruntime",), ("int8", "fp16")))
    assert [artefact.name for artefact in found] == ["x86-onnxruntime-int8"]
    with pytest.raises(InputError, match="no artefact is of both") as caught:
        select(artefacts, Wish(("openvino",)))
    assert "x86-null-fp32" in caught.value.fix
