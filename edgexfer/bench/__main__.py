"""The command line inside the packed device side: ``python3 edgexfer.pyz VERB ...``.

It needs numpy and one runtime. ``bench``, ``verify``, ``trtexec`` and ``doctor`` are for people on
the board, ``job``, ``peaks`` and ``facts`` for a host that drives it.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
from pathlib import Path
from typing import List, Optional

from edgexfer.bench.child import limit_of, result_of, run_child
from edgexfer.bench.job import Job, Result, import_numpy, read_job
from edgexfer.core.bundle import get_artefact, verify_files
from edgexfer.core.codec import encode
from edgexfer.core.errors import EdgexferError, InputError
from edgexfer.core.files import make_dir, write_json
from edgexfer.core.record import SCENARIOS, Record, write_record
from edgexfer.core.stats import median


def main(argv: Optional[List[str]] = None) -> int:
    """Run one verb and return its exit code; errors are two lines on stderr."""
    args = _parser().parse_args(argv)
    try:
        code: int = args.verb(args)
    except EdgexferError as error:
        sys.stderr.write(f"error: {error.what}\nfix: {error.fix}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\nfix: run the same command again\n")
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgexfer.pyz", description="Measure and verify edgexfer bundles on this machine."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    _add_bench(verbs.add_parser("bench", help="measure a bundle's artefacts, one record each"))

    verify = verbs.add_parser("verify", help="check hashes, preprocess and golden outputs")
    verify.add_argument("bundle", type=Path)
    verify.add_argument("--json", action="store_true", help="print one JSON document")
    verify.set_defaults(verb=_verify)

    trtexec = verbs.add_parser("trtexec", help="time TensorRT artefacts with the board's trtexec")
    trtexec.add_argument("bundle", type=Path)
    trtexec.add_argument("--artefact", help="only this one; without it, all that are for TensorRT")
    trtexec.add_argument("--tool", help="path of trtexec; else the one of JetPack")
    trtexec.add_argument("--seconds", type=_count, default=10, help="least time that each measures")
    trtexec.add_argument("--transfers", action="store_true", help="copy in- and outputs each time")
    trtexec.add_argument("--out", type=Path, help="folder; else BUNDLE-bench")
    trtexec.set_defaults(verb=_trtexec)

    job = verbs.add_parser("job", help="do one job in this process")
    job.add_argument("job", type=Path)
    job.add_argument("--out", type=Path, required=True, help="file for the result")
    job.set_defaults(verb=_job)

    doctor = verbs.add_parser("doctor", help="say what this machine lacks, and what mends it")
    doctor.add_argument("--backend", default="onnxruntime", help="the runtime that it is to have")
    doctor.add_argument("--json", action="store_true", help="print one JSON document")
    doctor.set_defaults(verb=_doctor)

    peaks = verbs.add_parser("peaks", help="time kernels that a host wrote, for a profile")
    peaks.add_argument("kernels", type=Path, help="folder with kernels.json")
    peaks.add_argument("--backend", required=True, help="a runtime that loads ONNX")
    peaks.set_defaults(verb=_peaks)

    show = verbs.add_parser("facts", help="print what is known of this machine, as JSON")
    show.set_defaults(verb=_facts)
    return parser


def _add_bench(bench: argparse.ArgumentParser) -> None:
    """Add the options of ``edgexfer bench`` on a host that say how is measured."""
    bench.add_argument("bundle", type=Path)
    bench.add_argument("--artefact", help="only this one; else all that are for this machine")
    bench.add_argument("--out", type=Path, help="folder, or FILE.json for one; else BUNDLE-bench")
    bench.add_argument("--scenario", choices=SCENARIOS, default=SCENARIOS[0])
    bench.add_argument("--streams", type=_count, default=1, help="calls that may run at a time")
    bench.add_argument("--batch", type=_count, default=1, help="samples per call")
    bench.add_argument("--latency-bound-ms", type=_positive, help="most p99 that server allows")
    bench.add_argument("--processes", type=_count, default=5, help="fresh processes per artefact")
    bench.add_argument("--seconds", type=_positive, help="least time of each; else the scenario's")
    bench.add_argument("--samples", type=_count, default=100, help="least inferences of each")
    bench.add_argument("--threads", type=int, default=0, help="0 leaves the choice to the runtime")
    bench.add_argument("--seed", type=int, default=0, help="of the interleaved order")
    bench.add_argument(
        "--allow-clock-changes",
        action="store_true",
        help="set the clocks to their highest while it is measured, and put them back",
    )
    bench.add_argument("--power-mode", default="", help="of a Jetson, by name, for the same time")
    bench.set_defaults(verb=_bench)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _bench(args: argparse.Namespace) -> int:
    import tempfile

    from edgexfer.bench.lock import no_host_beside
    from edgexfer.bench.suite import Subject, refuse_inside, run_suite, settings_from
    from edgexfer.bench.targets import artefacts_for

    manifest = verify_files(args.bundle)
    named = get_artefact(manifest, args.artefact) if args.artefact else None
    targets = None if named is None else [named.target]
    artefacts = artefacts_for(args.bundle, manifest, targets, platform.machine())
    if named is not None:
        artefacts = [named]
    settings = settings_from(args)
    out = args.out or _beside(args.bundle)
    refuse_inside(out, [args.bundle])
    single = out.suffix == ".json"
    if single and len(artefacts) > 1:
        raise InputError(
            f"--out {out}: is one file for {len(artefacts)} artefacts",
            "name one with --artefact, or a folder with --out",
        )
    folder = make_dir(out.parent if single else out)
    statuses = []
    with no_host_beside(), tempfile.TemporaryDirectory(prefix="edgexfer-") as scratch:
        subjects = [Subject(args.bundle, manifest, artefact) for artefact in artefacts]
        suite = run_suite(subjects, settings, lambda job: _execute(job, Path(scratch)))
        for subject, record in suite:
            path = out if single else folder / f"{subject.artefact.name}.json"
            write_record(path, record)
            sys.stdout.write(f"{path}  {_summary(record)}\n")
            sys.stdout.flush()
            statuses.append(record.status)
    # A record that is not to be trusted says so itself; only what was not measured is a failure.
    return 1 if "failed" in statuses else 0


def _beside(bundle: Path) -> Path:
    place = bundle.resolve()
    return place.with_name(f"{place.name}-bench")


def _execute(job: Job, scratch: Path) -> Result:
    """Do a job in a fresh process of this very program."""
    asked, answer = scratch / f"job-{job.order}.json", scratch / f"result-{job.order}.json"
    write_json(asked, encode(job))
    import zipfile

    program = [sys.argv[0]] if zipfile.is_zipfile(sys.argv[0]) else ["-m", "edgexfer.bench"]
    argv = [sys.executable, *program, "job", str(asked), "--out", str(answer)]
    limit_s = limit_of(job)
    return result_of(job, run_child(argv, limit_s), answer, limit_s)


def _summary(record: Record) -> str:
    parts = [record.status]
    rate = record.throughput or record.server
    if rate is not None and rate.per_s is not None:
        parts.append(f"{rate.per_s:.1f} {'images' if record.throughput else 'queries'}/s")
    for name in ("p50", "p90"):
        value = record.latency[name].value
        if value is not None:
            parts.append(f"{name} {value / 1e6:.3f} ms")
    if record.accuracy is not None:
        parts.append(f"top-1 {record.accuracy.top1_pct:.2f} %")
    return "  ".join([*parts, *record.reasons])


def _verify(args: argparse.Namespace) -> int:
    import_numpy()
    from edgexfer.bench.verify import nothing_ran, verify_bundle

    findings = verify_bundle(args.bundle, platform.machine())
    if args.json:
        sys.stdout.write(json.dumps(encode(findings)) + "\n")
    else:
        for finding in findings:
            sys.stdout.write(f"{finding.status:8}{finding.name}  {finding.detail}\n")
    if nothing_ran(findings):
        sys.stderr.write(f"{nothing_ran(findings)}\n")
    return 1 if any(finding.status == "failed" for finding in findings) else 0


def _trtexec(args: argparse.Namespace) -> int:
    from edgexfer.backends._trtexec import TRTEXEC, Timing
    from edgexfer.bench.lock import no_host_beside
    from edgexfer.bench.suite import refuse_inside
    from edgexfer.bench.trtexec import try_artefact

    manifest = verify_files(args.bundle)
    artefacts = [a for a in manifest.artefacts if a.backend == "tensorrt"]
    if args.artefact:
        artefacts = [get_artefact(manifest, args.artefact)]
    if not artefacts:
        raise InputError(f"{args.bundle}: has nothing for TensorRT", "export for such a target")
    out = args.out or _beside(args.bundle)
    refuse_inside(out, [args.bundle])
    timing = Timing(seconds=args.seconds, transfers=args.transfers)
    with no_host_beside():
        for artefact in artefacts:
            trial = try_artefact(args.bundle, manifest, artefact, args.tool or TRTEXEC, timing)
            path = make_dir(out) / f"{artefact.name}-trtexec.json"
            write_json(path, encode(trial))
            parts = [f"{path}  GPU compute p50 {median(trial.compute_ns) / 1e6:.3f} ms"]
            sys.stdout.write("  ".join([*parts, *trial.warnings]) + "\n")
    return 0


def _job(args: argparse.Namespace) -> int:
    from edgexfer.bench.run import run_job
    from edgexfer.bench.stall import die_with_parent

    die_with_parent()
    result = run_job(read_job(args.job))
    write_json(args.out, encode(result))
    if result.failure is None:
        return 0
    sys.stderr.write(f"error: {result.failure.what}\nfix: {result.failure.fix}\n")
    return result.failure.exit_code


def _doctor(args: argparse.Namespace) -> int:
    from edgexfer.bench.checkup import check_up, exit_code, lines

    findings = check_up(args.backend)
    text = json.dumps(encode(findings)) if args.json else "\n".join(lines(findings))
    sys.stdout.write(text + "\n")
    return exit_code(findings)


def _peaks(args: argparse.Namespace) -> int:
    import_numpy()
    from edgexfer.bench.emulated import refuse_emulation
    from edgexfer.bench.peaks import measure_memory, measure_peaks, read_kernels

    refuse_emulation("a profile's peaks")
    found = {**measure_peaks(read_kernels(args.kernels), args.backend), **measure_memory()}
    sys.stdout.write(json.dumps(encode(found)) + "\n")
    return 0


def _facts(args: argparse.Namespace) -> int:  # noqa: ARG001
    from edgexfer.bench.device import facts

    sys.stdout.write(json.dumps(facts(), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
