"""Bad inputs as functions: each spoils something in a folder and returns the command to type.

The table that names what must come of them is in ``test_bad_inputs.py``.
"""

from __future__ import annotations

import io
import pickle
import shutil
import struct
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.pictures import COLOURS, picture, write_folder

RECIPE = """\
name: good
data: {path: pictures}
student:
  model: {name: resnet8, size: 16}
"""


#: How the good run was trained, beyond what ``finetune`` fixes.
AS_TRAINED = ("--augment", "none", "--batch-size", "16", "--epochs", "6")


@dataclass(frozen=True)
class Place:
    """What a case may use: an empty folder of its own, and good things to copy.

    Attributes:
        here: empty.
        pictures: a good data set.
        run: a finished run on it.
        bundle: the run's bundle.
    """

    here: Path
    pictures: Path
    run: Path
    bundle: Path

    def own_pictures(self, **classes: int) -> Path:
        """Write a data set with so many pictures in each class."""
        root = self.here / "pictures"
        root.mkdir()
        for i, (name, count) in enumerate(classes.items()):
            (root / name).mkdir()
            for j in range(count):
                colour = list(COLOURS.values())[i % 3]
                picture(colour, seed=1000 * i + j).save(root / name / f"{j:02d}.png")
        return root

    def own_bundle(self) -> Path:
        """Copy the bundle, to be spoilt."""
        return Path(shutil.copytree(self.bundle, self.here / "bundle"))

    def own_run(self) -> Path:
        """Copy the run, to be spoilt."""
        return Path(shutil.copytree(self.run, self.here / "run"))


def finetune(data: object, *more: str, out: object = "out", model: str = "resnet8") -> list[str]:
    """Return a command that would train quickly if nothing were wrong."""
    fixed = ["finetune", "--data", str(data), "--model", model, "--out", str(out)]
    return [*fixed, "--size", "16", "--epochs", "1", "--precision", "fp32", *more]


# Data.


def data_missing(p: Place) -> list[str]:
    return finetune(p.here / "nowhere", out=p.here / "out")


def data_empty(p: Place) -> list[str]:
    return finetune(p.own_pictures(), out=p.here / "out")


def data_one_class(p: Place) -> list[str]:
    return finetune(p.own_pictures(cats=9), out=p.here / "out")


def data_empty_class(p: Place) -> list[str]:
    return finetune(p.own_pictures(cats=9, dogs=9, emus=0), out=p.here / "out")


def data_one_image(p: Place) -> list[str]:
    return finetune(p.own_pictures(cats=9, dogs=9, emus=1), out=p.here / "out")


def data_case_only(p: Place) -> list[str]:
    return finetune(p.own_pictures(cats=9, Cats=9), out=p.here / "out")


def data_class_only_in_val(p: Place) -> list[str]:
    root = p.here / "split"
    write_folder(root / "train", 8)
    write_folder(root / "val", 3, {**COLOURS, "mauve": (200, 120, 200)})
    return finetune(root, out=p.here / "out")


def data_corrupt_val(p: Place) -> list[str]:
    root = p.here / "split"
    write_folder(root / "train", 8)
    write_folder(root / "val", 3)
    victim = root / "val" / "red" / "00.png"
    victim.write_bytes(victim.read_bytes()[:60])
    return finetune(root, out=p.here / "out")


def data_bomb(p: Place) -> list[str]:
    root = write_folder(p.here / "split", 8)
    (root / "red" / "00.png").write_bytes(_png_header(60_000, 60_000))
    return finetune(root, out=p.here / "out")


def data_text_as_image(p: Place) -> list[str]:
    root = write_folder(p.here / "split", 8)
    for file in (root / "red").iterdir():
        file.write_text("<html>not found</html>")
    return finetune(root, out=p.here / "out")


def data_truncated_tar(p: Place) -> list[str]:
    whole = p.here / "whole.tar.gz"
    with tarfile.open(whole, "w:gz") as archive:
        archive.add(p.pictures, "pictures")
    place = p.here / "cut.tar.gz"
    place.write_bytes(whole.read_bytes()[:2000])
    return finetune(place, out=p.here / "out")


def data_tar_climbs(p: Place) -> list[str]:
    place = p.here / "climbs.tar"
    with tarfile.open(place, "w") as archive:
        info = tarfile.TarInfo("../red/00.png")
        archive.addfile(info, io.BytesIO())
    return finetune(place, out=p.here / "out")


def data_torchvision_unknown(p: Place) -> list[str]:
    return finetune("torchvision:CIFAR11", out=p.here / "out")


def data_is_a_file(p: Place) -> list[str]:
    place = p.here / "photos.zip"
    place.write_bytes(b"PK")
    return finetune(place, out=p.here / "out")


# Models and weights.


def model_unknown(p: Place) -> list[str]:
    return finetune(p.pictures, out=p.here / "out", model="resnt20")


def model_pretrained_offline(p: Place) -> list[str]:
    return finetune(p.pictures, "--pretrained", out=p.here / "out", model="resnet18")


def weights_missing(p: Place) -> list[str]:
    return finetune(p.pictures, "--weights", str(p.here / "no.safetensors"), out=p.here / "out")


def weights_empty(p: Place) -> list[str]:
    return _with_weights(p, "empty.safetensors", b"")


def weights_text(p: Place) -> list[str]:
    return _with_weights(p, "text.safetensors", b"not weights at all, only words and words")


def weights_truncated(p: Place) -> list[str]:
    whole = (p.run / "model" / "weights.safetensors").read_bytes()
    return _with_weights(p, "cut.safetensors", whole[: len(whole) // 2])


def weights_pickle(p: Place) -> list[str]:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (p.here / "executed",)

    return _with_weights(p, "evil.pth", pickle.dumps({"state_dict": Evil()}))


def weights_of_another_model(p: Place) -> list[str]:
    place = p.run / "model" / "weights.safetensors"
    return finetune(p.pictures, "--weights", str(place), out=p.here / "out", model="resnet20")


def strategy_unknown(p: Place) -> list[str]:
    return finetune(p.pictures, "--strategy", "ful", out=p.here / "out")


def strategy_without_weights(p: Place) -> list[str]:
    return finetune(p.pictures, "--strategy", "probe", out=p.here / "out")


def strategy_scratch_with_weights(p: Place) -> list[str]:
    weights = str(p.run / "model" / "weights.safetensors")
    more = ["--strategy", "scratch", "--weights", weights]
    return finetune(p.pictures, *more, out=p.here / "out")


def layer_unknown(p: Place) -> list[str]:
    weights = str(p.run / "model" / "weights.safetensors")
    more = ["--strategy", "freeze", "--option", "until=layer9", "--weights", weights]
    return finetune(p.pictures, *more, out=p.here / "out")


# Options and recipes.


def option_unknown(p: Place) -> list[str]:
    return finetune(p.pictures, "--epoch", "3", out=p.here / "out")


def option_out_of_range(p: Place) -> list[str]:
    return finetune(p.pictures, "--lr", "-1", out=p.here / "out")


def temperature_zero(p: Place) -> list[str]:
    return distill(p, "--temperature", "0")


def weight_negative(p: Place) -> list[str]:
    return distill(p, "--w-soft", "-0.5")


def weights_both_zero(p: Place) -> list[str]:
    return distill(p, "--w-soft", "0", "--w-hard", "0")


def loss_unknown(p: Place) -> list[str]:
    return distill(p, "--loss", "kl")


def recipe_missing(p: Place) -> list[str]:
    return ["run", str(p.here / "no.yaml")]


def recipe_wrong_key(p: Place) -> list[str]:
    return _recipe(p, RECIPE.replace("data: {path: pictures}", "data: {path: x, limt: 5}"))


def recipe_wrong_type(p: Place) -> list[str]:
    return _recipe(p, RECIPE + "  train: {epochs: many}\n")


def recipe_duplicate_key(p: Place) -> list[str]:
    return _recipe(p, RECIPE + "name: again\n")


def recipe_not_yaml(p: Place) -> list[str]:
    return _recipe(p, "name: [unclosed\ndata: x\n")


def recipe_alias_bomb(p: Place) -> list[str]:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 30)]
    return _recipe(p, "\n".join(lines))


def recipe_tag(p: Place) -> list[str]:
    return _recipe(p, 'name: !!python/object/apply:os.system ["true"]\n')


def recipe_sexagesimal(p: Place) -> list[str]:
    return _recipe(p, RECIPE + "  temperature: 22:22\n")


def recipe_bad_override(p: Place) -> list[str]:
    return [*_recipe(p, RECIPE), "--set", "student.train.epochs"]


def recipe_unknown_target(p: Place) -> list[str]:
    argv = _recipe(p, RECIPE)
    return [*argv, "--set", "export.targets=[jetsn]", "--out", str(p.here / "trip")]


def distill(p: Place, *more: str, teacher: object = None, data: object = None) -> list[str]:
    fixed = ["distill", "--data", str(data or p.pictures), "--teacher", str(teacher or p.run)]
    fixed += ["--student", "resnet8", "--out", str(p.here / "out")]
    return [*fixed, "--size", "16", "--epochs", "1", "--precision", "fp32", *more]


def _recipe(p: Place, text: str) -> list[str]:
    place = p.here / "recipe.yaml"
    place.write_text(text)
    return ["run", str(place)]


def _with_weights(p: Place, name: str, content: bytes) -> list[str]:
    (p.here / name).write_bytes(content)
    return finetune(p.pictures, "--weights", str(p.here / name), out=p.here / "out")


def _png_header(width: int, height: int) -> bytes:
    """Return a small PNG that claims to be huge."""
    stream = io.BytesIO()
    Image.new("RGB", (1, 1)).save(stream, "PNG")
    png = bytearray(stream.getvalue())
    png[16:24] = struct.pack(">II", width, height)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    return bytes(png)
