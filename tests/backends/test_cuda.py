"""CUDA's runtime through ctypes: types, directions and order are held against a strict fake."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

from edgexfer.backends import _cuda
from edgexfer.backends._cuda import Cuda
from edgexfer.core.errors import BackendError
from tests.backends.fake_cudart import HEADER, FakeCudart


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> FakeCudart:
    fake = FakeCudart()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: fake)
    return fake


def test_every_function_has_the_types_of_the_header() -> None:
    ours = {name: kinds for name, kinds in HEADER.items() if name != "cudaGetErrorString"}
    assert ours == _cuda._SIGNATURES


def test_facts_are_read(library: FakeCudart) -> None:
    cuda = Cuda()
    assert (cuda.devices(), cuda.version(), cuda.free_bytes()) == (1, "12.6", 4 << 30)
    expected = {"name": "Orin", "compute_capability": "8.7", "multiprocessors": 8}
    assert cuda.device() == expected


def test_bytes_go_there_and_back_in_the_streams_order(library: FakeCudart) -> None:
    cuda = Cuda()
    stream, buffer = cuda.stream(), cuda.allocate(64)
    view = buffer.view("float32", (2, 3))
    view[...] = np.arange(6).reshape(2, 3)
    cuda.to_device(buffer, view.nbytes, stream)
    cuda.synchronize(stream)
    view[...] = -1
    cuda.to_host(buffer, view.nbytes, stream)
    assert (view == -1).all(), "nothing is there before the stream was waited for"
    cuda.synchronize(stream)
    assert view.tolist() == [[0, 1, 2], [3, 4, 5]]
    cuda.release(buffer)
    cuda.destroy("Stream", stream)
    assert library.left() == 0


def test_a_graph_does_what_was_captured_each_time_it_is_launched(library: FakeCudart) -> None:
    cuda = Cuda()
    stream, buffer = cuda.stream(), cuda.allocate(4)
    view = buffer.view("float32", (1,))
    view[...] = 7
    cuda.to_device(buffer, 4, stream)
    cuda.synchronize(stream)
    graph = cuda.capture(stream, lambda: cuda.to_host(buffer, 4, stream))
    for _ in range(2):
        view[...] = 0
        cuda.launch(graph, stream)
        cuda.synchronize(stream)
        assert view.tolist() == [7]
    # The graph's template is gone; what was launched is the caller's.
    assert library.left() == 4
    cuda.destroy("GraphExec", graph)


def test_what_cannot_be_captured_leaves_the_stream_usable(library: FakeCudart) -> None:
    cuda = Cuda()
    stream = cuda.stream()
    with pytest.raises(BackendError, match=r"CUDA: cudaStreamSynchronize failed .*capturing"):
        cuda.capture(stream, lambda: cuda.synchronize(stream))
    cuda.synchronize(stream)


def test_events_give_times_in_nanoseconds(library: FakeCudart) -> None:
    cuda = Cuda()
    stream, start, end = cuda.stream(), cuda.event(), cuda.event()
    cuda.record(start, stream)
    cuda.record(end, stream)
    cuda.synchronize(stream)
    assert cuda.elapsed_ns(start, end) == 250_000


def test_memory_that_is_not_there_is_an_error_and_nothing_is_kept(library: FakeCudart) -> None:
    library.free = 100
    with pytest.raises(BackendError, match=r"cudaHostAlloc failed \(out of memory\)") as caught:
        Cuda().allocate(101)
    assert "check memory" in caught.value.fix
    assert library.left() == 0


def test_the_library_is_looked_for_beside_the_loaders_own_places(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = tmp_path / "nvidia/cuda_runtime/lib/libcudart.so.12"
    place.parent.mkdir(parents=True)
    place.touch()
    fake, asked = FakeCudart(), []

    def load(name: str) -> FakeCudart:
        asked.append(name)
        if name == str(place):
            return fake
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.syspath_prepend(tmp_path)
    assert Cuda().devices() == 1
    assert asked[:4] == ["libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"]
