"""``python -m edgexfer`` is the command line, so that ``torchrun -m edgexfer`` works too."""

from edgexfer.cli import main

main()
