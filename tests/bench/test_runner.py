"""A runner whose disk is full; its other ways to end are tested over ssh."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

# In a process of its own, as a runner is forked off.
SCRIPT = """
import os, sys
from pathlib import Path
from edgexfer.bench.runner import _detach
folder = Path(sys.argv[1])
endless = [sys.executable, "-c", "import time; time.sleep(600)", sys.argv[1]]
_detach(folder, endless, 600.0, os.open(os.devnull, os.O_RDONLY))
"""


def _commands() -> list[bytes]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(place.read_bytes())
        except OSError:  # it has ended meanwhile
            continue
    return found


def test_a_job_that_cannot_be_noted_down_is_ended_and_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "sessions/one/jobs/job"
    (folder / "state.json").mkdir(parents=True)  # so that it cannot be written
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(folder)], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads((folder / "end.json").read_text()) == {"code": 127}
    assert "state.json: cannot be written" in (folder / "stderr").read_text()
    assert not [command for command in _commands() if str(folder).encode() in command]
