"""``bench_bundle``: measure a bundle's artefacts on a machine and file the records.

What one process does lives in ``bench.job``, order and records in ``bench.suite``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from edgexfer.bench.child import JOB_LIMIT_S, result_of
from edgexfer.bench.job import Job, Result
from edgexfer.bench.suite import Settings, run_suite
from edgexfer.bench.targets import artefacts_for
from edgexfer.core.bundle import verify_files
from edgexfer.core.codec import encode
from edgexfer.core.errors import Interrupted
from edgexfer.core.files import make_dir, write_json
from edgexfer.core.progress import Progress
from edgexfer.core.record import write_record
from edgexfer.recipe import BenchSection
from edgexfer.remote.pack import pack_device_side
from edgexfer.remote.transport import Local, Transport, checked

PROBE_LIMIT_S = 60.0


def bench_bundle(
    bundle: Path,
    *,
    targets: Sequence[str] | None,
    section: BenchSection,
    out: Path,
    progress: Progress | None = None,
    transport: Callable[[Path], Transport] = Local,
) -> list[Path]:
    """Measure artefacts in fresh processes that interleave, and write one record for each.

    Args:
        bundle: a sealed bundle.
        targets: profiles by name or alias; ``None`` takes all that are for the machine.
        section: how long and how often.
        out: folder for the records, ``ARTEFACT.json`` each; a record is written as soon as it is
            complete, and an older one of the same name is replaced.
        progress: counts processes.
        transport: makes the way to the machine, given a folder for scratch files.

    Returns:
        The records' paths, in the bundle's order; one that failed has a record that says so.

    Raises:
        BundleError: the bundle is damaged, or a target is not in it.
        BackendError: nothing in it is for the machine, or the device side does not run there.
        Interrupted: by Ctrl-C; records that were complete are kept.
    """
    manifest = verify_files(bundle)
    with tempfile.TemporaryDirectory(prefix="edgexfer-") as scratch:
        way = transport(Path(scratch))
        program = [*way.python, way.push(pack_device_side(Path(scratch) / "edgexfer.pyz"))]
        facts = json.loads(checked(way.run([*program, "facts"], timeout_s=PROBE_LIMIT_S), way))
        artefacts = artefacts_for(bundle, manifest, targets, facts["machine"])
        folder = make_dir(out)
        place = way.push(bundle)

        def execute(job: Job) -> Result:
            result = _do(way, program, replace(job, bundle=place), Path(scratch))
            if progress is not None:
                progress.update(note=job.artefact)
            return result

        settings = Settings(
            section.processes, section.seconds, section.samples, section.threads, section.seed
        )
        written = {}
        try:
            for artefact, record in run_suite(bundle, manifest, artefacts, settings, execute):
                written[artefact.name] = folder / f"{artefact.name}.json"
                write_record(written[artefact.name], record)
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"bench: interrupted; {len(written)} of {len(artefacts)} records are in {folder}",
                "run the same command again",
            ) from error
    return [written[artefact.name] for artefact in artefacts]


def _do(way: Transport, program: Sequence[str], job: Job, scratch: Path) -> Result:
    """Do one job at the end of a transport, in a process of its own."""
    asked, answer = scratch / f"job-{job.order}.json", scratch / f"result-{job.order}.json"
    write_json(asked, encode(job))
    place = way.scratch(answer.name)
    argv = [*program, "bench", way.push(asked), "--out", place]
    done = way.run(argv, timeout_s=JOB_LIMIT_S)
    way.pull(place, answer)
    return result_of(job, done, answer, JOB_LIMIT_S)
