"""One pair of the literature's CIFAR-100 benchmark: train its teacher, then distil its student.

    python examples/cifar100_kd/run.py resnet32x4-resnet8x4 [--loss kd|dkd|dist] [--print]

Both commands are printed as they would be typed, and a training that is done is not done again: a
teacher serves all its students. Options that are not known here go to ``edgexfer distill``, such as
``--control --seeds 3``.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """A teacher and its student.

    Attributes:
        teacher: its architecture.
        student: its architecture.
        beta: weight of DKD's second half: the configuration that its authors published for the
            pair, or for resnet110-resnet20, which has none, that of resnet110-resnet32.
    """

    teacher: str
    student: str
    beta: float


PAIRS = {
    "resnet56-resnet20": Pair("resnet56", "resnet20", 2),
    "resnet110-resnet20": Pair("resnet110", "resnet20", 2),
    "resnet110-resnet32": Pair("resnet110", "resnet32", 2),
    "resnet32x4-resnet8x4": Pair("resnet32x4", "resnet8x4", 8),
    "wrn_40_2-wrn_16_2": Pair("wrn_40_2", "wrn_16_2", 6),
    "wrn_40_2-wrn_40_1": Pair("wrn_40_2", "wrn_40_1", 6),
    "vgg13-vgg8": Pair("vgg13_cifar", "vgg8", 6),
    "vgg13-mobilenetv2": Pair("vgg13_cifar", "mobilenetv2_half", 6),
    "resnet50-mobilenetv2": Pair("resnet50_cifar", "mobilenetv2_half", 8),
    "resnet32x4-shufflenetv1": Pair("resnet32x4", "shufflenetv1", 8),
    "resnet32x4-shufflenetv2": Pair("resnet32x4", "shufflenetv2", 8),
    "wrn_40_2-shufflenetv1": Pair("wrn_40_2", "shufflenetv1", 8),
}
LOSSES = ("kd", "dkd", "dist")

# The schedule of Tian et al. 2020, which all later papers keep. The benchmark has no val images;
# two of a hundred are kept from training to check the teacher with.
SCHEDULE = (
    "--val 0.02 --epochs 240 --batch-size 64 --optimizer sgd --no-nesterov --weight-decay 5e-4 "
    "--decay-all --warmup 0 --schedule step --milestones 150,180,210 --augment flip"
)
RATES = {"mobilenetv2_half": "0.01", "shufflenetv1": "0.01", "shufflenetv2": "0.01"}
RATE = "0.05"
# Of two options of the same name the last one counts.
SMOKE = "--size 16 --val 0.2 --limit 200 --epochs 8 --milestones 6 --batch-size 10 --lr 0.01"


def commands(
    pair: Pair, loss: str, data: str, runs: Path, *, smoke: bool = False
) -> tuple[list[str], list[str]]:
    """Return what is typed after ``edgexfer`` for the teacher and for the student.

    Args:
        pair: teacher and student.
        loss: one of ``LOSSES``.
        data: as ``edgexfer`` takes it.
        runs: folder of the runs.
        smoke: a few images and two epochs, to see that all works.
    """
    teacher, student = runs / pair.teacher, runs / f"{pair.teacher}-{pair.student}-{loss}"
    terms = {
        "kd": "--loss 0.9*kd --w-hard 0.1",
        "dkd": f"--loss 1*tckd+{pair.beta:g}*nckd --w-hard 1",
        "dist": "--loss 2*dist --w-hard 1",
    }
    schedule = f"{SCHEDULE} {SMOKE}" if smoke else SCHEDULE
    first = f"finetune --model {pair.teacher} --strategy scratch --lr {RATE} {schedule}"
    rate = RATES.get(pair.student, RATE)
    then = f"distill --student {pair.student} {terms[loss]} --temperature 4 --lr {rate} {schedule}"
    return (
        [*first.split(), "--data", data, "--out", str(teacher)],
        [*then.split(), "--data", data, "--teacher", str(teacher), "--out", str(student)],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both commands, or only print them; returns the exit code of the first that failed."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("pair", choices=PAIRS)
    parser.add_argument("--loss", choices=LOSSES, default="kd")
    parser.add_argument("--data", default="torchvision:CIFAR100")
    parser.add_argument("--runs", type=Path, default=Path("runs/cifar100_kd"))
    parser.add_argument("--smoke", action="store_true", help="a few images, two epochs")
    parser.add_argument("--print", dest="only_print", action="store_true", help="run nothing")
    options, more = parser.parse_known_args(arguments)
    pair, smoke = PAIRS[options.pair], options.smoke
    teacher, student = commands(pair, options.loss, options.data, options.runs, smoke=smoke)
    for command in (teacher, [*student, *more]):
        print("$ edgexfer", shlex.join(command), flush=True)
        if not options.only_print:
            done = subprocess.run([sys.executable, "-m", "edgexfer", *command], check=False)
            if done.returncode:
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
