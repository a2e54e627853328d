"""A sealed bundle, opened for predictions: the same decoder, geometry and artefact as measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgexfer.bench.job import load_artefact, read_profile
from edgexfer.core.backend import Session, get_backend
from edgexfer.core.bundle import Artefact, Manifest, get_artefact, verify_files
from edgexfer.core.errors import BackendError, BundleError, DataError
from edgexfer.core.tasks import spans

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Prediction:
    """What an artefact says of one image.

    Attributes:
        label: name of the most probable class; of several tasks those of each, with commas between
            them.
        probabilities: softmax of the logits, by class name, ``TASK=CLASS`` of several tasks.
        artefact: which artefact said so.
        notes: what was done to the image to make it plain RGB.
        labels: the most probable class of each of several tasks, by its name; empty for one.
    """

    label: str
    probabilities: dict[str, float]
    artefact: str
    notes: tuple[str, ...]
    labels: dict[str, str] = field(default_factory=dict)


class LoadedBundle:
    """One artefact of a bundle, ready to predict; use it as a context manager or close it.

    Attributes:
        manifest: of the bundle.
        artefact: the one that runs.
    """

    def __init__(self, manifest: Manifest, artefact: Artefact, session: Session) -> None:
        """Use ``load_bundle``; this only keeps what it found."""
        self.manifest, self.artefact, self._session = manifest, artefact, session

    def __enter__(self) -> LoadedBundle:
        """Return the bundle itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the session."""
        self.close()

    def predict(self, image: str | Path | bytes | np.ndarray) -> Prediction:
        """Classify one image.

        Args:
            image: a file, its encoded bytes, or decoded uint8 RGB pixels (H, W, 3).

        Raises:
            DataError: the image cannot be read.
        """
        import numpy as np

        from edgexfer.bench.feed import normalise, run_once

        fitted, notes = self.prepare(image)
        batch = normalise(fitted[None], self.manifest.preprocess)
        logits = run_once(self._session, batch)[0].astype(np.float64)
        names, tasks = self.manifest.labels, self.manifest.tasks
        by_name: dict[str, float] = {}
        chosen = []
        for start, end in spans(tasks, len(names)):
            shares = np.exp(logits[start:end] - logits[start:end].max())
            shares /= shares.sum()
            by_name.update(zip(names[start:end], shares.tolist(), strict=True))
            chosen.append(int(shares.argmax()))
        if not tasks:
            return Prediction(names[chosen[0]], by_name, self.artefact.name, notes)
        labels = {t.name: t.classes[best] for t, best in zip(tasks, chosen, strict=True)}
        whole = ", ".join(f"{task}={name}" for task, name in labels.items())
        return Prediction(whole, by_name, self.artefact.name, notes, labels)

    def prepare(self, image: str | Path | bytes | np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the image as training and evaluation saw theirs, uint8 (H, W, 3), and notes on it.

        Raises:
            DataError: the image cannot be read, or the pixels are none such.
        """
        import numpy as np

        from edgexfer.data.decode import decode, decode_size, fit

        preprocess = self.manifest.preprocess
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise DataError(
                    f"image: is {image.dtype} {image.shape}, expected uint8 (height, width, 3)",
                    "hand over RGB pixels on 0..255, or the file itself",
                )
            return fit(image, preprocess), ()
        source = image if isinstance(image, bytes) else Path(image)
        name = "image" if isinstance(image, bytes) else str(image)
        decoded = decode(source, name, at_least=decode_size(preprocess))
        return fit(decoded.image, preprocess), decoded.notes

    def close(self) -> None:
        """Let go of the runtime's memory."""
        self._session.close()


def load_bundle(path: Path, artefact: str | None = None) -> LoadedBundle:
    """Check a bundle's hashes and load one of its artefacts.

    Args:
        path: the bundle.
        artefact: name of the artefact; ``None`` takes the first that runs here.

    Raises:
        BundleError: the bundle is damaged, or has no such artefact.
        BackendError: none runs here; the error of the first, such as a runtime that is missing.
    """
    manifest = verify_files(path)
    chosen = [get_artefact(manifest, artefact)] if artefact else list(manifest.artefacts)
    if not chosen:
        raise BundleError(f"{path}: holds no artefact", "export it again for a target")
    refused: BackendError | None = None
    for candidate in chosen:
        profile = read_profile(path, manifest, candidate)
        try:
            session = load_artefact(path, candidate, profile, get_backend(candidate.backend))
        except BackendError as error:
            refused = refused or error
            continue
        return LoadedBundle(manifest, candidate, session)
    assert refused is not None
    raise refused
