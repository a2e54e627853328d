"""Weights files that are not what they should be: each ends with the file, the tensor, the mend."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from edgexfer.core.errors import ModelError
from edgexfer.models.create import create_model
from edgexfer.models.weights import read_weights

pytestmark = pytest.mark.torch
MARK = Path("executed")


class Bomb:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return MARK.touch, ()


def good() -> dict[str, Tensor]:
    return dict(create_model("resnet8", 10)[0].state_dict())


def without(name: str) -> dict[str, Tensor]:
    return {n: t for n, t in good().items() if n != name}


def poisoned() -> dict[str, Tensor]:
    tensors = good()
    tensors["layer2.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    return tensors


def safetensors(tensors: dict[str, Tensor]) -> bytes:
    from safetensors.torch import save

    return save(tensors)


def pth(value: Any) -> bytes:
    import io

    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


HUGE_HEADER = struct.pack("<Q", 1 << 62) + b"{}"
HEADER = (
    b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    b'"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}'
)
OVERLAPPING = struct.pack("<Q", len(HEADER)) + HEADER + bytes(12)

CASES = [
    ("w.safetensors", lambda: b"", "is empty", "again"),
    ("w.safetensors", lambda: b"not weights at all", "is not whole as safetensors", "again"),
    ("w.safetensors", lambda: safetensors(good())[:-9], "is not whole as safetensors", "again"),
    ("w.safetensors", lambda: HUGE_HEADER, "is not whole as safetensors", "again"),
    ("w.safetensors", lambda: OVERLAPPING, "is not whole as safetensors", "again"),
    ("w.safetensors", lambda: safetensors({}), "holds no tensors", "model's weights"),
    (
        "w.safetensors",
        lambda: safetensors(poisoned()),
        "tensor layer2.0.conv1.weight has",
        "before",
    ),
    (
        "w.safetensors",
        lambda: safetensors(without("bn1.bias")),
        "tensor bn1.bias is miss",
        "name the",
    ),
    (
        "w.safetensors",
        lambda: safetensors({**good(), "extra.weight": torch.ones(1)}),
        "tensor extra.weight is unknown to CifarResNet (1 in all)",
        "name the architecture",
    ),
    (
        "w.safetensors",
        lambda: safetensors({f"other.{i}": torch.ones(1) for i in range(60)}),
        "are weights of another architecture",
        "name the architecture",
    ),
    (
        "w.safetensors",
        lambda: safetensors({**good(), "conv1.weight": torch.ones(8, 3, 3, 3)}),
        "tensor conv1.weight has shape 8x3x3x3, CifarResNet needs 16x3x3x3",
        "name the architecture",
    ),
    ("w.pth", lambda: b"", "is empty", "again"),
    ("w.pth", lambda: b"not a checkpoint at all", "w.pth: is", ""),
    ("w.pth", lambda: pth(good())[:-900], "is not whole as a torch checkpoint", "again"),
    (
        "w.pth",
        lambda: pth({"state_dict": good(), "args": Bomb()}),
        "is not a checkpoint of tens",
        "conv",
    ),
    ("w.pth", lambda: pickle.dumps(Bomb()), "w.pth: is", ""),
    ("w.pth", lambda: pth([1, 2]), "holds a list, not tensors by name", "state dict"),
    ("w.pth", lambda: pth({"a": torch.ones(1), "lr": 0.1}), "entry lr is a float", "state dict"),
    ("w.bmp", lambda: b"x", "is not named like a weights file", ".safetensors"),
]


@pytest.mark.parametrize(("name", "content", "what", "fix"), CASES)
def test_a_bad_file_names_the_place_and_the_mend(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    content: Any,
    what: str,
    fix: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / name
    place.write_bytes(content())
    with pytest.raises(ModelError) as caught:
        create_model("resnet8", 10, weights=place)
    assert caught.value.what.startswith(f"{place}: ") and what in caught.value.what
    assert fix in caught.value.fix and "\n" not in caught.value.what + caught.value.fix
    assert not MARK.exists(), "the file's code was run"


def test_the_bomb_would_go_off_without_the_guard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Bomb()))
    assert MARK.exists()


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_weights(tmp_path / "nothing.safetensors")
    assert "no such weights file" in caught.value.what and "--weights" in caught.value.fix


def test_a_flipped_bit_is_read_as_other_values(tmp_path: Path) -> None:
    """The format has no hash; whoever needs one (a run's card, a bundle) keeps it beside."""
    place = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(4)}, place)
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(bytes(data))
    assert not torch.equal(read_weights(place)["a"], torch.zeros(4))
