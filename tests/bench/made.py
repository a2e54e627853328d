"""Processes and records made up from samples, for what works on records alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgexfer.core.record import SCHEMA, Accuracy, Record
from edgexfer.core.samples import ColdStart, ProcessRun
from edgexfer.core.stats import wilson


def make_run(order: int = 0, **changes: Any) -> ProcessRun:
    """Return a quiet process that measured nothing but what ``changes`` say."""
    run = ProcessRun(
        order=order,
        warmup_ns=(),
        warmup_converged=True,
        infer_ns=(),
        pre_ns=(),
        post_ns=(),
        cold_start=ColdStart(10, 20, None, None, 30, 5, 65),
        peak_pss_bytes=300,
        pss_before_load_bytes=100,
    )
    return replace(run, **changes)


def make_record(samples: Sequence[Sequence[int]], *, first: int = 0, **changes: Any) -> Record:
    """Return the raw part of a record, one process for each series of latencies.

    Args:
        samples: of each process, in nanoseconds.
        first: place of the first process in the interleaved order; the others follow two by two.
        changes: fields of the record; those of ``settings`` are added to the others.
    """
    settings = {
        "scenario": "single_stream",
        "batch": 1,
        "streams": 1,
        "threads": 1,
        "processes": len(samples),
        "seed": 0,
        "warmup_s": 1.0,
        "suite": "made",
        **changes.pop("settings", {}),
    }
    record = Record(
        schema=SCHEMA,
        status="ok",
        reasons=(),
        warnings=(),
        bundle={"name": "made", "manifest_sha256": "00"},
        artefact={"name": "made", "backend": "null", "precision": "fp32", "size_bytes": 1000},
        profile={},
        active={},
        device={"cpu": "Example CPU", "machine": "x86_64"},
        settings=settings,
        latency={},
        stages={},
        accuracy=None,
        power=None,
        absent={},
        processes=tuple(
            make_run(first + 2 * i, infer_ns=tuple(each)) for i, each in enumerate(samples)
        ),
        data={"images_sha256": "aa", "labels_sha256": "bb", "n": 100, "split": "test"},
    )
    return replace(record, **changes)


def make_accuracy(predictions: Sequence[int], correct: int) -> Accuracy:
    """Return an accuracy with these predictions."""
    n = len(predictions)
    low, high = wilson(correct, n)
    top1 = 100 * correct / n
    return Accuracy("test", n, correct, top1, 100 * low, 100 * high, None, tuple(predictions))
