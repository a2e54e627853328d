"""The export stage: a trained run becomes a sealed bundle for one or several targets.

How each file is made is in ``lower.py``, what each must meet in ``parity.py``, and how the folder
appears whole or not at all in ``publish.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import edgexfer
from edgexfer.core.bundle import (
    SCHEMA,
    EvalSet,
    FileEntry,
    Manifest,
    file_entry,
    seal,
)
from edgexfer.core.codec import encode
from edgexfer.core.errors import BundleError, InputError, RecipeError, RunError
from edgexfer.core.explanation import Step, explanation_folder
from edgexfer.core.files import fingerprint, write_json
from edgexfer.core.model import ModelCard, read_card
from edgexfer.core.profile import HardwareProfile
from edgexfer.core.progress import Progress
from edgexfer.core.rundir import RunInfo, read_run
from edgexfer.export.choose import Tried, all_kept
from edgexfer.export.decide import attempt, decide, drop_losers, refuse_empty
from edgexfer.export.explain import clear_explanations
from edgexfer.export.flavour import for_release, wanted_precisions
from edgexfer.export.geometry import check_images
from edgexfer.export.ladder import GOLDEN_IMAGES, Ladder, Search, max_drops
from edgexfer.export.lower import Lowering
from edgexfer.export.measure import Board, elsewhere
from edgexfer.export.originals import write_originals
from edgexfer.export.parity import Probe, synthetic_images
from edgexfer.export.publish import find_same, making
from edgexfer.export.readme import bundle_readme
from edgexfer.models.store import load_model
from edgexfer.profiles import find_profile
from edgexfer.quantize.calibration import Calibration, HeldOut, draw_calibration, hold_out
from edgexfer.quantize.ranges import TrainedRanges, is_restricted, read_ranges
from edgexfer.recipe import DataSection, ExportSection
from edgexfer.training.host import lineage, tune_malloc
from edgexfer.training.stage import open_data

if TYPE_CHECKING:
    from edgexfer.data.cache import ProgressFactory
    from edgexfer.data.dataset import Dataset


@dataclass(frozen=True)
class _Source:
    """What a bundle is made from."""

    run: Path
    card: ModelCard
    info: RunInfo
    trained: TrainedRanges | None
    section: ExportSection
    profiles: tuple[HardwareProfile, ...]
    jobs: tuple[tuple[HardwareProfile, str], ...]

    @property
    def undecided(self) -> list[HardwareProfile]:
        """The targets whose precision is to be chosen."""
        made = [profile.name for profile, _ in self.jobs]
        several = [p for p in self.profiles if made.count(p.name) > 1]
        return several if self.section.precision == "auto" else []


def export(
    run: Path,
    section: ExportSection,
    out: Path,
    *,
    progress: ProgressFactory | None = None,
    explain: bool = False,
    board: Board | None = None,
) -> Manifest:
    """Make a bundle: lower, quantize, compare every hop with the one before, seal.

    The same request again finds its bundle and returns at once.

    Args:
        run: a finished training.
        section: targets, precision, limits.
        out: folder of the bundle; it appears only if every rung of the ladder has passed.
        progress: starts a display, such as ``Progress``; ``None`` shows nothing.
        explain: write beside the bundle what INT8 does to each layer, whether it passes or not.
        board: measures the candidates of targets that are not this machine; where it cannot be had
            in the end, their choice stays open with the reason.

    Returns:
        The manifest that was sealed.

    Raises:
        ProfileError: a target is unknown or wrong, or none lists the release.
        RecipeError: a target is named twice, or lacks the precision; or the placement is of no use.
        InputError: there is a board, and nothing to measure on it.
        RunError: the run holds no finished model, or its data has changed since.
        DataError: there are no images to calibrate or evaluate with.
        ModelError: the model cannot be exported.
        ParityError: a rung of the ladder failed; nothing is left at ``out``.
        BackendError: a target's runtime is missing, or refuses the model.
        BundleError: something else is at ``out``.
    """
    source = _read(run, section)
    if section.placement != "own":
        _refuse_placement(source, explain)
    if board is not None:
        _refuse_idle(board, source)
    request = _request(source, board)
    same = find_same(out, request)
    if same is not None:
        _refuse_unexplained(out, explain)
        return same
    tune_malloc()
    dataset = _open(source)
    steps = _Steps(progress, 2 + len(source.jobs) + bool(source.undecided))
    with making(out) as folder, steps.shown():
        explained = explanation_folder(out) if explain else None
        if explained is not None:
            clear_explanations(explained)
        probe, evaluation = _write_images(folder, dataset, source)
        calibration = _calibrate(dataset, source, probe)
        steps.done("images")
        model, card = load_model(run)
        files = folder / "models"
        files.mkdir()
        placement = section.placement
        lowering = Lowering(model, card, files, calibration, source.trained, placement)
        search = Search(partial(_hold_out, dataset, source, calibration, probe), steps.tried)
        drops = max_drops(source.profiles, section)
        ladder = Ladder(folder, lowering, probe, drops, search, explained)
        ladder.stand(model, card.preprocess)
        if any(profile.backend != "torch" for profile in source.profiles):
            ladder.check_onnx()
        steps.done("fp32 reference")
        tried: dict[str, list[Tried]] = {profile.name: [] for profile in source.profiles}
        for profile, precision in source.jobs:
            tried[profile.name].append(attempt(ladder, profile, precision, section.precision))
            steps.done(f"{profile.name} {precision}")
        refuse_empty(tried)
        artefacts = tuple(t.artefact for ts in tried.values() for t in ts if t.artefact)
        _write_profiles(folder, source)
        manifest = Manifest(
            schema=SCHEMA,
            name=card.name,
            model=card.name,
            parameters=card.parameters,
            labels=card.classes,
            preprocess=card.preprocess,
            profiles={p.name: f"profiles/{p.name}.json" for p in source.profiles},
            artefacts=artefacts,
            evaluation=evaluation,
            golden_images=GOLDEN_IMAGES,
            reference=ladder.score(),
            parity=tuple(ladder.rungs),
            calibration=calibration.summary() if calibration else {},
            lineage=_lineage(source, request, steps.seconds),
            files=(),
            created_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            choices=all_kept(source.profiles, tried) if section.precision != "auto" else (),
            tasks=card.tasks,
        )
        if source.undecided:
            listed = replace(manifest, files=_other_files(folder, manifest))
            manifest = decide(folder, listed, source.undecided, tried, board)
            drop_losers(folder, manifest, lowering)
            steps.done("choice")
        _write_extras(folder, source, manifest)
        manifest = replace(manifest, files=_other_files(folder, manifest))
        seal(folder, manifest)
    return manifest


def _refuse_idle(board: Board, source: _Source) -> None:
    """Refuse a board that would be left without work, before there is any."""
    if not any(elsewhere(profile) for profile in source.undecided):
        raise InputError(
            f"export: nothing is to be measured on {board.name}: each target is this machine, or "
            "its precision is given",
            "leave --on out, or export for the board's own profile: edgexfer profiles probe --on",
        )


def _refuse_unexplained(out: Path, explain: bool) -> None:
    """Refuse to explain a bundle that was sealed without."""
    if explain and not explanation_folder(out).is_dir():
        raise BundleError(
            f"{out}: was made without an explanation, which is made with the bundle",
            "delete it, or choose another --out",
        )


def _refuse_placement(source: _Source, explain: bool) -> None:
    """Refuse another tool's placement where it would place nothing, or something else is asked."""
    fix = "leave --placement out"
    placed = [profile for profile, precision in source.jobs if precision == "int8"]
    placed = [profile for profile in placed if is_restricted(profile)]
    if not placed:
        raise RecipeError(
            f"export: placement {source.section.placement} is for INT8 on TensorRT, which no "
            "target has here",
            f"{fix}, or name a target such as jetson",
        )
    if source.trained is not None and any(source.trained.suit(profile) for profile in placed):
        raise RecipeError(f"{source.run}: was trained for edgexfer's own placement", fix)
    if explain:
        raise RecipeError("export: --explain measures edgexfer's own placement", fix)


class _Steps:
    """Counts the parts of an export and how long each took."""

    def __init__(self, progress: ProgressFactory | None, total: int) -> None:
        """Start the clock."""
        self._shown = (progress or _quiet)("export", total, "part")
        self._since = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Close the display whatever ends the export."""
        with self._shown:
            yield

    def done(self, part: str) -> None:
        """Count one part that has just ended."""
        now = time.monotonic()
        self.seconds[part] = round(now - self._since, 3)
        self._since = now
        self._shown.update(1, part)

    def tried(self, step: Step) -> None:
        """Show one try of a search that goes on."""
        self._shown.update(0, f"INT8 tried, {step.in_words()}")


def _quiet(title: str, total: int, unit: str) -> Progress:
    return Progress(title, total, unit, quiet=True)


def _read(run: Path, section: ExportSection) -> _Source:
    profiles = tuple(find_profile(target) for target in section.targets)
    if not profiles:
        raise RecipeError("export: no target is named", "name one with --target")
    if section.stack is not None:
        profiles = for_release(profiles, section.stack)
    names = [profile.name for profile in profiles]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RecipeError(f"target {twice[0]} is named twice", "name it once")
    jobs = tuple((p, q) for p in profiles for q in wanted_precisions(p, section))
    return _Source(run, read_card(run), read_run(run), read_ranges(run), section, profiles, jobs)


def _request(source: _Source, board: Board | None) -> str:
    """Return the hash of all that decides what a bundle holds."""
    return fingerprint(
        {
            "card": encode(source.card),
            "trained": encode(source.trained),
            "data": source.info.data_fingerprint,
            "section": encode(source.section),
            "profiles": encode(source.profiles),
            "on": board.name if board is not None else None,
            "edgexfer": edgexfer.__version__,
        }
    )


def _open(source: _Source) -> Dataset:
    dataset = open_data(DataSection(**source.info.data))
    if dataset.fingerprint != source.info.data_fingerprint:
        raise RunError(
            f"{source.run}: its data {dataset.spec} has changed since the training",
            "restore the data, or train again",
        )
    for i, (here, there) in enumerate(zip_longest(source.card.classes, dataset.classes)):
        if here != there:
            raise RunError(
                f"{source.run}: class map: output {i} is {here!r} to the model's card and "
                f"{there!r} to the data it was trained with",
                "copy the run again from where it was trained, or train again",
            )
    return dataset


def _write_images(folder: Path, dataset: Dataset, source: _Source) -> tuple[Probe, EvalSet]:
    """Draw the evaluation images and write them as the model's geometry makes them."""
    from edgexfer.data.images import sample

    preprocess = source.card.preprocess
    images, labels, keys = sample(
        dataset,
        "test",
        source.section.evaluation_images,
        preprocess,
        allow_quarantined=DataSection(**source.info.data).allow_quarantined,
    )
    check_images(dataset, "test", keys, images, labels, preprocess)
    (folder / "evaluation").mkdir()
    np.save(folder / "evaluation/images.npy", images)
    np.save(folder / "evaluation/labels.npy", labels)
    probe = Probe(images, labels, synthetic_images(preprocess.size), preprocess, dataset.tasks)
    evaluation = EvalSet(
        images="evaluation/images.npy",
        labels="evaluation/labels.npy",
        split="test",
        n=len(images),
        n_split=len(dataset.splits["test"].keys),
        data_fingerprint=dataset.fingerprint,
        encoded=write_originals(folder, dataset, "test", keys, preprocess),
    )
    return probe, evaluation


def _calibrate(dataset: Dataset, source: _Source, probe: Probe) -> Calibration | None:
    if all(precision != "int8" for _, precision in source.jobs):
        return None
    wanted = source.section.calibration_images
    return draw_calibration(dataset, wanted, source.card.preprocess, measured=probe.images)


def _hold_out(
    dataset: Dataset, source: _Source, calibration: Calibration | None, probe: Probe
) -> HeldOut:
    assert calibration is not None, "only INT8 is searched for"
    wanted = source.section.calibration_images
    allow = DataSection(**source.info.data).allow_quarantined
    return hold_out(dataset, wanted, calibration, measured=probe.images, allow_quarantined=allow)


def _write_profiles(folder: Path, source: _Source) -> None:
    (folder / "profiles").mkdir()
    for profile in source.profiles:
        write_json(folder / "profiles" / f"{profile.name}.json", encode(profile))


def _write_extras(folder: Path, source: _Source, manifest: Manifest) -> None:
    """Write what people and devices need beside the models."""
    from edgexfer.remote.pack import pack_device_side

    labels = "".join(f"{name}\n" for name in source.card.classes)
    (folder / "labels.txt").write_text(labels, encoding="utf-8")
    readme = bundle_readme(
        source.card, source.profiles, manifest.artefacts, manifest.choices, manifest.parity
    )
    (folder / "README.md").write_text(readme, encoding="utf-8")
    pack_device_side(folder / "edgexfer.pyz")


def _lineage(source: _Source, request: str, seconds: dict[str, float]) -> dict[str, Any]:
    info = source.info
    return {
        "request": request,
        "run": source.run.resolve().name,
        "kind": info.kind,
        "config": info.config,
        "config_sha256": fingerprint(info.config),
        "data_fingerprint": info.data_fingerprint,
        "parents": info.parents,
        "weights_sha256": source.card.weights_sha256,
        "origin": source.card.origin,
        "trained_with": info.lineage,
        "exported_with": lineage(),
        "export": encode(source.section),
        "seconds": seconds,
    }


def _other_files(folder: Path, manifest: Manifest) -> tuple[FileEntry, ...]:
    listed = {entry.path for artefact in manifest.artefacts for entry in artefact.files}
    places = sorted(place for place in folder.rglob("*") if place.is_file())
    entries = (file_entry(folder, place) for place in places)
    return tuple(entry for entry in entries if entry.path not in listed)
