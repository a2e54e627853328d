"""An engine's stamp: ``ENGINE.json`` beside it says where, by what and from what it was built."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

from edgexfer.backends._cuda import Cuda
from edgexfer.core.backend import Plan
from edgexfer.core.errors import BackendError, EdgexferError
from edgexfer.core.files import read_json, sha256_file

SCHEMA = "edgexfer.engine/1"
REBUILD = "delete it and build it again on this device (an engine cannot be moved)"


def stamp_of(engine: Path) -> Path:
    """Return where an engine's stamp stands."""
    return engine.with_name(f"{engine.name}.json")


def here(trt: Any, cuda: Cuda) -> Dict[str, Any]:
    """Return what an engine is bound to."""
    device = cuda.device()
    return {
        "tensorrt": str(trt.__version__),
        "gpu": device["name"],
        "compute_capability": device["compute_capability"],
        # All Orins have one name; a power mode may switch some of these off.
        "multiprocessors": device["multiprocessors"],
    }


def request(model: Path, plan: Plan) -> Dict[str, Any]:
    """Return what an engine was built from, and how."""
    built_in = {k: v for k, v in sorted(plan.options.items()) if k != "cuda_graph"}
    cache = plan.options.get("calibration_cache")
    scales = model.parent / str(cache)
    return {
        "schema": SCHEMA,
        "model_sha256": sha256_file(model),
        "calibration_sha256": sha256_file(scales) if cache and scales.is_file() else None,
        "precision": plan.precision,
        "device": plan.device,
        "options": built_in,
    }


def stands(engine: Path, wanted: Dict[str, Any]) -> bool:
    """Tell whether an engine stands there whole that was built here for the same request."""
    try:
        stamp = read_json(stamp_of(engine))
        same = {key: stamp.get(key) for key in wanted} == wanted
        return same and stamp.get("engine_sha256") == sha256_file(engine)
    except (EdgexferError, OSError, AttributeError):
        return False


def check_stamp(engine: Path, here: Dict[str, Any], plan: Plan) -> None:
    """Refuse an engine whose stamp says that it was built elsewhere, or for another plan.

    Raises:
        BackendError: naming what differs.
    """
    place = stamp_of(engine)
    if not place.is_file():  # built by trtexec; TensorRT's own check has to do
        return
    try:
        stamp = dict(read_json(place))
    except (EdgexferError, ValueError, TypeError) as error:
        raise BackendError(f"{place}: is not the stamp of an engine", REBUILD) from error
    wanted: Dict[str, Any] = {**here, "precision": plan.precision, "device": plan.device}
    for key, value in wanted.items():
        if stamp.get(key) != value:
            raise BackendError(
                f"{engine}: was built for {key} {stamp.get(key)}, this is {value}", REBUILD
            )
