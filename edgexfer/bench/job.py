"""One job: one artefact, measured once, in a process that does nothing else.

``run_job`` reads top to bottom: load, check, count, time, the last not under an emulator. Ordering
several jobs and making a record of their results is the work of ``suite``.
"""

from __future__ import annotations

import importlib
import platform
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from edgexfer.bench.device import emulator, facts, interpreter
from edgexfer.bench.engines import ModelFile, model_file
from edgexfer.bench.latency import (
    CHECKED,
    STAGE_SAMPLES,
    Limits,
    measure,
    measure_stage,
    timed,
    warm_up,
)
from edgexfer.bench.memory import peak_pss_bytes, process_age_ns, pss_bytes
from edgexfer.bench.watch import Watch
from edgexfer.core.backend import Backend, Plan, Session, get_backend
from edgexfer.core.bundle import REMAKE, Artefact, Manifest, get_artefact, is_safe, verify_files
from edgexfer.core.codec import decode, encode
from edgexfer.core.errors import BackendError, BundleError, EdgexferError
from edgexfer.core.files import PathLike, read_json
from edgexfer.core.profile import HardwareProfile
from edgexfer.core.record import Accuracy, ColdStart, ProcessRun

SCHEMA = "edgexfer.job/1"


@dataclass(frozen=True)
class Job:
    """What one process is to do.

    Attributes:
        schema: ``edgexfer.job/1``.
        bundle: the bundle's folder, on the machine that runs the job.
        artefact: name of the artefact.
        order: the job's place in the order of all jobs of the benchmark.
        accuracy: whether to run all evaluation images; once per artefact is enough.
        samples: least number of timed inferences.
        seconds: least time of the timed inferences.
        warmup_s: most time until the steady state must be reached.
        threads: threads of the runtime; 0 leaves the choice to it.
        seed: of what is drawn at random.
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
        schema: ``edgexfer.job/1``.
        job: what it was asked.
        failure: why there is nothing else; ``None`` where the work was done.
        active: what the runtime said of itself.
        device: facts of the machine.
        run: the raw samples.
        accuracy: of the evaluation images, where it was asked for.
        invalid: what makes the latencies worthless.
        doubts: what makes them doubtful.
        warnings: what else the reader should know.
        absent: for each figure that could not be had, why.
    """

    schema: str
    job: Job
    failure: Optional[Failure] = None
    active: Dict[str, Any] = field(default_factory=dict)
    device: Dict[str, Any] = field(default_factory=dict)
    run: Optional[ProcessRun] = None
    accuracy: Optional[Accuracy] = None
    invalid: Tuple[str, ...] = ()
    doubts: Tuple[str, ...] = ()
    warnings: Tuple[str, ...] = ()
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


def run_job(job: Job) -> Result:
    """Do a job, and turn whatever stops it into a result that says so."""
    try:
        return _run(job)
    except EdgexferError as error:
        failure = Failure(error.what, error.fix, error.exit_code)
    except MemoryError:
        failure = Failure(
            f"{job.bundle}: artefact {job.artefact} needs more memory than there is",
            "close other programs, or choose a smaller model",
            3,
        )
    return Result(SCHEMA, job, failure, device=facts())


@dataclass
class _Loaded:
    """A session with all that it was loaded from."""

    bundle: Path
    manifest: Manifest
    artefact: Artefact
    model: ModelFile
    session: Session
    cold_start: ColdStart
    pss_before_load: Optional[int]
    active: Dict[str, Any]


def _run(job: Job) -> Result:
    loaded = _load(job)
    from edgexfer.bench.feed import check_session, normalise, run_once

    session, manifest = loaded.session, loaded.manifest
    check_session(session, manifest.preprocess, len(manifest.labels))
    images, warnings = _images(loaded)
    first = normalise(images[:1], manifest.preprocess)
    _, first_ns = timed(lambda: run_once(session, first))
    absent = {"power": "this version reads no power sensor"}
    # Read here, where the harness itself has next to nothing in memory.
    peak = _peak_bytes(loaded, absent)
    inputs = [normalise(images[i : i + 1], manifest.preprocess) for i in range(len(images))]
    warnings += _golden(loaded, absent)
    expected = [run_once(session, batch) for batch in inputs]
    result = Result(
        schema=SCHEMA,
        job=job,
        active={**loaded.active, **interpreter()},
        accuracy=_accuracy(loaded, absent) if job.accuracy else None,
        warnings=tuple(warnings),
        absent=absent,
    )
    emulated = emulator()[0]
    if emulated is not None:
        session.close()
        return _untimed(result, emulated)

    watch = Watch()
    call = _bind(session)
    warmup, converged = warm_up(call, inputs, job.warmup_s)
    latencies, kept = measure(call, inputs, Limits(job.samples, job.seconds), job.seed)
    noise = watch.finish()

    uint8 = [images[i : i + 1] for i in range(len(images))]
    gpu_ns = _gpu_times(session, call, inputs)
    pre = measure_stage(lambda image: normalise(image, manifest.preprocess), uint8)
    post = measure_stage(top_class, expected)
    run = ProcessRun(
        order=job.order,
        warmup_ns=tuple(warmup),
        warmup_converged=converged,
        infer_ns=tuple(latencies),
        pre_ns=tuple(pre),
        post_ns=tuple(post),
        gpu_ns=tuple(gpu_ns),
        cold_start=_whole(loaded.cold_start, first_ns),
        peak_pss_bytes=peak,
        pss_before_load_bytes=loaded.pss_before_load,
        noise=encode(noise),
    )
    doubts = [] if converged else [f"no steady state within {job.warmup_s:g} s of warm-up"]
    session.close()
    return replace(
        result,
        device=facts(),
        run=run,
        invalid=tuple(_changed_outputs(kept, expected)),
        doubts=tuple(doubts + noise.complaints()),
    )


def _untimed(result: Result, emulated: str) -> Result:
    """Refuse to time what an emulator computes: the outputs are the machine's, the time is not."""
    reason = f"emulated: this {platform.machine()} is {emulated}"
    absent = {**result.absent, "latency": f"{reason}; only a real one has a latency"}
    return replace(result, device=facts(), invalid=(reason,), absent=absent)


def _load(job: Job) -> _Loaded:
    startup_ns = process_age_ns()
    bundle = Path(job.bundle)
    manifest = verify_files(bundle)
    artefact = get_artefact(manifest, job.artefact)
    profile = read_profile(bundle, manifest, artefact)
    # numpy and the runtime are first imported here, so that the time of it can be told apart.
    _, numpy_ns = timed(import_numpy)
    backend, runtime_ns = timed(lambda: get_backend(artefact.backend))
    plan = plan_of(artefact, profile, job.threads)
    model = model_file(bundle, artefact, profile, backend, plan)
    pss = pss_bytes()
    session, load_ns = timed(lambda: backend.load(model.path, plan))
    import_ns = numpy_ns + runtime_ns
    active = {**session.active, "versions": backend.versions()}
    if model.engine_bytes is not None:
        active["engine_bytes"], active["engine_build_ns"] = model.engine_bytes, model.build_ns
    return _Loaded(
        bundle=bundle,
        manifest=manifest,
        artefact=artefact,
        model=model,
        session=session,
        cold_start=ColdStart(startup_ns, import_ns, None, None, load_ns, 0, None),
        pss_before_load=pss,
        active=active,
    )


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


def plan_of(artefact: Artefact, profile: HardwareProfile, threads: int) -> Plan:
    """Return how the artefact is to be run on its target."""
    return Plan(artefact.precision, threads, profile.device, dict(profile.options))


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


def _bind(session: Session) -> Any:
    """Return the call that is timed: array in, array out, no name looked up twice."""
    name, output, run = session.inputs[0].name, session.outputs[0].name, session.run
    return lambda batch: run({name: batch})[output]


def _gpu_times(session: Session, call: Any, inputs: List[Any]) -> List[int]:
    """Ask a device for its own time of some runs; empty where the runtime cannot tell."""
    ask = getattr(session, "gpu_ns", None)
    if ask is None:
        return []
    found = []
    for turn in range(STAGE_SAMPLES):
        call(inputs[turn % len(inputs)])
        found.append(ask())
    return found


def top_class(logits: Any) -> Tuple[int, float]:
    """Turn one image's logits (1, C) into its class and the softmax probability of it."""
    import numpy as np

    shifted = np.exp(logits[0] - logits[0].max())
    best = int(shifted.argmax())
    return best, float(shifted[best] / shifted.sum())


def _images(loaded: _Loaded) -> Tuple[Any, List[str]]:
    """Return the images that the timed loop rotates over, and a warning where they are few."""
    from edgexfer.bench.feed import read_array

    manifest = loaded.manifest
    chosen = manifest.evaluation
    name = manifest.golden_images if chosen is None else chosen.images
    images = read_array(loaded.bundle, name, "uint8", (-1, *manifest.preprocess.size, 3))
    images = images[:CHECKED].copy()
    if not len(images):
        raise BundleError(f"{loaded.bundle / name}: holds no images", "export the bundle again")
    few = len(images) < CHECKED
    return images, [f"inputs rotate over {len(images)} images only"] if few else []


def _golden(loaded: _Loaded, absent: Dict[str, str]) -> List[str]:
    from edgexfer.bench.golden import check_golden

    found = check_golden(loaded.bundle, loaded.manifest, loaded.artefact, loaded.session)
    if found is None:
        absent["golden"] = "the bundle has no golden outputs for this artefact"
        return ["the outputs were not checked: " + absent["golden"]]
    return []


def _accuracy(loaded: _Loaded, absent: Dict[str, str]) -> Optional[Accuracy]:
    from edgexfer.bench.accuracy import predict, score
    from edgexfer.bench.feed import read_array

    manifest = loaded.manifest
    chosen = manifest.evaluation
    if chosen is None:
        absent["accuracy"] = "the bundle has no evaluation images"
        return None
    shape = (chosen.n, *manifest.preprocess.size, 3)
    images = read_array(loaded.bundle, chosen.images, "uint8", shape)
    labels = read_array(loaded.bundle, chosen.labels, "int64", (chosen.n,))
    return score(predict(loaded.session, images, manifest.preprocess), labels, chosen.split)


def _changed_outputs(kept: List[Tuple[int, Any]], expected: List[Any]) -> List[str]:
    """Compare outputs of the timed loop with those of before, bit for bit (MLPerf's TEST01)."""
    wrong = [i for i, output in kept if output.tobytes() != expected[i].tobytes()]
    if not wrong:
        return []
    return [
        f"{len(wrong)} of {len(kept)} outputs of the timed run differ from the accuracy run's, "
        f"first for image {wrong[0]}"
    ]


def _peak_bytes(loaded: _Loaded, absent: Dict[str, str]) -> Optional[int]:
    if loaded.model.build_ns is not None:
        absent["peak_pss_bytes"] = "a process that built its engine too, the others tell"
        return None
    return peak_pss_bytes()


def _whole(parts: ColdStart, first_ns: int) -> ColdStart:
    """Complete a cold start with its first inference and its sum."""
    total = None
    if parts.startup_ns is not None:
        total = parts.startup_ns + parts.import_ns + parts.load_ns + first_ns
    return replace(parts, first_ns=first_ns, total_ns=total)
