"""edgexfer: distil, quantize and prove vision models on edge devices.

::

    import edgexfer

    edgexfer.finetune("photos/", "resnet50", "runs/teacher")
    edgexfer.distill("photos/", "runs/teacher", "mobilenetv4_conv_small", "runs/student")
    edgexfer.export("runs/student", ["x86-openvino", "jetson"], "bundle")
    edgexfer.bench("bundle", "bench")
    edgexfer.load_bundle("bundle").predict("photo.jpg")

Names are resolved on first use, so that the import costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import inspect

    from edgexfer.advise.advice import Wishes
    from edgexfer.api import (
        advise,
        audit,
        bench,
        check_data,
        cluster,
        compare,
        curve,
        distill,
        evaluate,
        export,
        fewshot,
        finetune,
        load_bundle,
        pretrain,
        report,
        run,
        verify,
    )
    from edgexfer.recipe import (
        BenchSection,
        DataSection,
        ExportSection,
        ModelSection,
        PretrainSection,
        Recipe,
        StudentSection,
        TeacherSection,
        TrainSection,
        load_recipe,
    )

__version__ = "0.1.0"

__all__ = [
    "BenchSection",
    "DataSection",
    "ExportSection",
    "ModelSection",
    "PretrainSection",
    "Recipe",
    "StudentSection",
    "TeacherSection",
    "TrainSection",
    "Wishes",
    "advise",
    "audit",
    "bench",
    "check_data",
    "cluster",
    "compare",
    "curve",
    "distill",
    "evaluate",
    "export",
    "fewshot",
    "finetune",
    "load_bundle",
    "load_recipe",
    "pretrain",
    "report",
    "run",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Resolve a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'edgexfer' has no attribute {name!r}")
    if name == "Wishes":
        room = "edgexfer.advise.advice"
    elif name[0].isupper() or name == "load_recipe":
        room = "edgexfer.recipe"
    else:
        room = "edgexfer.api"
    return getattr(importlib.import_module(room), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*__all__, "__version__"])


class _Room(ModuleType):
    """A room that shares its name with a verb (``edgexfer.export``); calling it is the verb."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._verb()(*args, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        import inspect

        return inspect.signature(self._verb())

    def _verb(self) -> Any:
        api = importlib.import_module("edgexfer.api")
        return getattr(api, self.__name__.rpartition(".")[2])


class _Package(ModuleType):
    """Lets importing a room not hide the verb of the same name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and name in __all__:
            value.__class__ = _Room
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
