"""One process that joins the others twice, started by torchrun: FOLDER."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from edgexfer.training.distributed import joined


def main(folder: Path) -> None:
    for turn in ("first", "second"):
        with joined(timeout_s=30) as here:
            assert here.share(here.rank) == 0
            if here.leader:
                time.sleep(1)
                (folder / turn).write_text("done")
        assert (folder / turn).is_file(), f"rank {here.rank} went on before the leader was done"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
