"""How answers are kept: what packing keeps of them, and files that are whole or refused."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from edgexfer.core.errors import DataError, DiskError
from edgexfer.distill.answers import pack, read_rows, row_type, unpack, write_rows

LOGITS = torch.randn(40, 12, generator=torch.Generator().manual_seed(3)) * 5


def test_all_logits_are_kept_in_half_precision() -> None:
    kind = row_type(12, None)
    rows = pack(LOGITS, kind)
    assert (kind.itemsize, rows.shape) == (24, (40,))
    assert torch.equal(unpack(rows, 12), LOGITS.half().float())
    assert row_type(12, 12) == row_type(12, 99) == kind


@pytest.mark.parametrize("k", [1, 3, 11])
def test_the_largest_keep_their_probability_and_the_rest_share_theirs(k: int) -> None:
    rounded = LOGITS.half().double()
    found = unpack(pack(LOGITS, row_type(12, k)), 12)
    wanted, places = rounded.softmax(1).sort(1, descending=True)
    got = found.double().softmax(1).gather(1, places)
    torch.testing.assert_close(got[:, :k], wanted[:, :k], rtol=1e-6, atol=0)
    even = wanted[:, k:].sum(1, keepdim=True).expand(-1, 12 - k) / (12 - k)
    torch.testing.assert_close(got[:, k:], even, rtol=1e-5, atol=0)
    # What was packed once loses nothing the second time.
    assert torch.equal(unpack(pack(found, row_type(12, k)), 12).half(), found.half())


def test_of_equal_logits_the_first_class_is_kept() -> None:
    rows = pack(torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.0]]), row_type(5, 2))
    assert rows["index"].tolist() == [[1, 2]]
    assert row_type(70_000, 2)["index"].base == np.dtype("<u4")


def test_a_file_gives_back_its_rows(tmp_path: Path) -> None:
    for top_k in (None, 3):
        kind = row_type(12, top_k)
        rows, place = pack(LOGITS, kind), tmp_path / f"{top_k}.rows"
        write_rows(place, rows)
        found = read_rows(place, kind, 40)
        assert found.tobytes() == rows.tobytes()
        assert torch.equal(unpack(found[[5, 1]], 12), unpack(rows[[5, 1]], 12))
        assert place.read_bytes()[:-32] == rows.tobytes()


def test_what_is_truncated_or_altered_is_refused(tmp_path: Path) -> None:
    kind, place = row_type(12, None), tmp_path / "a.rows"
    write_rows(place, pack(LOGITS, kind))
    whole = place.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], b""):
        place.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"a\.rows: has {len(damaged)} bytes instead of 992"):
            read_rows(place, kind, 40)
    for at in (0, 500, 991):
        place.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DataError, match=r"a\.rows: was altered") as caught:
            read_rows(place, kind, 40)
        assert "computed again" in caught.value.fix


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    rows = pack(LOGITS.repeat(100, 1), row_type(12, None))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(DiskError, match=r"a\.rows: no room left to write"):
            write_rows(tmp_path / "a.rows", rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
