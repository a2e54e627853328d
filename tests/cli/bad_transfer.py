"""Bad inputs of transfer: strategies whose data, options or weights cannot be."""

from __future__ import annotations

import shutil

from tests.cli.bad import Place, finetune
from tests.pictures import COLOURS, write_folder

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


# Without labels, or with few.


def _pretrain(p: Place, *more: str, data: str = "camera") -> list[str]:
    fixed = ["pretrain", "--data", str(p.here / data), "--model", "resnet8", "--size", "16"]
    return [*fixed, "--epochs", "1", "--precision", "fp32", *more, "--out", str(p.here / "out")]


def _cluster(p: Place, *more: str) -> list[str]:
    return ["cluster", "--data", str(p.pictures), *more, "--out", str(p.here / "out")]


def _fewshot(p: Place, *more: str) -> list[str]:
    return ["fewshot", "--data", str(p.pictures), "--model", str(p.run), *more]


def pretrain_on_nothing(p: Place) -> list[str]:
    return _pretrain(p)


def pretrain_on_no_images(p: Place) -> list[str]:
    (p.here / "camera").mkdir()
    return _pretrain(p)


def pretrain_on_one_image(p: Place) -> list[str]:
    p.own_pictures(cats=1)
    return _pretrain(p, data="pictures")


def pretrain_by_an_unknown_method(p: Place) -> list[str]:
    return _pretrain(p, "--method", "moco")


def pretrain_at_no_temperature(p: Place) -> list[str]:
    return _pretrain(p, "--temperature", "0")


def cluster_by_random_features(p: Place) -> list[str]:
    return _cluster(p, "--model", "resnet8")


def cluster_by_a_run_at_another_size(p: Place) -> list[str]:
    return _cluster(p, "--model", str(p.run), "--size", "32")


def cluster_into_more_than_there_are(p: Place) -> list[str]:
    return _cluster(p, "--model", str(p.run), "--clusters", "999")


def fewshot_with_more_than_there_are(p: Place) -> list[str]:
    return _fewshot(p, "--shots", "1,500")


def fewshot_in_words(p: Place) -> list[str]:
    return _fewshot(p, "--shots", "one,five")


def fewshot_of_one_class(p: Place) -> list[str]:
    return _fewshot(p, "--shots", "1", "--ways", "1")


def prototype_of_random_features(p: Place) -> list[str]:
    return finetune(p.pictures, "--strategy", "prototype", out=p.here / "out")


# What moves, and what holds it.


def _from_weights(p: Place, strategy: str, *options: str) -> list[str]:
    more = ["--strategy", strategy, "--weights", str(p.run / "model" / "weights.safetensors")]
    for option in options:
        more += ["--option", option]
    return finetune(p.pictures, *more, out=p.here / "out")


def gradual_that_never_thaws(p: Place) -> list[str]:
    return _from_weights(p, "gradual", "epochs_per_stage=1")


def lora_on_an_unknown_layer(p: Place) -> list[str]:
    return _from_weights(p, "lora", "targets=[layr2]")


def lora_on_a_norm(p: Place) -> list[str]:
    return _from_weights(p, "lora", "targets=[layer1.0.bn1]")


def lora_of_no_rank(p: Place) -> list[str]:
    return _from_weights(p, "lora", "rank=0")


def adapter_on_attention_that_is_not_there(p: Place) -> list[str]:
    return _from_weights(p, "adapter", "targets=[attention]")


def adapter_on_the_head(p: Place) -> list[str]:
    return _from_weights(p, "adapter", "targets=[fc]")


def bitfit_with_an_option(p: Place) -> list[str]:
    return _from_weights(p, "bitfit", "rank=4")


def probe_on_an_empty_split(p: Place) -> list[str]:
    root = p.here / "split"
    shutil.copytree(p.pictures, root / "train")
    for name in COLOURS:
        (root / "val" / name).mkdir(parents=True)
    weights = str(p.run / "model" / "weights.safetensors")
    more = ["--strategy", "probe", "--weights", weights]
    return finetune(root, *more, out=p.here / "out")


def probe_by_an_unknown_head(p: Place) -> list[str]:
    return _from_weights(p, "probe", "head=forest")


def probe_by_steps_with_c(p: Place) -> list[str]:
    return _from_weights(p, "probe", "head=trained", "c=1")


def l2sp_that_pushes_away(p: Place) -> list[str]:
    return _from_weights(p, "l2sp", "weight=-1")


def delta_of_a_stage_that_is_not_there(p: Place) -> list[str]:
    return _from_weights(p, "delta", "layers=[9]")


def bss_of_no_values(p: Place) -> list[str]:
    return _from_weights(p, "bss", "values=0")


# Advice.


def _advise(p: Place, *more: str) -> list[str]:
    return ["advise", "--data", str(p.pictures), *more]


def advise_source_missing(p: Place) -> list[str]:
    return _advise(p, "--source", str(p.here / "nowhere"))


def advise_source_is_no_run(p: Place) -> list[str]:
    return _advise(p, "--source", str(p.pictures))


def advise_source_without_an_architecture(p: Place) -> list[str]:
    file = shutil.copy(p.run / "model" / "weights.safetensors", p.here / "w.safetensors")
    return _advise(p, "--source", str(file))


def advise_source_of_another_architecture(p: Place) -> list[str]:
    return _advise(p, "--source", f"resnet20={p.run / 'model' / 'weights.safetensors'}")


def advise_source_twice(p: Place) -> list[str]:
    return _advise(p, "--source", str(p.run), "--source", str(p.run))


def advise_model_without_weights(p: Place) -> list[str]:
    return _advise(p, "--models", "resnet8")


def advise_source_data_without_a_source(p: Place) -> list[str]:
    return _advise(p, "--source-data", str(p.pictures))


def advise_source_data_without_images(p: Place) -> list[str]:
    (p.here / "old").mkdir()
    return _advise(p, "--source", str(p.run), "--source-data", str(p.here / "old"))


def advise_target_unknown(p: Place) -> list[str]:
    return _advise(p, "--target", "jetzon")


def advise_students_without_a_target(p: Place) -> list[str]:
    return _advise(p, "--students", "resnet8")


def advise_measured_on_an_engine(p: Place) -> list[str]:
    return _advise(p, "--target", "jetson", "--on", "local")


def advise_recipe_into_a_folder(p: Place) -> list[str]:
    return _advise(p, "--out", str(p.here))


def advise_recipe_over_another(p: Place) -> list[str]:
    (p.here / "recipe.yaml").write_text("mine")
    return _advise(p, "--out", str(p.here / "recipe.yaml"))


def advise_a_run_at_another_size(p: Place) -> list[str]:
    return _advise(p, "--source", str(p.run), "--size", "32")


def cluster_over_something_else(p: Place) -> list[str]:
    (p.here / "clusters").mkdir()
    (p.here / "clusters" / "clusters.csv").write_text("mine")
    argv = ["cluster", "--data", str(p.pictures), "--model", str(p.run)]
    return [*argv, "--out", str(p.here / "clusters")]


def curve_into_a_run(p: Place) -> list[str]:
    argv = ["curve", "--data", str(p.pictures), "--model", "resnet8", "--size", "16"]
    return [*argv, "--out", str(p.run)]


def advise_few_images(p: Place) -> list[str]:
    return _advise(p, "--images", "3")


# Several tasks.


def _tasks(p: Place, table: str, *more: str) -> list[str]:
    place = p.here / "labels.csv"
    place.write_text(table, encoding="utf-8")
    return finetune(p.pictures, "--labels", str(place), *more, out=p.here / "out")


def _rows(p: Place, *cells: str) -> str:
    """Return a table that gives the pictures these cells in turn."""
    names = sorted(f.relative_to(p.pictures).as_posix() for f in p.pictures.rglob("*.png"))
    rows = [f"{name},{cells[i % len(cells)]}" for i, name in enumerate(names)]
    return "\n".join(["image,a,b", *rows])


def labels_missing(p: Place) -> list[str]:
    more = ("--labels", str(p.here / "labels.csv"))
    return finetune(p.pictures, *more, out=p.here / "out")


def labels_without_the_image_column(p: Place) -> list[str]:
    return _tasks(p, "file,a\nred/00.png,x\n")


def labels_with_a_column_that_names_nothing(p: Place) -> list[str]:
    return _tasks(p, "image,a b\nred/00.png,x\n")


def labels_with_an_image_twice(p: Place) -> list[str]:
    return _tasks(p, "image,a\nred/00.png,x\nred/00.png,y\n")


def labels_with_a_short_row(p: Place) -> list[str]:
    return _tasks(p, "image,a,b\n\nred/00.png,x\n")


def labels_of_an_unknown_image(p: Place) -> list[str]:
    return _tasks(p, _rows(p, "x,u", "y,v") + "\nred/99.png,x,u\n")


def labels_of_one_class(p: Place) -> list[str]:
    return _tasks(p, _rows(p, "x,u", "y,u"))


def labels_without_a_label(p: Place) -> list[str]:
    return _tasks(p, _rows(p, "x,", "y,"))


def labels_with_too_many_weights(p: Place) -> list[str]:
    return _tasks(p, _rows(p, "x,u", "y,v"), "--task-weights", "1,2,3", "--strategy", "scratch")


def labels_that_training_images_lack_for_a_probe(p: Place) -> list[str]:
    weights = p.run / "model" / "weights.safetensors"
    more = ("--strategy", "probe", "--weights", str(weights), "--train-limit", "5")
    return _tasks(p, _rows(p, "x,u", "y,v", *["x,", "y,"] * 5), *more)


def labels_for_advice_without_a_task(p: Place) -> list[str]:
    _tasks(p, _rows(p, "x,u", "y,v"))
    return _advise(p, "--labels", str(p.here / "labels.csv"))


def labels_for_a_curve_of_a_task_that_is_not_there(p: Place) -> list[str]:
    words = _tasks(p, _rows(p, "x,u", "y,v"), "--strategy", "scratch")
    return ["curve", *words[1:], "--task", "c"]
