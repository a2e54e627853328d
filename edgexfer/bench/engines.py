"""Engines: what a runtime compiles on the device stands beside the bundle, never in it.

A bundle is sealed, and an engine is bound to the device that built it. The next process finds the
engine there; whether it is still the right one is judged by the backend.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from edgexfer.bench.latency import timed
from edgexfer.core.backend import Backend, Plan
from edgexfer.core.bundle import Artefact
from edgexfer.core.errors import BundleError
from edgexfer.core.profile import HardwareProfile


@dataclass(frozen=True)
class ModelFile:
    """What a runtime loads.

    Attributes:
        path: the artefact's own file, or the engine made from it.
        engine_bytes: size of the engine; ``None`` where none is needed.
        build_ns: how long it took to build; ``None`` where nothing was built just now.
    """

    path: Path
    engine_bytes: Optional[int] = None
    build_ns: Optional[int] = None


def engines_folder(bundle: Path) -> Path:
    """Return the folder of a bundle's engines, ``BUNDLE-engines`` beside it."""
    place = bundle.resolve()
    return place.with_name(f"{place.name}-engines")


def model_file(
    bundle: Path, artefact: Artefact, profile: HardwareProfile, backend: Backend, plan: Plan
) -> ModelFile:
    """Return what the runtime loads, built first where the profile says ``compile_on: device``.

    Raises:
        BundleError: the artefact lists no file.
        BackendError: the runtime cannot build it.
        DiskError: the engine cannot be written beside the bundle.
    """
    if not artefact.files:
        raise BundleError(
            f"{bundle}: artefact {artefact.name} lists no file", "export the bundle again"
        )
    source = bundle / artefact.files[0].path
    if profile.compile_on == "host":
        return ModelFile(source)
    out = engines_folder(bundle) / f"{artefact.name}.engine"
    before = _changed_ns(out)
    path, elapsed_ns = timed(lambda: backend.compile(source, out, plan))
    built = _changed_ns(path) != before
    return ModelFile(path, path.stat().st_size, elapsed_ns if built else None)


def _changed_ns(path: Path) -> Optional[int]:
    return path.stat().st_mtime_ns if path.is_file() else None
