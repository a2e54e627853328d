"""The golden check: does an artefact still give what it gave where it was made?"""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from edgexfer.bench.accuracy import predict
from edgexfer.bench.compare import Difference, compare
from edgexfer.bench.feed import read_array
from edgexfer.core.backend import Session
from edgexfer.core.bundle import Artefact, Manifest
from edgexfer.core.errors import ParityError

DEFAULT_SQNR_DB = 60.0


def check_golden(
    bundle: Path, manifest: Manifest, artefact: Artefact, session: Session
) -> Optional[Difference]:
    """Run the bundle's golden images and compare with the outputs that are stored for the artefact.

    Returns:
        How far they are apart; ``None`` where the bundle has no golden outputs for the artefact.

    Raises:
        ParityError: they are further apart than the artefact's ``golden_sqnr_db`` allows.
        BundleError: the golden files are damaged.
    """
    if artefact.golden is None:
        return None
    preprocess = manifest.preprocess
    images = read_array(bundle, manifest.golden_images, "uint8", (-1, *preprocess.size, 3))
    golden = read_array(bundle, artefact.golden, "float32", (len(images), len(manifest.labels)))
    found = compare(golden, predict(session, images, preprocess), manifest.tasks)
    limit = DEFAULT_SQNR_DB if artefact.golden_sqnr_db is None else artefact.golden_sqnr_db
    if not found.at_least(limit):
        raise ParityError(
            f"{bundle}: artefact {artefact.name} is {found.sqnr_db:.1f} dB from its golden outputs"
            f", the limit is {limit:.0f} dB",
            "use the runtime's version that the manifest names, or export for this one",
        )
    return found
