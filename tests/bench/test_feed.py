from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgexfer.bench.feed import check_session, normalise, read_array
from edgexfer.core.backend import Plan, TensorSpec, get_backend
from edgexfer.core.errors import BundleError
from edgexfer.core.preprocess import Preprocess
from tests.bundles import PREPROCESS, SIZE, write_null


@pytest.mark.torch
@pytest.mark.parametrize("channels", ["RGB", "BGR"])
@pytest.mark.parametrize("size", [(SIZE, SIZE), (11, 24)])
def test_it_gives_the_bits_of_the_trainer(channels: str, size: tuple[int, int]) -> None:
    import torch

    from edgexfer.models.normalise import PixelModel

    preprocess = Preprocess(size=size, resize=max(size), channels=channels)
    # All 256 values of a pixel, in all three channels.
    images = np.resize(np.arange(256, dtype=np.uint8), (6, *size, 3))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    trainer = PixelModel(torch.nn.Identity(), preprocess).normalise(pixels).contiguous().numpy()
    device = normalise(images, preprocess)
    assert device.flags.c_contiguous
    assert device.dtype == np.float32
    assert device.tobytes() == trainer.tobytes()


def test_a_mutation_of_one_constant_would_be_seen() -> None:
    images = np.resize(np.arange(256, dtype=np.uint8), (1, SIZE, SIZE, 3))
    other = Preprocess(size=(SIZE, SIZE), resize=SIZE, mean=(0.485, 0.456, 0.407))
    assert normalise(images, other).tobytes() != normalise(images, PREPROCESS).tobytes()


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros((2, 3), np.float64), r"is float64 \(2, 3\), expected float32 \(-1, 3\)"),
        (np.zeros((2, 4), np.float32), r"is float32 \(2, 4\), expected"),
        (np.zeros(3, np.float32), r"is float32 \(3,\), expected"),
        (np.array([{"a": 1}], dtype=object), "is not readable as an array"),
    ],
    ids=["dtype", "side", "rank", "pickle"],
)
def test_an_array_of_another_kind_is_refused(tmp_path: Path, array: object, text: str) -> None:
    np.save(tmp_path / "a.npy", np.asarray(array), allow_pickle=True)
    with pytest.raises(BundleError, match=text) as caught:
        read_array(tmp_path, "a.npy", "float32", (-1, 3))
    assert "export the bundle again" in caught.value.fix


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00v\x00{'descr'"])
def test_a_damaged_array_is_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(BundleError, match=r"a\.npy: is not readable as an array"):
        read_array(tmp_path, "a.npy", "float32", (-1, 3))


@pytest.mark.parametrize("name", ["../a.npy", "/a.npy", "x/../../a.npy", ""])
def test_a_path_out_of_the_bundle_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="unsafe path"):
        read_array(tmp_path, name, "float32", (-1, 3))


def test_a_session_must_fit_preprocess_and_labels(tmp_path: Path) -> None:
    session = get_backend("null").load(write_null(tmp_path / "a.npz"), Plan())
    check_session(session, PREPROCESS, 3)
    with pytest.raises(BundleError, match=r"output is \(-1, 3\), expected \(1, 4\)"):
        check_session(session, PREPROCESS, 4)
    larger = Preprocess(size=(32, 32), resize=32)
    with pytest.raises(BundleError, match=r"input is \(-1, 3, 16, 16\), expected \(1, 3, 32, 32\)"):
        check_session(session, larger, 3)
    session.inputs = (*session.inputs, TensorSpec("second", (1,), "float32"))
    with pytest.raises(BundleError, match="takes 2 inputs, expected one"):
        check_session(session, PREPROCESS, 3)
    session.inputs = ()
    with pytest.raises(BundleError, match="takes 0 inputs, expected one"):
        check_session(session, PREPROCESS, 3)
