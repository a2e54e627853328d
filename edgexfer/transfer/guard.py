"""The guard against negative transfer: the same model on the same budget, without what it inherits.

::

    OUT/                     the model that was asked for
    OUT-guard/ARM/seed-S/    further seeds of it, and of ``scratch`` and ``probe``
    OUT-guard/sweep.json     what they came to, with intervals; of several tasks, in each as well

``scratch`` says whether the source weights help at all, ``probe`` what they know as they are
(Wang et al., "Characterizing and Avoiding Negative Transfer", CVPR 2019, define negative transfer
as a loss against the same learner without the source). Each is an ordinary run, done once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgexfer.core.errors import GateError, RecipeError
from edgexfer.core.files import PathLike, make_dir
from edgexfer.core.rundir import RunInfo
from edgexfer.core.sweep import SCRATCH, Sweep, write_sweep
from edgexfer.models.head import head_names
from edgexfer.recipe import DataSection, ModelSection, TeacherSection
from edgexfer.training.stage import build_model, open_data
from edgexfer.training.sweeps import Training, beside, summarise
from edgexfer.transfer.finetune import finetune
from edgexfer.transfer.probe import is_linear

PROBE = "probe"


def finetune_all(
    data: DataSection, teacher: TeacherSection, out: PathLike
) -> tuple[RunInfo, Sweep | None]:
    """Fine-tune, and, where the section asks for the guard, train what it is compared with.

    Args:
        data: the images.
        teacher: what is trained; ``guard`` and ``seeds`` say what beside it.
        out: folder of the run.

    Returns:
        What the run says of itself, and the comparison; ``None`` without the guard.

    Raises:
        RecipeError: there is nothing to guard against: the model starts from random weights.
        EdgexferError: as ``finetune`` raises it; what was trained before is kept.
    """
    if not teacher.guard:
        if teacher.seeds > 1:
            raise RecipeError(
                f"teacher.seeds is {teacher.seeds}, but there is nothing to compare",
                "add --guard, or leave out --seeds",
            )
        return finetune(data, teacher, out), None
    if not (teacher.model.pretrained or teacher.model.weights):
        raise RecipeError(
            "teacher.guard is set, but nothing is transferred: the first weights are random",
            "add --pretrained or --weights FILE, or leave out --guard",
        )
    here = Path(out)
    folder = beside(here, "guard")
    infos: dict[Training, RunInfo] = {}
    first, arms = teacher.train.seed, _arms(data, teacher)
    # Seed by seed, so that an interrupted guard has whole comparisons.
    for seed in range(first, first + teacher.seeds):
        for arm, section in arms.items():
            place = folder / arm / f"seed-{seed}"
            training = Training(
                arm, seed, here if (arm, seed) == (teacher.strategy, first) else place
            )
            train = replace(section.train, seed=seed)
            infos[training] = finetune(data, replace(section, train=train), training.place)
    info = next(iter(infos.values()))
    # One of several processes of a training has no results; the leader speaks for all.
    if not all(each.result for each in infos.values()):
        return info, None
    sweep = summarise(folder, infos, teacher.model.name, SCRATCH)
    write_sweep(make_dir(folder), sweep)
    return info, sweep


def refuse_harm(sweep: Sweep | None, out: PathLike) -> None:
    """Stop where the source weights are shown to hurt.

    Raises:
        GateError: the strategy is worse than the same model from scratch, beyond the interval; of
            several tasks in all together or in any of them.
    """
    if sweep is None:
        return
    ours = [(arm, arm.gain) for arm in sweep.arms if arm.name == sweep.arms[0].name]
    hurt = [(arm, gain) for arm, gain in ours if gain is not None and gain.verdict == "hurts"]
    if not hurt:
        return
    arm, gain = hurt[0]
    where = f" in task {arm.task}" if arm.task is not None else ""
    raise GateError(
        f"{out}: negative transfer: {arm.name} is {-gain.gain_pt:.2f} points below the same model "
        f"from scratch{where} (95 % interval {-gain.high_pt:.2f} to {-gain.low_pt:.2f})",
        f"use {beside(Path(out), 'guard') / SCRATCH}, other source weights, or a larger "
        "train.backbone_lr; `edgexfer advise` compares sources, and by --source-data says how far "
        "their pictures are",
    )


def _arms(data: DataSection, teacher: TeacherSection) -> dict[str, TeacherSection]:
    """Return the strategy itself, a probe where it is none, and the same model from scratch."""
    alone = replace(teacher, guard=False, seeds=1)
    without = replace(alone.model, weights=None, pretrained=False)
    # A rate below 1 protects what was learned before; there is nothing of the kind.
    train = replace(alone.train, backbone_lr=1.0, layer_decay=1.0)
    options = {} if _has_closed_form(data, without) else {"head": "trained"}
    return {
        teacher.strategy: alone,
        PROBE: replace(alone, strategy=PROBE, strategy_options=options)
        if teacher.strategy != PROBE
        else alone,
        SCRATCH: replace(alone, strategy=SCRATCH, strategy_options={}, model=without, train=train),
    }


def _has_closed_form(data: DataSection, model: ModelSection) -> bool:
    """Whether a probe can be fitted, rather than trained by steps.

    It is known of one linear layer, whose C is chosen on val images; and a class of one of several
    tasks may be without a label among the training images.
    """
    dataset = open_data(data)
    if dataset.tasks or not len(dataset.splits["val"]):
        return False
    bare = build_model(model, 2, 0).model
    return all(is_linear(bare.get_submodule(name)) for name in head_names(bare))
