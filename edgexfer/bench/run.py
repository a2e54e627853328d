"""What one process does: one artefact, measured once, in a process that does nothing else.

``run_job`` reads top to bottom: load, check, count, time, the last not under an emulator. The
accuracy run and the timed run feed the same session through the same call.
"""

from __future__ import annotations

import contextlib
import platform
import time
from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from edgexfer.bench.clocks import Wanted, changed_clocks, fastest
from edgexfer.bench.device import emulator, facts, interpreter
from edgexfer.bench.job import SCHEMA, Failure, Job, Loaded, Result, load
from edgexfer.bench.latency import (
    CHECKED,
    STAGE_SAMPLES,
    Limits,
    measure,
    measure_stage,
    timed,
    warm_up,
)
from edgexfer.bench.memory import peak_pss_bytes
from edgexfer.bench.power import IDLE_S
from edgexfer.bench.scenarios import Ask, Call, Measured, all_at_once, groups, run_scenario
from edgexfer.bench.sensors import Sampler
from edgexfer.bench.stall import ending_after
from edgexfer.bench.watch import Watch
from edgexfer.core.backend import Session, lanes
from edgexfer.core.bundle import Manifest
from edgexfer.core.codec import encode
from edgexfer.core.errors import EdgexferError
from edgexfer.core.record import Accuracy
from edgexfer.core.samples import ColdStart, ProcessRun, Sensors
from edgexfer.core.stats import median

# Only scenarios of a minute and more are long enough for a figure of energy; what the machine draws
# when idle is watched so long before and after.
ENERGY = ("offline", "sustained")
_OVERHEAD_SAMPLES = 1_000
_STAGES = ("decode", "resize", "pre", "post", "e2e")


def run_job(job: Job) -> Result:
    """Do a job, and turn whatever stops it into a result that says so."""
    try:
        with changed_clocks(fastest(job.power_mode) if job.allow_clock_changes else Wanted()):
            return _run(job)
    except EdgexferError as error:
        failure = Failure(_told(error.what, job), error.fix, error.exit_code)
    except MemoryError:
        failure = Failure(
            f"{job.bundle}: artefact {job.artefact} needs more memory than there is",
            "close other programs, or choose a smaller model",
            3,
        )
    return Result(SCHEMA, job, failure, device=facts())


def _told(what: str, job: Job) -> str:
    """Name a bare model as the user did: where it was put to be measured means nothing to them."""
    return what if job.bare is None else what.replace(f"{job.bundle}/", "")


def _run(job: Job) -> Result:
    loaded = load(job)
    from edgexfer.bench.inputs import open_inputs

    source = open_inputs(job, loaded)
    first = source.feed(0)
    with ending_after():
        _, first_ns = timed(lambda: loaded.session.run(first))
    absent: Dict[str, str] = {}
    # Read here, where the harness itself has next to nothing in memory.
    peak = _peak_bytes(loaded, absent)
    feeds = [source.feed(number) for number in range(source.count)]
    notes = [*source.warnings, *_golden(loaded, absent)]
    expected = [loaded.session.run(feed) for feed in feeds]
    result = Result(
        schema=SCHEMA,
        job=job,
        active={**loaded.active, **interpreter()},
        accuracy=_accuracy(loaded, absent) if job.accuracy else None,
        absent=absent,
    )
    emulated = emulator()[0]
    if emulated is not None:
        loaded.session.close()
        return _untimed(result, emulated)
    timings = _Timings(job, loaded.session, feeds)
    timings.take()
    measured = timings.measured
    stages, faults = _stages(job, loaded, (source.images, expected), absent, notes)
    run = ProcessRun(
        order=job.order,
        warmup_ns=tuple(timings.warmup_ns),
        warmup_converged=timings.converged,
        infer_ns=tuple(measured.series.infer_ns),
        cold_start=_whole(loaded.cold_start, first_ns, absent),
        peak_pss_bytes=peak,
        pss_before_load_bytes=loaded.pss_before_load,
        device_bytes=_device_bytes(loaded, absent),
        noise=timings.noise,
        gpu_ns=tuple(_gpu_times(loaded.session, feeds)),
        issued_ns=tuple(measured.series.issued_ns),
        kept_every=measured.series.every,
        references=tuple(measured.series.references),
        rotated_ns=tuple(timings.rotated_ns),
        repeated_ns=tuple(timings.repeated_ns),
        overhead_ns=tuple(timings.overhead_ns),
        bulk=measured.bulk,
        trials=tuple(measured.trials),
        sensors=timings.sensors,
        faults=(*_changed_outputs(measured.kept, expected), *faults),
        notes=tuple(notes),
        **{f"{name}_ns": tuple(stages.get(name, ())) for name in _STAGES},
    )
    loaded.session.close()
    return replace(result, device=facts(), run=run)


def _untimed(result: Result, emulated: str) -> Result:
    """Refuse to time what an emulator computes: the outputs are the machine's, the time is not."""
    reason = f"emulated: this {platform.machine()} is {emulated}"
    absent = {**result.absent, "latency": f"{reason}; only a real one has a latency"}
    return replace(result, device=facts(), absent=absent)


class _Timings:
    """The timed part of a job: warm-up, scenario, the look for a cache, the loop's own cost."""

    def __init__(self, job: Job, session: Session, feeds: List[Any]) -> None:
        """Open a lane for each stream."""
        self._job, self._feeds = job, feeds
        self._lanes = [lane.run for lane in lanes(session, job.streams)]
        self.warmup_ns: List[int] = []
        self.converged = False
        self.measured = Measured()
        self.noise: Dict[str, Any] = {}
        self.sensors: Optional[Sensors] = None
        self.rotated_ns: List[int] = []
        self.repeated_ns: List[int] = []
        self.overhead_ns: List[int] = []

    def take(self) -> None:
        """Measure all of it, and nothing twice."""
        from edgexfer.bench.caching import measure_repeats
        from edgexfer.bench.reference import ReferenceKernel

        job = self._job
        reference, sampler = ReferenceKernel(), Sampler()
        sampler.start()
        idle_s = IDLE_S if job.scenario in ENERGY and sampler.sees_power else 0.0
        time.sleep(idle_s)
        watch = Watch()  # beside a minute of rest, a busy machine would look half as busy
        self.warmup_ns, self.converged = self._warm_up()
        ask = Ask(job.scenario, job.samples, job.seconds, job.batch, job.bound_ns, job.seed)
        sampler.mark()
        self.measured = run_scenario(ask, self._lanes, self._feeds, self._pace(), reference)
        self.noise = encode(watch.finish())
        time.sleep(idle_s)
        self.sensors = sampler.stop()
        reference.close()
        first = self._lanes[0]
        self.rotated_ns, self.repeated_ns = measure_repeats(first, self._feeds, job.seconds)
        self.overhead_ns = self._overhead()

    def _warm_up(self) -> Tuple[List[int], bool]:
        """Warm up on all lanes."""
        with _calls(self._lanes, self._feeds) as (call, inputs):
            return warm_up(call, inputs, self._job.warmup_s)

    def _pace(self) -> float:
        """Return how long one call takes about, in nanoseconds.

        For ``server``, which takes it for the most that can be served, that of a lane alone: the
        harness had a share in those of the warm-up.
        """
        if self._job.scenario == "server":
            return median(measure_stage(self._lanes[0], self._feeds, CHECKED))
        return median(self.warmup_ns[-CHECKED:])

    def _overhead(self) -> List[int]:
        """Time calls that do nothing, made and timed as the scenario's are."""
        streams = len(self._lanes) if self._job.scenario == "multi_stream" else 1
        with _calls([lambda feed: feed] * streams, self._feeds) as (call, inputs):
            return measure(call, inputs, Limits(_OVERHEAD_SAMPLES, 0.0), self._job.seed).infer_ns


@contextlib.contextmanager
def _calls(lanes: Sequence[Call], feeds: List[Any]) -> Iterator[Tuple[Call, Sequence[Any]]]:
    """Give one call for all lanes, with the inputs that it takes."""
    if len(lanes) == 1:
        yield lanes[0], feeds
        return
    with all_at_once(lanes) as call:
        yield call, [[feeds[i] for i in group] for group in groups(feeds, len(lanes))]


def _stages(
    job: Job,
    loaded: Loaded,
    material: Tuple[Any, List[Any]],
    absent: Dict[str, str],
    notes: List[str],
) -> Tuple[Dict[str, List[int]], List[str]]:
    """Time the stages around the model, one image at a time, each apart and all in one.

    Args:
        job: what is asked.
        loaded: the artefact.
        material: the uint8 images, and the outputs for the inputs made of them.
        absent: takes the reasons for what could not be had.
        notes: takes what the reader should know.

    Returns:
        Latencies by stage, and what was found wrong.
    """
    manifest, session = loaded.manifest, loaded.session
    images, expected = material
    if manifest is None:
        absent.update(dict.fromkeys(_STAGES, "a bare model says nothing of its images and labels"))
        return {}, []
    from edgexfer.bench.feed import normalise

    name = session.inputs[0].name
    preprocess = manifest.preprocess
    singles = [images[i : i + 1] for i in range(len(images))]
    found = {
        "pre": measure_stage(lambda image: normalise(image, preprocess), singles),
        "post": measure_stage(top_classes, expected),
    }
    encoded, faults = _encoded(loaded, manifest, images, absent, notes)
    if encoded is None:
        return found, faults
    stages, files = encoded
    opened = [stages.decode(data) for data in files]
    found["decode"] = measure_stage(stages.decode, files)
    found["resize"] = measure_stage(stages.resize, opened)
    if job.batch == 1:
        found["e2e"] = measure_stage(
            lambda data: top_classes(
                session.run({name: normalise(stages.resize(stages.decode(data))[None], preprocess)})
            ),
            files,
        )
    else:
        absent["e2e"] = "is that of one image, and the batch is larger"
    return found, faults


def _encoded(
    loaded: Loaded, manifest: Manifest, images: Any, absent: Dict[str, str], notes: List[str]
) -> Tuple[Optional[Tuple[Any, List[bytes]]], List[str]]:
    """Return the stages before the model with the encoded images, once they give the same bits."""
    from edgexfer.bench.encoded import ROUNDING, differing, read_encoded, stages

    chosen = manifest.evaluation
    found, reason = None, "the bundle has no encoded images"
    if chosen is not None and chosen.encoded:
        found, reason = stages(manifest.preprocess)
    if found is None or chosen is None:
        absent.update(dict.fromkeys(("decode", "resize", "e2e"), reason))
        return None, []
    files = read_encoded(loaded.folder, list(chosen.encoded.values()))
    own = [images[int(place)] for place in chosen.encoded]
    gaps = differing(found, files, own)
    if not gaps:
        return (found, files), []
    name = list(chosen.encoded.values())[min(gaps)]
    text = (
        f"preprocessing differs: of {len(gaps)} of {len(files)} images {found.library} makes other "
        f"pixels than the bundle has, by {max(gaps.values()):.2f} of 255 on average, first {name}"
    )
    if max(gaps.values()) <= ROUNDING:
        notes.append(text)
        return (found, files), []
    absent.update(dict.fromkeys(("decode", "resize", "e2e"), text))
    return None, [text]


def _gpu_times(session: Session, feeds: List[Any]) -> List[int]:
    """Ask a device for its own time of some runs; empty where the runtime cannot tell."""
    ask = getattr(session, "gpu_ns", None)
    if ask is None:
        return []
    found = []
    for turn in range(STAGE_SAMPLES):
        session.run(feeds[turn % len(feeds)])
        found.append(ask())
    return found


def top_classes(outputs: Dict[str, Any]) -> List[Tuple[int, float]]:
    """Turn one image's outputs into the class of each, with its probability."""
    return [top_class(logits) for logits in outputs.values()]


def top_class(logits: Any) -> Tuple[int, float]:
    """Turn one image's logits (1, C) into its class and the softmax probability of it."""
    import numpy as np

    shifted = np.exp(logits[0] - logits[0].max())
    best = int(shifted.argmax())
    return best, float(shifted[best] / shifted.sum())


def _golden(loaded: Loaded, absent: Dict[str, str]) -> List[str]:
    if loaded.manifest is None or loaded.artefact is None:
        absent["golden"] = "a bare model has no golden outputs"
        return []
    from edgexfer.bench.golden import check_golden

    found = check_golden(loaded.folder, loaded.manifest, loaded.artefact, loaded.session)
    if found is None:
        absent["golden"] = "the bundle has no golden outputs for this artefact"
        return ["the outputs were not checked: " + absent["golden"]]
    return []


def _accuracy(loaded: Loaded, absent: Dict[str, str]) -> Optional[Accuracy]:
    chosen = None if loaded.manifest is None else loaded.manifest.evaluation
    if chosen is None or loaded.manifest is None:
        what = "a bare model" if loaded.manifest is None else "the bundle"
        absent["accuracy"] = f"{what} has no evaluation images"
        return None
    from edgexfer.bench.accuracy import predict, score
    from edgexfer.bench.feed import read_array

    preprocess = loaded.manifest.preprocess
    images = read_array(loaded.folder, chosen.images, "uint8", (chosen.n, *preprocess.size, 3))
    shape = loaded.manifest.labels_shape(chosen.n)
    labels = read_array(loaded.folder, chosen.labels, "int64", shape)
    logits = predict(loaded.session, images, preprocess)
    return score(logits, labels, chosen.split, tasks=loaded.manifest.tasks)


def _changed_outputs(kept: List[Tuple[int, Any]], expected: List[Any]) -> List[str]:
    """Compare outputs of the timed loop with those of before, bit for bit (MLPerf's TEST01)."""
    wrong = [i for i, outputs in kept if not _same(outputs, expected[i])]
    if not wrong:
        return []
    return [
        f"{len(wrong)} of {len(kept)} outputs of the timed run differ from the accuracy run's, "
        f"first for input {wrong[0]}"
    ]


def _same(outputs: Dict[str, Any], expected: Dict[str, Any]) -> bool:
    return all(outputs[name].tobytes() == array.tobytes() for name, array in expected.items())


def _peak_bytes(loaded: Loaded, absent: Dict[str, str]) -> Optional[int]:
    if loaded.build_ns is not None:
        absent["peak_pss_bytes"] = "a process that built its engine too, the others tell"
        return None
    found = peak_pss_bytes()
    if found is None:
        absent["peak_pss_bytes"] = "the kernel tells no PSS (/proc/self/smaps_rollup)"
    return found


def _device_bytes(loaded: Loaded, absent: Dict[str, str]) -> Optional[int]:
    ask: Optional[Callable[[], int]] = getattr(loaded.session, "device_bytes", None)
    if ask is None:
        absent["device_bytes"] = (
            "the runtime tells of no memory but the host's, which is all that a CPU has"
        )
        return None
    if loaded.build_ns is not None:
        absent["device_bytes"] = "a process that built its engine too, the others tell"
        return None
    found = ask()
    if found <= 0:
        absent["device_bytes"] = "another program gave the device's memory back meanwhile"
        return None
    return found


def _whole(parts: ColdStart, first_ns: int, absent: Dict[str, str]) -> ColdStart:
    """Complete a cold start with its first inference and its sum."""
    if parts.compile_ns is None:
        absent["compile"] = "the runtime reads and compiles in one step"
    total = None
    if parts.startup_ns is None:
        absent["cold_start"] = "the kernel does not tell when the process was started"
    else:
        total = parts.startup_ns + parts.import_ns + parts.load_ns + first_ns
    return replace(parts, first_ns=first_ns, total_ns=total)
