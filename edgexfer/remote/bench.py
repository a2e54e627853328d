"""``bench_bundles``: measure the artefacts of bundles on a machine and file the records.

What one process does lives in ``bench.job``, order and records in ``bench.suite``; several machines
side by side are the work of ``fleet.py``. What was broken off leaves the results of its processes
in ``.unfinished`` among the records, and the same command goes on from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgexfer.bench.bare import Wish, bare_subjects, check_wish, is_model, select
from edgexfer.bench.child import limit_of, result_of
from edgexfer.bench.job import Job, Result
from edgexfer.bench.lock import no_host_beside
from edgexfer.bench.suite import Settings, Subject, refuse_inside, run_suite, settings_from
from edgexfer.bench.targets import artefacts_for, named_artefacts
from edgexfer.core.bundle import MANIFEST, read_manifest, verify_files
from edgexfer.core.codec import decode, encode
from edgexfer.core.errors import BundleError, InputError, Interrupted, RunError
from edgexfer.core.files import (
    fingerprint,
    make_dir,
    read_json,
    sha256_file,
    write_atomic,
    write_json,
)
from edgexfer.core.progress import Progress
from edgexfer.core.record import MACHINE, write_record
from edgexfer.models.onnxfile import examine
from edgexfer.recipe import BenchSection
from edgexfer.remote.pack import pack_device_side, write_launcher
from edgexfer.remote.transport import SESSION, Local, Transport, checked, understood

PROBE_LIMIT_S = 60.0
UNFINISHED = ".unfinished"


@dataclass(frozen=True)
class How:
    """How bundles are measured.

    Attributes:
        targets: profiles by name or alias; ``None`` takes all that are for the machine.
        section: how long and how often.
        progress: starts a display, such as the class ``Progress``; ``None`` shows nothing.
        transport: makes the way to the machine, given a folder for scratch files.
        accuracy: whether all evaluation images are run too, once per artefact.
        wish: runtimes and precisions; of a bundle the artefacts that are of them.
        label: stands behind an artefact's name in the name of its record's file.
    """

    targets: Sequence[str] | None
    section: BenchSection
    progress: Callable[[str, int, str], Progress] | None = None
    transport: Callable[[Path], Transport] = Local
    accuracy: bool = True
    wish: Wish = field(default_factory=Wish)
    label: str = ""


def bench_bundles(bundles: Sequence[Path], out: Path, how: How) -> list[Path]:
    """Measure artefacts in fresh processes that interleave, and write one record for each.

    Artefacts of several bundles (a student's and its teacher's) interleave too, so that a drift of
    the machine's speed does not favour one of them.

    Args:
        bundles: sealed bundles, or bare model files.
        out: folder for the records, ``ARTEFACT.json`` each; a record is written as soon as it is
            complete, and an older one of the same name is replaced.
        how: targets, section, display, transport.

    Returns:
        The records' paths, in the bundles' order; one that failed has a record that says so.

    Raises:
        BundleError: a bundle is damaged, a target is not in it, or two artefacts have one name.
        BackendError: nothing in a bundle is for the machine, or the device side does not run there.
        InputError: ``out`` lies in one of the bundles.
        MachineError: a host measures on this machine.
        RunError: another benchmark writes into ``out``.
        Interrupted: by Ctrl-C; records that were complete are kept.
    """
    return [path for _, path in sorted(bench_each(bundles, out, how), key=lambda each: each[0])]


def bench_each(bundles: Sequence[Path], out: Path, how: How) -> Iterator[tuple[int, Path]]:
    """Yield each record's place in the bundles' order and its path, as soon as it is complete.

    Raises:
        EdgexferError: as ``bench_bundles``.
    """
    settings = settings_of(how)
    check_wish(how.wish)
    refuse_inside(out, bundles)
    check_bundles(bundles)
    folder = make_dir(out)
    with (
        _scratch(folder, how.label) as scratch,
        contextlib.closing(how.transport(scratch)) as way,
        contextlib.ExitStack() as stack,
    ):
        packed = pack_device_side(scratch / "edgexfer.pyz")
        here = type(way) is Local
        if here:
            stack.enter_context(no_host_beside())
        entry = write_launcher(scratch / "device_side.py") if here else packed
        program = [*way.python, way.push(entry)]
        asked = way.run([*program, "facts"], timeout_s=PROBE_LIMIT_S)
        facts = understood(checked(asked, way), way)
        subjects = [
            subject
            for bundle in bundles
            for subject in subjects_of(bundle, how, facts["machine"], scratch)
        ]
        _refuse_namesakes(subjects)
        _forget_others(scratch, packed, bundles, facts)
        folders = dict.fromkeys(subject.bundle for subject in subjects)
        places = {str(place): way.push(place) for place in folders}

        def execute(job: Job) -> Result:
            result = _do(way, program, replace(job, bundle=places[job.bundle]), scratch)
            display.update(1, job.artefact)
            return result

        start = how.progress or _quiet
        try:
            with start("bench", len(subjects) * how.section.processes, "process") as display:
                failed = False
                for subject, record in run_suite(subjects, settings, execute):
                    failed = failed or record.status == "failed"
                    path = folder / f"{subject.artefact.name}{how.label}.json"
                    write_record(path, record)
                    yield subjects.index(subject), path
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"bench: interrupted; the records that were complete are in {folder}",
                "run the same command again: it goes on where it stopped",
            ) from error
        if not failed:
            _forget(scratch)


@contextlib.contextmanager
def _scratch(folder: Path, label: str) -> Iterator[Path]:
    """Give scratch files a folder, which outlives a benchmark that left something undone."""
    everything = folder / UNFINISHED
    scratch = make_dir(everything / (label.lstrip("@") or "here"))
    with _taken(scratch, folder):
        try:
            yield scratch
        finally:
            if not any(scratch.glob("result-*.json")) and not (scratch / SESSION).exists():
                shutil.rmtree(scratch)
                for place in (everything, folder):
                    with contextlib.suppress(OSError):  # something else is in it
                        place.rmdir()


@contextlib.contextmanager
def _taken(scratch: Path, out: Path) -> Iterator[None]:
    """Keep other benchmarks out of a scratch folder: their jobs and results have the same names."""
    with contextlib.ExitStack() as stack:
        try:
            handle = os.open(scratch, os.O_RDONLY)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another one may have removed it meanwhile, at its end.
            free = os.path.samestat(os.fstat(handle), scratch.stat())
        except (BlockingIOError, FileNotFoundError):
            free = False
        if not free:
            raise RunError(
                f"{out}: another benchmark writes its records there",
                "wait for it, or choose another --out",
            )
        yield


def check_bundles(bundles: Sequence[Path]) -> None:
    """Check every file of the bundles among some paths; bare models are looked at later.

    Raises:
        BundleError: a bundle is damaged.
    """
    for bundle in bundles:
        if not is_model(bundle):
            verify_files(bundle)


def subjects_of(bundle: Path, how: How, machine: str | None, scratch: Path) -> list[Subject]:
    """Return what of a bundle, or of a bare model, is measured on a kind of machine.

    Args:
        bundle: either.
        how: targets, runtimes and precisions.
        machine: ``platform.machine()`` there; ``None`` where it cannot be asked, which takes all.
        scratch: where a bare model is put with what belongs to it.

    Raises:
        EdgexferError: as ``bench_bundles``.
    """
    if is_model(bundle):
        if how.targets is not None:
            raise InputError(
                f"{bundle}: a bare model has no targets", "name --runtime and --precision instead"
            )
        place = scratch / f"model-{bundle.stem}"
        return bare_subjects(bundle, place, how.wish, weights_beside(bundle))
    if how.wish.shapes:
        raise InputError(f"{bundle}: its inputs are its images", "leave --shape out")
    manifest = read_manifest(bundle)
    if machine is None:
        found = named_artefacts(bundle, manifest, how.targets)
    else:
        found = artefacts_for(bundle, manifest, how.targets, machine)
    return [Subject(bundle, manifest, artefact) for artefact in select(found, how.wish)]


def weights_beside(model: Path) -> list[Path]:
    """Return the files that an ONNX model keeps weights in, once it is safe to be run.

    Raises:
        ModelError: it is not, or no runtime would load it.
    """
    return examine(model, check="runnable") if model.suffix.lower() == ".onnx" else []


def _refuse_namesakes(subjects: Sequence[Subject]) -> None:
    names = [subject.artefact.name for subject in subjects]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BundleError(
            f"bench: two bundles have an artefact {twice[0]}", "bench each into a folder of its own"
        )


def settings_of(how: How) -> Settings:
    """Return a section as the device side takes it, with the scenario's own length put in.

    Raises:
        InputError: options that do not go together.
    """
    return settings_from(how.section, accuracy=how.accuracy)


def _quiet(title: str, total: int, unit: str) -> Progress:
    return Progress(title, total, unit, quiet=True)


def _do(way: Transport, program: Sequence[str], job: Job, scratch: Path) -> Result:
    """Do one job at the end of a transport, in a process of its own, unless it was done before."""
    asked, answer = scratch / f"job-{job.order}.json", scratch / f"result-{job.order}.json"
    done_before = _recall(answer, job)
    if done_before is not None:
        return done_before
    answer.unlink(missing_ok=True)
    write_json(asked, encode(job))
    place = way.scratch(answer.name)
    argv = [*program, "job", way.push(asked), "--out", place]
    limit_s = limit_of(job)
    done = way.run(argv, timeout_s=limit_s)
    way.pull(place, answer)
    result = result_of(job, done, answer, limit_s)
    result = replace(result, device={**result.device, **way.facts})
    if result.failure is None:
        write_json(answer, encode(result))
    else:
        answer.unlink(missing_ok=True)  # to be tried again
    return result


def _recall(answer: Path, job: Job) -> Result | None:
    """Return the result that this very job had before, if it did its work."""
    try:
        result = decode(Result, read_json(answer), str(answer))
    except InputError:
        return None
    return result if result.job == job and result.failure is None else None


def _forget(scratch: Path) -> None:
    for answer in scratch.glob("result-*.json"):
        answer.unlink()


def _forget_others(scratch: Path, packed: Path, bundles: Sequence[Path], facts: Any) -> None:
    """Remove results of other files, another version of this program, machine or power mode."""
    kind = fingerprint(
        {
            "program": sha256_file(packed),
            "bundles": [
                sha256_file(bundle if is_model(bundle) else bundle / MANIFEST) for bundle in bundles
            ],
            "machine": {name: facts.get(name) for name in (*MACHINE, "power_mode")},
        }
    )
    stamp = scratch / "kind"
    if not stamp.is_file() or stamp.read_text() != kind:
        _forget(scratch)
        write_atomic(stamp, kind)
