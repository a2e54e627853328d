"""Bad inputs of transfer: strategies whose data, options or weights cannot be."""

from __future__ import annotations

import shutil

from tests.cli.bad import Place, finetune
from tests.pictures import write_folder

# Adapting to images without labels.


def _adapt(p: Place, *more: str, strategy: str = "mmd") -> list[str]:
    return finetune(p.pictures, "--strategy", strategy, *more, out=p.here / "out")


def adapt_without_a_target(p: Place) -> list[str]:
    return _adapt(p, strategy="dann")


def adapt_target_missing(p: Place) -> list[str]:
    return _adapt(p, "--unlabelled", str(p.here / "camera"))


def adapt_target_without_images(p: Place) -> list[str]:
    (p.here / "camera").mkdir()
    return _adapt(p, "--unlabelled", str(p.here / "camera"), strategy="coral")


def adapt_target_within_the_source(p: Place) -> list[str]:
    return _adapt(p, "--unlabelled", str(p.pictures / "red"), strategy="pseudo")


def adapt_target_of_test_images(p: Place) -> list[str]:
    source = p.here / "split"
    for split in ("train", "test"):
        shutil.copytree(p.pictures, source / split)
    shutil.copytree(source / "test", p.here / "camera")
    more = ("--strategy", "mmd", "--unlabelled", str(p.here / "camera"))
    return finetune(source, *more, out=p.here / "out")


def adapt_mixed_images(p: Place) -> list[str]:
    return _adapt(p, "--unlabelled", _camera(p), "--mixup", "0.2")


def adapt_odd_batch(p: Place) -> list[str]:
    return _adapt(p, "--unlabelled", _camera(p), "--batch-size", "7")


def adapt_threshold_above_one(p: Place) -> list[str]:
    more = ("--unlabelled", _camera(p), "--option", "threshold=95")
    return _adapt(p, *more, strategy="pseudo")


def adapt_option_of_another_strategy(p: Place) -> list[str]:
    more = ("--unlabelled", _camera(p), "--option", "kernel=3")
    return _adapt(p, *more)


def _camera(p: Place) -> str:
    """Return a folder of other pictures."""
    colours = {"night": (20, 20, 40), "noon": (240, 230, 180)}
    return str(write_folder(p.here / "camera", 4, colours))
