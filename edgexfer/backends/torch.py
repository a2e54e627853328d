"""PyTorch as the eager reference: a ``torch.export`` program, run in FP32 by torch alone.

The architecture's Python code is not needed, only torch. A ``.pt2`` file can hold pickles, which
torch unpickles without asking; such files are refused here before torch sees them. The program
itself is still interpreted by torch, so load programs only from bundles whose maker you trust.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from edgexfer.core.backend import Plan, TensorSpec, check_plan
from edgexfer.core.errors import BackendError, first_line

NAME = "torch"
OPTIONS: Dict[str, str] = {}
PRECISIONS = ("fp32",)


def unavailable() -> Optional[str]:
    """Say why torch cannot be used here, ``None`` when it can."""
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        return f"torch cannot be imported ({error})"
    return None


def versions() -> Dict[str, str]:
    """Return torch's version."""
    import torch

    return {"torch": str(torch.__version__)}


def compile(model: Path, out: Path, plan: Plan) -> Path:  # noqa: ARG001
    """Return ``model``: the program is loaded as it is."""
    return model


def load(artefact: Path, plan: Plan) -> TorchSession:
    """Load a ``torch.export`` program on the CPU.

    The number of threads is the process's own, so that the last session loaded decides it.

    Raises:
        BackendError: the file is no such program, holds pickles, or the plan asks for another
            device than ``CPU``.
    """
    check_plan(NAME, plan, PRECISIONS, OPTIONS)
    if plan.device != "CPU":
        raise BackendError(f"backend {NAME}: no device {plan.device!r}", "choose device CPU")
    import torch

    try:
        content = artefact.read_bytes()
        _refuse_pickles(artefact, content)
        program = torch.export.load(io.BytesIO(content))
    except BackendError:
        raise
    except Exception as error:  # torch raises what its readers raise, of many classes
        raise BackendError(
            f"{artefact}: torch cannot load it ({first_line(error, 160)})",
            "write it with torch.export.save, by this version of torch or an older one",
        ) from error
    if plan.threads:
        torch.set_num_threads(plan.threads)
    return TorchSession(program)


class TorchSession:
    """A loaded program; see ``core.backend.Session``."""

    def __init__(self, program: Any) -> None:
        """Use ``load``; this keeps the program's module and its names."""
        import torch

        self._torch = torch
        self._module = program.module()
        signature = program.graph_signature
        nodes = {node.name: node for node in program.graph.nodes}
        self.inputs = tuple(_spec(nodes[name]) for name in signature.user_inputs)
        self.outputs = tuple(_spec(nodes[name]) for name in signature.user_outputs)
        self.active: Dict[str, Any] = {
            "provider": "torch eager, CPU",
            "precision": "fp32",
            "threads": torch.get_num_threads(),
        }

    def run(self, feed: Mapping[str, Any]) -> Dict[str, Any]:
        """Run once, without gradients."""
        try:
            with self._torch.inference_mode():
                args = [self._torch.from_numpy(feed[spec.name]) for spec in self.inputs]
                result = self._module(*args)
        except (RuntimeError, AssertionError, KeyError, TypeError) as error:
            raise BackendError(
                f"torch stopped in a run ({first_line(error, 160)})",
                "check names, shapes and types of what is fed",
            ) from error
        outputs = result if isinstance(result, (tuple, list)) else (result,)
        return {spec.name: value.numpy() for spec, value in zip(self.outputs, outputs)}

    def stream(self) -> TorchSession:
        """Return itself: a module in inference mode may be called from several threads."""
        return self

    def close(self) -> None:
        """Drop the module and its weights."""
        self._module = None


def _refuse_pickles(artefact: Path, content: bytes) -> None:
    """Refuse an archive with anything in it that ``torch.export.load`` would unpickle.

    Weights are raw bytes described by JSON; what that JSON calls pickled, or any other object among
    the constants, is refused. Example inputs must pass torch's restricted unpickler, since torch
    falls back to the unrestricted one where they do not.
    """
    import torch

    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise BackendError(f"{artefact}: is not a torch.export program (not a zip)", _MEND)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise BackendError(f"{artefact}: holds two entries of one name", _MEND)
        for name in names:
            if name.endswith("_config.json"):
                entries = json.loads(archive.read(name))["config"].values()
                good = all(not e["use_pickle"] and _is_tensor(e["path_name"]) for e in entries)
            elif "/sample_inputs/" in name:
                good = _loads_restricted(torch, archive.read(name))
            else:
                good = not name.endswith((".pt", ".pkl"))
            if not good:
                raise BackendError(f"{artefact}: holds pickled objects ({name})", _MEND)


_MEND = "write it with torch.export.save from a model whose weights are plain tensors"


def _is_tensor(path_name: str) -> bool:
    return path_name.startswith(("weight_", "tensor_"))


def _loads_restricted(torch: Any, content: bytes) -> bool:
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except Exception:  # whatever stops the restricted unpickler is a reason to refuse
        return False
    return True


def _spec(node: Any) -> TensorSpec:
    value = node.meta["val"]
    shape = tuple(side if isinstance(side, int) else -1 for side in value.shape)
    return TensorSpec(node.name, shape, str(value.dtype).replace("torch.", ""))
