"""The fake refuses what a version does not have: code that is right for one fails on another.

It can tell names, arguments and read-only properties; what a real parser accepts, what kernels
exist and what they compute, it cannot.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.backends.fake_cudart import FakeCudart
from tests.backends.fake_tensorrt import API, VERSIONS, make_tensorrt

OLD = ("8.6.1",)
TEN = tuple(v for v in VERSIONS if v.startswith("10."))
ELEVEN = tuple(v for v in VERSIONS if v.startswith("11."))


def _parts(trt: Any) -> tuple[Any, Any, Any]:
    builder = trt.Builder(trt.Logger())
    return builder, builder.create_network(0), builder.create_builder_config()


def _context(trt: Any) -> Any:
    return trt.world.make("IExecutionContext")


def workspace_of_8(trt: Any) -> None:
    _parts(trt)[2].max_workspace_size = 1 << 30


def engine_of_8(trt: Any) -> None:
    builder, network, config = _parts(trt)
    with suppress(NotImplementedError):  # the name is there, the fake does not build by it
        builder.build_engine(network, config)


def bindings_of_8(trt: Any) -> None:
    with suppress(NotImplementedError):
        _context(trt).execute_async_v2(bindings=[], stream_handle=1)


def batch_flag_of_10(trt: Any) -> None:
    trt.Builder(trt.Logger()).create_network(
        1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    )


def half_flag_of_10(trt: Any) -> None:
    _parts(trt)[2].set_flag(trt.BuilderFlag.FP16)


def calibrator_of_10(trt: Any) -> None:
    class Mine(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        pass

    _parts(trt)[2].int8_calibrator = Mine()


def memory_of_10(trt: Any) -> None:
    assert trt.world.make("ICudaEngine").device_memory_size > 0


def typing_of_11(trt: Any) -> None:
    int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def memory_of_11(trt: Any) -> None:
    assert trt.world.make("ICudaEngine").device_memory_size_v2 > 0


def operator_of_11(trt: Any) -> None:
    assert hasattr(trt.ParserError, "node_operator")


RIGHT_ON: dict[Callable[[Any], None], tuple[str, ...]] = {
    workspace_of_8: OLD,
    engine_of_8: OLD,
    bindings_of_8: OLD,
    batch_flag_of_10: OLD + TEN,
    half_flag_of_10: OLD + TEN,
    calibrator_of_10: OLD + TEN,
    memory_of_10: OLD + TEN,
    typing_of_11: TEN + ELEVEN,
    memory_of_11: TEN + ELEVEN,
    operator_of_11: TEN + ELEVEN,
}


def test_there_are_eight_versions_of_three_generations() -> None:
    assert (len(OLD), len(TEN), len(ELEVEN)) == (1, 5, 2)
    assert set(VERSIONS) == {*OLD, *TEN, *ELEVEN}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("code", list(RIGHT_ON), ids=lambda code: code.__name__)
def test_code_for_one_version_fails_on_another(code: Callable[[Any], None], version: str) -> None:
    trt = make_tensorrt(version)
    if version in RIGHT_ON[code]:
        code(trt)
    else:
        with pytest.raises((AttributeError, AssertionError)):
            code(trt)


@pytest.mark.parametrize("version", VERSIONS)
def test_arguments_are_those_of_the_version(version: str) -> None:
    trt = make_tensorrt(version)
    builder, _, config = _parts(trt)
    pool = trt.MemoryPoolType.WORKSPACE
    config.set_memory_pool_limit(pool=pool, pool_size=1)
    wrong: list[Callable[[], Any]] = [
        lambda: config.set_memory_pool_limit(pool),
        lambda: config.set_memory_pool_limit(pool, size=1),
        lambda: config.set_memory_pool_limit(pool, 1.5),
        lambda: config.set_memory_pool_limit(0, 1),
        lambda: config.set_memory_pool_limit(pool, 1, 2),
        lambda: builder.create_network(flags="0"),
        lambda: trt.Builder(),
        lambda: trt.Runtime("log"),
        lambda: trt.ICudaEngine(),
        lambda: (
            1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
            if version not in OLD
            else 1 << trt.BuilderFlag.FP16
        ),
    ]
    for call in wrong:
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_property_that_is_read_only_refuses_to_be_set(version: str) -> None:
    trt = make_tensorrt(version)
    builder, network, config = _parts(trt)
    for thing, name in ((builder, "num_DLA_cores"), (network, "num_layers")):
        with pytest.raises(AttributeError):
            setattr(thing, name, 3)
    with pytest.raises(AttributeError, match="has no attribute 'profiling_verbosty'"):
        config.profiling_verbosty = trt.ProfilingVerbosity.DETAILED


def test_every_item_names_versions_that_there_are() -> None:
    spans = re.findall(r'": "([\d -]*)"', json.dumps(API))
    assert len(spans) > 400
    for text in spans:
        for number in re.findall(r"\d+", text):
            assert int(number) < len(VERSIONS)


def test_the_compact_form_is_what_its_script_makes(root: Path) -> None:
    sources = root.parent / "shared/reference/tensorrt_api"
    if not sources.is_dir():
        pytest.skip(f"{sources} is not here")
    argv = [sys.executable, "tools/tensorrt_api.py", str(sources), "--check"]
    assert subprocess.run(argv, cwd=root, check=False).returncode == 0


def test_the_fake_of_cuda_is_as_unforgiving_as_c() -> None:
    library = FakeCudart()
    with pytest.raises(AssertionError, match="argtypes are None"):
        library.cudaFree(0)
    library.cudaStreamDestroy.argtypes = (int,)
    with pytest.raises(AssertionError, match="not the header's"):
        library.cudaStreamDestroy(0)
    with pytest.raises(AttributeError, match="cudaMallok"):
        _ = library.cudaMallok
    with pytest.raises(AssertionError, match="are no device memory"):
        library.allocation(4096, 1, "device")
