"""A backend without a runtime: a fixed linear map in numpy.

It keeps the tests honest (its outputs can be computed by hand) and shows what the harness itself
costs per call. No exported model is ever run by it.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from edgexfer.core.backend import Plan, TensorSpec, check_plan
from edgexfer.core.errors import BackendError

NAME = "null"
OPTIONS: Dict[str, str] = {}
PRECISIONS = ("fp32",)


def unavailable() -> Optional[str]:
    """Say why numpy cannot be used here, ``None`` when it can."""
    try:
        import numpy  # noqa: F401
    except ImportError as error:
        return f"numpy cannot be imported ({error})"
    return None


def versions() -> Dict[str, str]:
    """Return numpy's version."""
    import numpy as np

    return {"numpy": np.__version__}


def compile(model: Path, out: Path, plan: Plan) -> Path:  # noqa: ARG001
    """Return ``model``: the file is loaded as it is."""
    return model


def load(artefact: Path, plan: Plan) -> NullSession:
    """Load an ``.npz`` file with ``weight`` (C, D) and ``bias`` (C,), float32, and ``shape`` (3,).

    ``shape`` is one input's, without the batch; D is its product. The result of a call is
    ``x.reshape(N, D) @ weight.T + bias``.

    Raises:
        BackendError: the file is not one of those, or the plan asks for what cannot be had.
    """
    check_plan(NAME, plan, PRECISIONS, OPTIONS)
    import numpy as np

    try:
        # Opened here, as numpy would leave a damaged file open.
        with artefact.open("rb") as stream:
            arrays = np.load(stream, allow_pickle=False)
            weight, bias, shape = arrays["weight"], arrays["bias"], arrays["shape"]
        if weight.dtype != np.float32 or weight.shape != (bias.size, int(np.prod(shape))):
            raise ValueError(f"weight is {weight.dtype} {weight.shape}")
    except (EOFError, OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
        raise BackendError(
            f"{artefact}: is not an artefact of the null backend ({error})",
            "write it with numpy.savez(path, weight=..., bias=..., shape=...)",
        ) from error
    return NullSession(weight, bias, tuple(int(side) for side in shape))


class NullSession:
    """A loaded linear map; see ``core.backend.Session``."""

    def __init__(self, weight: Any, bias: Any, shape: Any) -> None:
        """Use ``load``; this only keeps the arrays."""
        self._weight, self._bias = weight, bias
        self.inputs = (TensorSpec("images", (-1, *shape), "float32"),)
        self.outputs = (TensorSpec("logits", (-1, len(bias)), "float32"),)
        self.active: Dict[str, Any] = {"provider": "numpy", "precision": "fp32"}

    def run(self, feed: Mapping[str, Any]) -> Dict[str, Any]:
        """Apply the map to ``images``, float32 (N, 3, H, W)."""
        images = feed["images"]
        return {"logits": images.reshape(len(images), -1) @ self._weight.T + self._bias}

    def stream(self) -> NullSession:
        """Return itself: numpy keeps nothing between calls."""
        return self

    def close(self) -> None:
        """Do nothing: numpy frees its arrays itself."""
