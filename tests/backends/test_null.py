from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.errors import BackendError
from tests.bundles import SIZE, write_null


def test_it_is_the_linear_map_of_its_file(tmp_path: Path) -> None:
    path = write_null(tmp_path / "a.npz")
    arrays = np.load(path, allow_pickle=False)
    session = get_backend("null").load(path, Plan())
    x = np.random.default_rng(0).random((2, 3, SIZE, SIZE), np.float32)
    expected = x.reshape(2, -1) @ arrays["weight"].T + arrays["bias"]
    assert session.run({session.inputs[0].name: x})["logits"].tobytes() == expected.tobytes()
    assert session.active == {"provider": "numpy", "precision": "fp32"}
    session.close()


@pytest.mark.parametrize(
    "content", [b"", b"no zip at all", b"PK\x03\x04 cut short"], ids=["empty", "text", "cut"]
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(
        BackendError, match=r"a\.npz: is not an artefact of the null backend"
    ) as caught:
        get_backend("null").load(path, Plan())
    assert "numpy.savez" in caught.value.fix


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, weight=np.array([{"a": 1}], dtype=object), bias=np.zeros(1), shape=np.ones(3))
    with pytest.raises(BackendError, match="is not an artefact"):
        get_backend("null").load(path, Plan())


def test_a_weight_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, weight=np.zeros((2, 5), np.float32), bias=np.zeros(2), shape=np.array([3, 4, 4]))
    with pytest.raises(BackendError, match=r"weight is float32 \(2, 5\)"):
        get_backend("null").load(path, Plan())
