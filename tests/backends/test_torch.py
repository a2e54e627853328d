from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgexfer.core.backend import Plan, get_backend
from edgexfer.core.errors import BackendError
from tests.bundles import write_program

pytestmark = pytest.mark.torch


class _Evil:
    """Unpickling it makes a file; the tests assert that it never appears."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_program(tmp_path_factory.mktemp("torch") / "m.pt2")


def _rewrite(source: Path, out: Path, change: Callable[[str, bytes], bytes]) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out


def test_pickled_example_inputs_are_refused_before_torch_loads_them(
    program: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "executed"
    evil = pickle.dumps(_Evil(mark))
    bad = _rewrite(
        program, tmp_path / "m.pt2", lambda name, old: evil if "sample_inputs" in name else old
    )
    with pytest.raises(BackendError, match="holds pickled objects") as caught:
        get_backend("torch").load(bad, Plan())
    assert "plain tensors" in caught.value.fix
    assert not mark.exists()


@pytest.mark.parametrize("key", ["use_pickle", "path_name"])
def test_pickled_weights_are_refused(program: Path, tmp_path: Path, key: str) -> None:
    def change(name: str, old: bytes) -> bytes:
        if not name.endswith("model_weights_config.json"):
            return old
        config = json.loads(old)
        entry = next(iter(config["config"].values()))
        entry[key] = True if key == "use_pickle" else "opaque_obj_0"
        return json.dumps(config).encode()

    bad = _rewrite(program, tmp_path / "m.pt2", change)
    with pytest.raises(BackendError, match=r"holds pickled objects \(.*weights_config\.json\)"):
        get_backend("torch").load(bad, Plan())


def test_the_old_format_with_pickled_weights_is_refused(program: Path, tmp_path: Path) -> None:
    bad = _rewrite(program, tmp_path / "m.pt2", lambda _, old: old)
    with zipfile.ZipFile(bad, "a") as archive:
        archive.writestr("m/data/weights/model.pt", b"")
    with pytest.raises(BackendError, match=r"holds pickled objects \(m/data/weights/model\.pt\)"):
        get_backend("torch").load(bad, Plan())


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused(program: Path, tmp_path: Path) -> None:
    bad = _rewrite(program, tmp_path / "m.pt2", lambda _, old: old)
    with zipfile.ZipFile(bad, "a") as archive:
        archive.writestr(archive.namelist()[0], b"another")
    with pytest.raises(BackendError, match="two entries of one name"):
        get_backend("torch").load(bad, Plan())


def test_what_is_no_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    path.write_bytes(pickle.dumps([1, 2, 3]))
    with pytest.raises(BackendError, match=r"m\.pt2: is not a torch\.export program"):
        get_backend("torch").load(path, Plan())


def test_a_program_that_is_cut_short_is_one_error(program: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(tmp_path / "m.pt2", "w") as new:
        for name in old.namelist()[:3]:
            new.writestr(name, old.read(name))
    with pytest.raises(BackendError, match="torch cannot load it") as caught:
        get_backend("torch").load(tmp_path / "m.pt2", Plan())
    assert "torch.export.save" in caught.value.fix
