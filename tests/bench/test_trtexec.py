"""The verb ``trtexec`` of the packed device side, with a trtexec that knows its version's options.

What it writes are fixtures; nothing here has seen a GPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgexfer.bench import emulated
from edgexfer.bench.__main__ import main
from edgexfer.bench.engines import engines_folder
from edgexfer.core.bundle import verify_files
from edgexfer.core.files import read_json
from tests.bundles import make_bundle

pytestmark = pytest.mark.ort
SCRIPT = """#!{python}
import sys
sys.path.append({root!r})
from tests.backends.fake_trtexec import main
sys.exit(main(sys.argv, {version!r}))
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle", ["tensorrt-fp32", "tensorrt-int8", "null-fp32"])


def _tool(folder: Path, root: Path, version: tuple[int, int], more: str = "") -> Path:
    place = folder / "trtexec"
    place.write_text(SCRIPT.format(python=sys.executable, root=str(root), version=version) + more)
    place.chmod(0o755)
    return place


@pytest.mark.parametrize("version", [(8, 5), (8, 6), (10, 3), (10, 16), (11, 4)])
def test_it_builds_and_times_on_every_version(
    version: tuple[int, int],
    bundle: Path,
    tmp_path: Path,
    root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tool = _tool(tmp_path, root, version)
    assert main(["trtexec", str(bundle), "--tool", str(tool)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "GPU compute p50 0.85" in lines[0]
    assert "GPU compute time is unstable" in lines[0]
    trial = read_json(tmp_path / "bundle-bench/gpu-tensorrt-int8-trtexec.json")
    assert trial["schema"] == "edgexfer.trtexec/1"
    assert trial["tensorrt"] == list(version)
    assert trial["gpu"] == "Orin"
    assert len(trial["compute_ns"]) == trial["compute"]["p50"]["n"] == 20
    assert trial["compute_ns"] == trial["latency_ns"]
    assert trial["layer_types"] == {"int8": 1}
    assert trial["slowest"][0]["name"] == "conv1 + relu1"
    assert trial["timing"]["transfers"] is False
    assert len(trial["commands"]) == 3
    assert (engines_folder(bundle) / "trtexec/gpu-tensorrt-int8.engine").is_file()
    verify_files(bundle)


@pytest.mark.parametrize("version", [(10, 3), (11, 4)])
def test_copies_can_be_timed_too(
    version: tuple[int, int], bundle: Path, tmp_path: Path, root: Path
) -> None:
    tool = _tool(tmp_path, root, version)
    argv = ["trtexec", str(bundle), "--tool", str(tool), "--transfers", "--out", f"{tmp_path}/o"]
    assert main([*argv, "--artefact", "gpu-tensorrt-fp32"]) == 0
    (place,) = (tmp_path / "o").iterdir()
    trial = read_json(place)
    assert all(a < b for a, b in zip(trial["compute_ns"], trial["latency_ns"], strict=True))


def test_a_trtexec_that_lies_about_copies_is_not_believed(
    bundle: Path, tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = _tool(tmp_path, root, (10, 3))
    text = tool.read_text().replace(
        "main(sys.argv", "main([w for w in sys.argv if 'Data' not in w]"
    )
    tool.write_text(text)
    assert main(["trtexec", str(bundle), "--tool", str(tool)]) == 3
    assert "holds copies, which were switched off" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code", "what"),
    [
        (["--tool", "/nonexistent/trtexec"], 3, "/nonexistent/trtexec: cannot be started"),
        (["--tool", "/bin/true"], 3, "/bin/true: is not output of trtexec"),
        (["--artefact", "x86-null-fp32"], 2, "is for null, not for TensorRT"),
        (["--artefact", "none"], 2, "'none' is not in the bundle"),
    ],
)
def test_what_cannot_be_timed_is_two_lines(
    argv: list[str], code: int, what: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trtexec", str(bundle), *argv]) == code
    error, fix = capsys.readouterr().err.splitlines()
    assert what in error
    assert fix.startswith("fix: ")
    assert not (bundle.parent / "bundle-bench").exists()


def test_an_emulated_board_is_not_timed(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(emulated, "emulator", lambda: ("qemu-aarch64, a program for x86", ""))
    assert main(["trtexec", str(bundle), "--tool", "/nonexistent/trtexec"]) == 3
    error, fix = capsys.readouterr().err.splitlines()
    assert error.startswith("error: trtexec: this ")
    assert "is emulated by qemu-aarch64" in error
    assert fix == "fix: measure on the device itself"


def test_a_bundle_without_tensorrt_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_bundle(tmp_path / "other")
    assert main(["trtexec", str(other)]) == 2
    assert "other: has nothing for TensorRT" in capsys.readouterr().err


def test_a_trtexec_that_fails_says_its_own_error(
    bundle: Path, tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = _tool(tmp_path, root, (10, 3))
    # It says 10.3 of itself when it is asked, and then takes the options of 11 alone.
    text = tool.read_text()
    tool.write_text(
        text.replace(
            "main(sys.argv, (10, 3))", "main(sys.argv, (10, 3) if '--help' in sys.argv else (8, 6))"
        )
    )
    assert main(["trtexec", str(bundle), "--tool", str(tool)]) == 3
    error = capsys.readouterr().err
    assert "trtexec of TensorRT 8.6 failed (Unknown option: --stronglyTyped)" in error
    left = [path.name for path in (tmp_path / "bundle-engines/trtexec").iterdir()]
    assert left == ["gpu-tensorrt-fp32-0.log"]
