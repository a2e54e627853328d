"""From a few hundred pictures to a device: each command is printed, then run.

    python examples/transfer/walk/walk.py PICTURES MANY OUT [--epochs 10]

PICTURES holds the few, one folder per class; MANY holds many of other things, which a source model
learns first. The trainings in OUT that are done are not made again.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from edgexfer.cli import run

# No more than a few hundred are learned from, and a thousand tested with, also of a large folder.
FEW = "--data {pictures} --limit 1000 --train-limit 300"
COMMANDS = """
finetune --data {many} --limit 3000 --model resnet14 --strategy scratch
    --epochs {source_epochs} --batch-size 64 --lr 3e-3 --out {out}/source
advise {few} --source {out}/source --source-data {many}
    --target x86-onnxruntime --students resnet8,resnet20 --out {out}/advice.yaml
finetune {few} --model resnet14 --weights {out}/source --strategy gradual --guard
    --epochs {epochs} --batch-size 32 --lr 2e-3 --out {out}/teacher
distill {few} --teacher {out}/teacher --student resnet8 --control
    --epochs {student_epochs} --batch-size 32 --lr 3e-3 --out {out}/student
export {out}/student --target x86-onnxruntime,jetson --max-drop 5 --out {out}/bundle
bench {out}/bundle --processes 3 --seconds 1 --out {out}/bench
report {out}/teacher {out}/student {out}/bundle {out}/bench -o {out}/report.html
"""


def main() -> None:
    """Walk; the first command that fails ends it, the guard's among them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("many", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=10, help="of the teacher")
    given = parser.parse_args()
    places = {name: shlex.quote(str(getattr(given, name))) for name in ("pictures", "many", "out")}
    epochs = {
        "source_epochs": max(1, given.epochs // 2),
        "epochs": given.epochs,
        "student_epochs": 2 * given.epochs,
    }
    for command in COMMANDS.replace("\n    ", " ").strip().splitlines():
        line = command.format(few=FEW.format(**places), **places, **epochs)
        print(f"\n$ edgexfer {line}", flush=True)
        code = run(shlex.split(line))
        if code:
            sys.exit(code)


if __name__ == "__main__":
    main()
