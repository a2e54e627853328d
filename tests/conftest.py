"""What all tests share: the --regen option, shared test data, and one thread per process.

A marker says what a test needs (see ``pyproject.toml``); a test whose need is not met is skipped
with the reason. Fixtures of one room live in that room's own ``conftest.py``.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

# Set before any library starts its thread pool: the tests run beside each other.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# No test may reach for a display, or tell anybody that it ran.
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Nor may one leave anything in the cache of whoever runs the tests.
if "EDGEXFER_CACHE" not in os.environ:
    _cache = tempfile.mkdtemp(prefix="edgexfer-tests-")
    os.environ["EDGEXFER_CACHE"] = _cache
    atexit.register(shutil.rmtree, _cache, ignore_errors=True)

import pytest  # noqa: E402 - after the environment is set

ROOT = Path(__file__).resolve().parent.parent
RUNTIMES = {"torch": "torch", "ort": "onnxruntime", "ov": "openvino", "trt": "tensorrt"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", help="write the golden files anew")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, each with its reason."""
    missing = {m: f"{p} is not installed" for m, p in RUNTIMES.items() if not _installed(p)}
    if not os.environ.get("EDGEXFER_ARM_PYTHON"):
        missing["arm"] = "EDGEXFER_ARM_PYTHON is not set; tools/arm_emulation.py makes one"
    if not Path("/dev/nvidia0").exists():
        missing["gpu"] = "no CUDA device is here"
    for item in items:
        for marker in item.iter_markers():
            if marker.name in missing:
                item.add_marker(pytest.mark.skip(reason=missing[marker.name]))


@pytest.fixture
def regen(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written anew instead of compared."""
    return bool(request.config.getoption("--regen"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets that are too large for the repository; skips where it is not here."""
    place = Path(os.environ.get("EDGEXFER_DATA", str(ROOT.parent / "shared" / "data")))
    if not place.is_dir():
        pytest.skip(f"{place} is not here; EDGEXFER_DATA names the folder of the data sets")
    return place


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
