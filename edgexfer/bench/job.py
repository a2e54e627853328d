"""One job: what a process is to measure, what it hands back, and the artefact loaded for it.

What the process does with it is in ``run``; ordering several jobs and making a record of their
results is the work of ``suite``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from edgexfer.bench.engines import ModelFile, model_file
from edgexfer.bench.latency import timed
from edgexfer.bench.memory import process_age_ns, pss_bytes
from edgexfer.bench.stall import ending_after
from edgexfer.core.backend import Backend, Plan, Session, get_backend
from edgexfer.core.bundle import REMAKE, Artefact, Manifest, get_artefact, is_safe, verify_files
from edgexfer.core.codec import decode
from edgexfer.core.errors import BackendError, BundleError
from edgexfer.core.files import PathLike, read_json
from edgexfer.core.profile import HardwareProfile
from edgexfer.core.record import Accuracy
from edgexfer.core.samples import ColdStart, ProcessRun

SCHEMA = "edgexfer.job/2"


@dataclass(frozen=True)
class Bare:
    """A model file that is no part of a bundle: nothing is known but what the runtime says of it.

    Attributes:
        file: its name in the job's folder.
        backend: the runtime that loads it.
        precision: what it is to run in.
        device: the runtime's own word for the device.
        shapes: sizes of inputs, by name, where the model leaves more than the batch free.
    """

    file: str
    backend: str
    precision: str
    device: str
    shapes: Dict[str, Tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """What one process is to do.

    Attributes:
        schema: ``edgexfer.job/2``.
        bundle: the bundle's folder, on the machine that runs the job; of a bare model the folder
            that it is in.
        artefact: name of the artefact.
        order: the job's place in the order of all jobs of the benchmark.
        accuracy: whether to run all evaluation images; once per artefact is enough.
        samples: least number of timed inferences.
        seconds: least time of the timed inferences.
        warmup_s: most time until the steady state must be reached.
        threads: threads of the runtime; 0 leaves the choice to it.
        seed: of what is drawn at random.
        scenario: how queries are issued, see ``scenarios``.
        streams: calls that may run at the same time.
        batch: samples per call.
        bound_ns: most latency of the scenario ``server``; ``None`` for the others.
        bare: the model file, where it is no bundle's.
        allow_clock_changes: whether clocks are set to their highest, and put back afterwards.
        power_mode: of a Jetson, by name, for the same time; empty leaves it.
    """

    schema: str
    bundle: str
    artefact: str
    order: int
    accuracy: bool
    samples: int
    seconds: float
    warmup_s: float
    threads: int
    seed: int
    scenario: str = "single_stream"
    streams: int = 1
    batch: int = 1
    bound_ns: Optional[int] = None
    bare: Optional[Bare] = None
    allow_clock_changes: bool = False
    power_mode: str = ""


@dataclass(frozen=True)
class Failure:
    """Why a job could not do its work.

    Attributes:
        what: one line that names the place.
        fix: one line with the mend.
        exit_code: of the error's class.
    """

    what: str
    fix: str
    exit_code: int


@dataclass(frozen=True)
class Result:
    """What one process found.

    Attributes:
        schema: ``edgexfer.job/2``.
        job: what it was asked.
        failure: why there is nothing else; ``None`` where the work was done.
        active: what the runtime said of itself.
        device: facts of the machine.
        run: the raw samples.
        accuracy: of the evaluation images, where it was asked for.
        absent: for each figure that could not be had, why; ``latency`` where nothing was timed.
    """

    schema: str
    job: Job
    failure: Optional[Failure] = None
    active: Dict[str, Any] = field(default_factory=dict)
    device: Dict[str, Any] = field(default_factory=dict)
    run: Optional[ProcessRun] = None
    accuracy: Optional[Accuracy] = None
    absent: Dict[str, str] = field(default_factory=dict)


def read_job(path: PathLike) -> Job:
    """Read a job file.

    Raises:
        InputError: it is missing, damaged or of another schema.
    """
    job = decode(Job, read_json(path), str(path))
    if job.schema != SCHEMA:
        raise BundleError(f"{path}: schema is {job.schema!r}, expected {SCHEMA!r}", "make it again")
    return job


@dataclass
class Loaded:
    """A session with all that it was loaded from.

    Attributes:
        folder: the bundle, or the folder of a bare model.
        manifest: ``None`` for a bare model.
        artefact: likewise.
        session: the loaded model.
        build_ns: how long its engine took to build just now; ``None`` where nothing was built.
        cold_start: without the first inference.
        pss_before_load: memory that the process had before the artefact was loaded.
        active: what runs, by the runtime's word.
    """

    folder: Path
    manifest: Optional[Manifest]
    artefact: Optional[Artefact]
    session: Session
    build_ns: Optional[int]
    cold_start: ColdStart
    pss_before_load: Optional[int]
    active: Dict[str, Any]


def load(job: Job) -> Loaded:
    """Load a job's artefact, with a look at clock and memory before and after each part."""
    startup_ns = process_age_ns()
    folder = Path(job.bundle)
    manifest = artefact = profile = None
    if job.bare is None:
        manifest = verify_files(folder)
        artefact = get_artefact(manifest, job.artefact)
        profile = read_profile(folder, manifest, artefact)
        name, plan = artefact.backend, plan_of(artefact, profile, job.threads, job.streams)
    else:
        name = job.bare.backend
        plan = Plan(job.bare.precision, job.threads, job.bare.device, streams=job.streams)
    # numpy and the runtime are first imported here, so that the time of it can be told apart.
    _, numpy_ns = timed(import_numpy)
    backend, runtime_ns = timed(lambda: get_backend(name))
    if artefact is not None and profile is not None:
        model = model_file(folder, artefact, profile, backend, plan)
    else:
        assert job.bare is not None
        model = ModelFile(folder / job.bare.file)
    pss = pss_bytes()
    with ending_after():
        session, deserialise_ns, compile_ns, load_ns = _timed_load(backend, model.path, plan)
    active = {**session.active, "versions": backend.versions()}
    if model.engine_bytes is not None:
        active["engine_bytes"], active["engine_build_ns"] = model.engine_bytes, model.build_ns
    return Loaded(
        folder=folder,
        manifest=manifest,
        artefact=artefact,
        session=session,
        build_ns=model.build_ns,
        cold_start=ColdStart(
            startup_ns, numpy_ns + runtime_ns, deserialise_ns, compile_ns, load_ns, 0, None
        ),
        pss_before_load=pss,
        active=active,
    )


def _timed_load(
    backend: Any, path: Path, plan: Plan
) -> Tuple[Session, Optional[int], Optional[int], int]:
    """Load, reading and compiling apart where the backend has a function for each."""
    if not hasattr(backend, "deserialise"):
        session, load_ns = timed(lambda: backend.load(path, plan))
        return session, None, None, load_ns
    read, deserialise_ns = timed(lambda: backend.deserialise(path, plan))
    session, compile_ns = timed(lambda: backend.prepare(read, path, plan))
    return session, deserialise_ns, compile_ns, deserialise_ns + compile_ns


def import_numpy() -> None:
    """Import numpy, which the device may lack.

    Raises:
        BackendError: it cannot be imported.
    """
    try:
        importlib.import_module("numpy")
    except ImportError as error:
        raise BackendError(f"numpy cannot be imported ({error})", "pip install numpy") from error


def read_profile(bundle: Path, manifest: Manifest, artefact: Artefact) -> HardwareProfile:
    """Read the profile that an artefact was made for.

    Raises:
        BundleError: the bundle has none for the artefact's target, or the path leads out of it.
    """
    name = manifest.profiles.get(artefact.target)
    if name is None:
        raise BundleError(
            f"{bundle}: has no profile for target {artefact.target!r}", "export the bundle again"
        )
    if not is_safe(name):
        raise BundleError(f"{bundle}: unsafe path {name!r} in the manifest", REMAKE)
    return decode(HardwareProfile, read_json(bundle / name), str(bundle / name))


def plan_of(artefact: Artefact, profile: HardwareProfile, threads: int, streams: int = 1) -> Plan:
    """Return how the artefact is to be run on its target."""
    options = {**profile.options, **artefact.options}
    return Plan(artefact.precision, threads, profile.device, options, streams)


def load_artefact(
    bundle: Path, artefact: Artefact, profile: HardwareProfile, backend: Backend
) -> Session:
    """Load an artefact as its profile says; its engine is built first where that is needed.

    Raises:
        BundleError: it lists no file.
        BackendError: the runtime refuses it.
    """
    plan = plan_of(artefact, profile, 0)
    return backend.load(model_file(bundle, artefact, profile, backend, plan).path, plan)
