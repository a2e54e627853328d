"""The raw part of a record: what one process measured, before any figure is made of it.

Times are integers in nanoseconds of a monotonic clock. What is made of them stands in ``record``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple


@dataclass(frozen=True)
class ColdStart:
    """Parts of the time from the start of the process to the first output, in nanoseconds.

    What the harness does in between for itself, hashing files above all, is in none of them.

    Attributes:
        startup_ns: from the start of the process until its own code ran: the interpreter, and the
            harness's modules; ``None`` where the kernel does not tell when it started. The kernel
            counts in ticks, mostly of 10 ms.
        import_ns: importing numpy and the runtime.
        deserialise_ns: reading the artefact; ``None`` where the runtime reads and compiles in one.
        compile_ns: making it ready to run; ``None`` likewise.
        load_ns: reading and compiling together.
        first_ns: the first inference.
        total_ns: ``startup_ns``, ``import_ns``, ``load_ns`` and ``first_ns``; ``None`` with the
            first of them.
    """

    startup_ns: Optional[int]
    import_ns: int
    deserialise_ns: Optional[int]
    compile_ns: Optional[int]
    load_ns: int
    first_ns: int
    total_ns: Optional[int]


@dataclass(frozen=True)
class Reference:
    """The reference kernel timed once, between two blocks of the timed loop.

    It is a fixed piece of arithmetic on all CPUs at once, so that it slows down with the machine
    whoever it is that slows the machine.

    Attributes:
        after: how many timed samples had been taken before it.
        ns: how long it took.
    """

    after: int
    ns: int


@dataclass(frozen=True)
class Sensors:
    """What the machine's sensors said while a process measured.

    Attributes:
        period_ns: how often they were to be read.
        times_ns: when each reading was taken, from the start of the measured part.
        series: readings by name, each as long as ``times_ns``; the end of a name is its unit, such
            as ``cpu0_mhz``, ``package-0_uj``, ``VDD_IN_mw`` or ``cpu-thermal_c``. ``None`` where
            one reading failed.
        flags: what a counter or register of throttling said, by its name, in the order of
            ``times_ns``; 0 for nothing.
        absent: for each kind of sensor that could not be read, why.
    """

    period_ns: int
    times_ns: Tuple[int, ...]
    series: Dict[str, Tuple[Optional[float], ...]]
    flags: Dict[str, Tuple[Optional[int], ...]] = field(default_factory=dict)
    absent: Dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bulk:
    """Samples that were all issued at once and done in batches: the raw part of ``offline``.

    Attributes:
        samples: how many.
        every: how many samples lie between two marks.
        marks_ns: when so many samples more were done, from the issue on; the last is when all were.
    """

    samples: int
    every: int
    marks_ns: Tuple[int, ...]


@dataclass(frozen=True)
class Trial:
    """Queries that arrived at random at one rate: the raw part of ``server``.

    Attributes:
        rate_per_s: of the Poisson process that drew the arrivals.
        arrivals_ns: when each query was due, from the start of the trial.
        latency_ns: from when it was due until its answer was there.
    """

    rate_per_s: float
    arrivals_ns: Tuple[int, ...]
    latency_ns: Tuple[int, ...]


@dataclass(frozen=True)
class ProcessRun:
    """What one fresh process measured.

    Attributes:
        order: its place in the interleaved order of all processes of the benchmark.
        warmup_ns: latencies before the steady state, kept.
        warmup_converged: whether a steady state was reached.
        infer_ns: latencies, host input ready to host output readable, in their order. Of one
            sample, in ``multi_stream`` of one query of as many samples as there are streams; empty
            in ``offline`` and ``server``, which have ``bulk`` and ``trials``.
        pre_ns: normalising one uint8 image.
        post_ns: turning logits into a label.
        cold_start: see there.
        peak_pss_bytes: most memory that the process had until its first inference had ended,
            before the harness loaded its images, its share of shared pages (PSS); ``None`` where
            unknown.
        pss_before_load_bytes: likewise before the artefact was loaded.
        device_bytes: what loading and the first run took of a device's memory, as the runtime tells
            it; ``None`` where it does not, with the reason in the record's ``absent``.
        noise: what else happened on the machine meanwhile: ``foreign_pct`` and ``steal_pct`` of its
            CPU time, a fixed piece of arithmetic timed before and after, involuntary switches.
        gpu_ns: the device's own time of some further runs, copies included, by its own events;
            empty where the runtime cannot tell.
        issued_ns: when each query of ``infer_ns`` was issued, from the start of the measured part.
        kept_every: n where every n-th sample is in ``infer_ns``; 1 for all.
        references: the reference kernel between blocks of ``infer_ns``; empty where its energy
            would be counted in, in ``sustained``.
        decode_ns: encoded bytes to pixels of their own size, for images of the bundle; empty where
            it could not be measured, with the reason in the record's ``absent``.
        resize_ns: those to the model's geometry; likewise.
        e2e_ns: encoded bytes to label, all stages in one; likewise.
        rotated_ns: latencies over changing inputs, in blocks that alternate with ``repeated_ns``.
        repeated_ns: latencies over one input again and again within a block, to see whether the
            runtime caches results.
        overhead_ns: what the timed loop measures of a call that does nothing.
        bulk: of ``offline``, else ``None``.
        trials: of ``server``, else empty.
        sensors: see there; ``None`` where none was read.
        faults: what the process itself found wrong with its outputs; each makes it invalid.
        notes: what else it has to tell the reader.
    """

    order: int
    warmup_ns: Tuple[int, ...]
    warmup_converged: bool
    infer_ns: Tuple[int, ...]
    pre_ns: Tuple[int, ...]
    post_ns: Tuple[int, ...]
    cold_start: ColdStart
    peak_pss_bytes: Optional[int]
    pss_before_load_bytes: Optional[int]
    device_bytes: Optional[int] = None
    noise: Dict[str, Any] = field(default_factory=dict)
    gpu_ns: Tuple[int, ...] = ()
    issued_ns: Tuple[int, ...] = ()
    kept_every: int = 1
    references: Tuple[Reference, ...] = ()
    decode_ns: Tuple[int, ...] = ()
    resize_ns: Tuple[int, ...] = ()
    e2e_ns: Tuple[int, ...] = ()
    rotated_ns: Tuple[int, ...] = ()
    repeated_ns: Tuple[int, ...] = ()
    overhead_ns: Tuple[int, ...] = ()
    bulk: Optional[Bulk] = None
    trials: Tuple[Trial, ...] = ()
    sensors: Optional[Sensors] = None
    faults: Tuple[str, ...] = ()
    notes: Tuple[str, ...] = ()
