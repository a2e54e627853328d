"""Several machines side by side: one thread for each, one folder of records for all.

Processes interleave within a machine alone. A machine that cannot be had stops no other: it gets
failed records that say why.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgexfer.bench.bare import is_model
from edgexfer.bench.job import SCHEMA as JOB_SCHEMA
from edgexfer.bench.job import Failure, Job, Result
from edgexfer.bench.suite import run_suite
from edgexfer.core.errors import EdgexferError, InputError, Interrupted, RunError
from edgexfer.core.files import make_dir
from edgexfer.core.record import write_record
from edgexfer.remote.address import Address, check_python, parse_addresses
from edgexfer.remote.bench import (
    How,
    bench_bundles,
    bench_each,
    check_bundles,
    settings_of,
    subjects_of,
    weights_beside,
)
from edgexfer.remote.link import Options
from edgexfer.remote.ssh import Ssh
from edgexfer.remote.transport import Local, Transport

Say = Callable[[str], None]


@dataclass(frozen=True)
class Fleet:
    """Machines, and how they are reached.

    Attributes:
        machines: in the order of the report.
        options: of all connections.
        say: told in one line what keeps a machine waiting, and what one has finished.
    """

    machines: Sequence[Address] = (Address(),)
    options: Options = field(default_factory=Options)
    say: Say | None = None

    @property
    def only(self) -> Address:
        """The one machine, for work that takes no more.

        Raises:
            InputError: there are several.
        """
        if len(self.machines) > 1:
            raise InputError("--on names several machines, and one can be asked", "name one")
        return self.machines[0]

    def reach(self, machine: Address) -> Callable[[Path], Transport]:
        """Return what makes the way to one machine, given a folder for scratch files."""
        if not machine.host:
            return Local
        return lambda scratch: Ssh(machine, scratch, self.options, self.say)


def fleet_of(
    on: str, python: str = "python3", *, wait: bool = False, say: Say | None = None
) -> Fleet:
    """Return the machines that a text names, as ``--on`` takes it.

    Args:
        on: ``local`` and ``ssh:HOST``, with commas between them.
        python: the boards' interpreter.
        wait: whether to wait for a board that somebody else measures on.
        say: see ``Fleet``.

    Raises:
        InputError: they name none, or something that is none.
    """
    return Fleet(parse_addresses(on), Options(python=check_python(python), wait=wait), say)


def bench_on(bundles: Sequence[Path], out: Path, how: How, fleet: Fleet) -> list[Path]:
    """Measure bundles on every machine of a fleet, and file all records in one folder.

    Args:
        bundles: sealed bundles.
        out: folder for the records: ``ARTEFACT.json`` of a single machine,
            ``ARTEFACT@MACHINE.json`` of several.
        how: targets, section, display; its transport and label are the fleet's business.
        fleet: the machines.

    Returns:
        The records' paths, machine by machine.

    Raises:
        EdgexferError: as ``bench_bundles``; where there are several machines, only what holds for
            all of them, such as a damaged bundle.
        Interrupted: by Ctrl-C; nothing is left running on any machine that can be reached.
    """
    if len(fleet.machines) == 1:
        [machine] = fleet.machines
        return bench_bundles(bundles, out, replace(how, transport=fleet.reach(machine)))
    settings_of(how)
    check_bundles(bundles)
    for model in filter(is_model, bundles):
        weights_beside(model)
    make_dir(out)
    # Python hands Ctrl-C to the main thread, so that is where this machine is measured.
    far = [machine for machine in fleet.machines if machine.host]
    near = [machine for machine in fleet.machines if not machine.host]
    found: dict[Address, list[Path]] = {}

    def measure(machine: Address) -> None:
        found[machine] = _bench_one(bundles, out, how, machine, fleet)

    with ThreadPoolExecutor(max(1, len(far))) as pool:
        waiting = [pool.submit(measure, machine) for machine in far]
        try:
            for machine in near:
                measure(machine)
            for each in waiting:
                each.result()
        except (KeyboardInterrupt, Interrupted) as error:
            fleet.options.stop.set()
            raise Interrupted(
                f"bench: interrupted; the records that were complete are in {out}",
                "run the same command again: it goes on where it stopped",
            ) from error
        except BaseException:
            fleet.options.stop.set()  # else the pool would wait until every board has finished
            raise
    return [path for machine in fleet.machines for path in found[machine]]


def _bench_one(
    bundles: Sequence[Path], out: Path, how: How, machine: Address, fleet: Fleet
) -> list[Path]:
    """Measure on one machine, and make failed records of what it has none of in the end."""
    label = f"@{machine.folder}"
    own = replace(how, transport=fleet.reach(machine), label=label, progress=None)
    say = fleet.say or _say_nothing
    written: dict[int, Path] = {}
    try:
        for place, path in bench_each(bundles, out, own):
            written[place] = path
            say(f"{machine}: {path.name}")
    except (Interrupted, RunError):  # nobody's records are here to be replaced by failed ones
        raise
    except EdgexferError as error:
        say(f"{machine}: gave up; its records say why")
        failed = _fail(bundles, out, own, (machine, error), set(written.values()))
        return [*written.values(), *failed]
    return [written[place] for place in sorted(written)]


def _fail(
    bundles: Sequence[Path],
    out: Path,
    how: How,
    failed: tuple[Address, EdgexferError],
    kept: set[Path],
) -> list[Path]:
    """Write failed records of the artefacts that a machine was to measure and did not."""
    machine, error = failed
    failure = Failure(error.what, error.fix, error.exit_code)

    def refuse(job: Job) -> Result:
        return Result(JOB_SCHEMA, job, failure, device={"on": str(machine)})

    paths = []
    with tempfile.TemporaryDirectory(prefix="edgexfer-") as scratch:
        subjects = [
            subject
            for bundle in bundles
            for subject in subjects_of(bundle, how, None, Path(scratch))
            if out / f"{subject.artefact.name}{how.label}.json" not in kept
        ]
        for subject, record in run_suite(subjects, settings_of(how), refuse):
            path = out / f"{subject.artefact.name}{how.label}.json"
            write_record(path, record)
            paths.append(path)
    return paths


def _say_nothing(text: str) -> None:
    """Show nothing."""
