"""A bundle that is opened for predictions runs as it was measured, on pixels that it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgexfer.core.bundle import read_manifest
from edgexfer.core.errors import BackendError, DataError
from edgexfer.core.files import read_json, write_json
from edgexfer.export.load import load_bundle
from tests.bundles import LABELS, SIZE, make_bundle, reseal


def test_the_profile_decides_how_an_artefact_runs(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    place = bundle / "profiles/x86-null.json"
    write_json(place, {**read_json(place), "options": {"nonsense": 1}})
    reseal(bundle, read_manifest(bundle))
    with pytest.raises(BackendError, match="backend null: has no option 'nonsense'"):
        load_bundle(bundle)


@pytest.mark.ort
def test_the_first_artefact_that_runs_here_is_taken(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", ("null-fp32", "onnxruntime-fp32"))
    place = bundle / "profiles/x86-null.json"
    write_json(place, {**read_json(place), "options": {"nonsense": 1}})
    reseal(bundle, read_manifest(bundle))
    with load_bundle(bundle) as found:
        assert found.artefact.name == "x86-onnxruntime-fp32"
    with pytest.raises(BackendError, match="has no option 'nonsense'"):
        load_bundle(bundle, "x86-null-fp32")


def test_probabilities_are_by_class_name(tmp_path: Path) -> None:
    with load_bundle(make_bundle(tmp_path / "a bundle, größer")) as bundle:
        found = bundle.predict(np.zeros((SIZE, SIZE, 3), np.uint8))
    assert tuple(found.probabilities) == LABELS
    assert found.label == max(found.probabilities, key=found.probabilities.__getitem__)
    assert sum(found.probabilities.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((SIZE, SIZE, 3), np.float32),
        np.zeros((SIZE, SIZE), np.uint8),
        np.zeros((SIZE, SIZE, 4), np.uint8),
        np.zeros((3, SIZE, SIZE), np.uint8),
        np.zeros((0, SIZE, 3), np.uint8),
    ],
)
def test_other_pixels_are_refused(pixels: Any, tmp_path: Path) -> None:
    with load_bundle(make_bundle(tmp_path / "bundle")) as bundle:
        with pytest.raises(DataError, match="expected uint8") as caught:
            bundle.predict(pixels)
        assert "RGB pixels on 0..255" in caught.value.fix
