"""``bench_bundles``: measure the artefacts of bundles on a machine and file the records.

What one process does lives in ``bench.job``, order and records in ``bench.suite``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgexfer.bench.child import JOB_LIMIT_S, result_of
from edgexfer.bench.job import Job, Result
from edgexfer.bench.suite import Settings, Subject, refuse_inside, run_suite
from edgexfer.bench.targets import artefacts_for
from edgexfer.core.bundle import verify_files
from edgexfer.core.codec import encode
from edgexfer.core.errors import BundleError, Interrupted
from edgexfer.core.files import make_dir, write_json
from edgexfer.core.progress import Progress
from edgexfer.core.record import write_record
from edgexfer.recipe import BenchSection
from edgexfer.remote.pack import pack_device_side
from edgexfer.remote.transport import Local, Transport, checked

PROBE_LIMIT_S = 60.0


@dataclass(frozen=True)
class How:
    """How bundles are measured.

    Attributes:
        targets: profiles by name or alias; ``None`` takes all that are for the machine.
        section: how long and how often.
        progress: starts a display, such as the class ``Progress``; ``None`` shows nothing.
        transport: makes the way to the machine, given a folder for scratch files.
        accuracy: whether all evaluation images are run too, once per artefact.
    """

    targets: Sequence[str] | None
    section: BenchSection
    progress: Callable[[str, int, str], Progress] | None = None
    transport: Callable[[Path], Transport] = Local
    accuracy: bool = True


def bench_bundle(
    bundle: Path,
    *,
    targets: Sequence[str] | None,
    section: BenchSection,
    out: Path,
    progress: Callable[[str, int, str], Progress] | None = None,
) -> list[Path]:
    """Measure one bundle's artefacts on this machine; see ``How`` and ``bench_bundles``."""
    return bench_bundles([bundle], out, How(targets, section, progress))


def bench_bundles(bundles: Sequence[Path], out: Path, how: How) -> list[Path]:
    """Measure artefacts in fresh processes that interleave, and write one record for each.

    Artefacts of several bundles (a student's and its teacher's) interleave too, so that a drift of
    the machine's speed does not favour one of them.

    Args:
        bundles: sealed bundles.
        out: folder for the records, ``ARTEFACT.json`` each; a record is written as soon as it is
            complete, and an older one of the same name is replaced.
        how: targets, section, display, transport.

    Returns:
        The records' paths, in the bundles' order; one that failed has a record that says so.

    Raises:
        BundleError: a bundle is damaged, a target is not in it, or two artefacts have one name.
        BackendError: nothing in a bundle is for the machine, or the device side does not run there.
        InputError: ``out`` lies in one of the bundles.
        Interrupted: by Ctrl-C; records that were complete are kept.
    """
    refuse_inside(out, bundles)
    manifests = [verify_files(bundle) for bundle in bundles]
    with tempfile.TemporaryDirectory(prefix="edgexfer-") as scratch:
        way = how.transport(Path(scratch))
        program = [*way.python, way.push(pack_device_side(Path(scratch) / "edgexfer.pyz"))]
        facts = json.loads(checked(way.run([*program, "facts"], timeout_s=PROBE_LIMIT_S), way))
        subjects = [
            Subject(bundle, manifest, artefact)
            for bundle, manifest in zip(bundles, manifests, strict=True)
            for artefact in artefacts_for(bundle, manifest, how.targets, facts["machine"])
        ]
        _refuse_namesakes(subjects)
        folder = make_dir(out)
        places = {str(bundle): way.push(bundle) for bundle in bundles}

        def execute(job: Job) -> Result:
            result = _do(way, program, replace(job, bundle=places[job.bundle]), Path(scratch))
            display.update(1, job.artefact)
            return result

        written = {}
        start = how.progress or _quiet
        try:
            with start("bench", len(subjects) * how.section.processes, "process") as display:
                for subject, record in run_suite(subjects, _settings(how), execute):
                    path = folder / f"{subject.artefact.name}.json"
                    write_record(path, record)
                    written[subject.artefact.name] = path
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"bench: interrupted; the records that were complete are in {folder}",
                "run the same command again",
            ) from error
    return [written[subject.artefact.name] for subject in subjects]


def _refuse_namesakes(subjects: Sequence[Subject]) -> None:
    names = [subject.artefact.name for subject in subjects]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BundleError(
            f"bench: two bundles have an artefact {twice[0]}", "bench each into a folder of its own"
        )


def _settings(how: How) -> Settings:
    asked = how.section
    return Settings(
        asked.processes, asked.seconds, asked.samples, asked.threads, asked.seed, how.accuracy
    )


def _quiet(title: str, total: int, unit: str) -> Progress:
    return Progress(title, total, unit, quiet=True)


def _do(way: Transport, program: Sequence[str], job: Job, scratch: Path) -> Result:
    """Do one job at the end of a transport, in a process of its own."""
    asked, answer = scratch / f"job-{job.order}.json", scratch / f"result-{job.order}.json"
    write_json(asked, encode(job))
    place = way.scratch(answer.name)
    argv = [*program, "bench", way.push(asked), "--out", place]
    done = way.run(argv, timeout_s=JOB_LIMIT_S)
    way.pull(place, answer)
    return result_of(job, done, answer, JOB_LIMIT_S)
