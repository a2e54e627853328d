"""Where everything comes from: for each run, bundle and record its makers, parents and hashes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgexfer.core.codec import encode
from edgexfer.report import words
from edgexfer.report.collect import Found
from edgexfer.report.rows import Row


def lineage(found: Found, rows: Iterable[Row]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return a title and ``(key path, text)`` pairs for each run, bundle and record."""
    told = []
    for run in found.runs:
        info = encode(run.info)
        items = {k: info[k] for k in ("kind", "status", "created_utc", "data", "data_fingerprint")}
        items.update({k: info[k] for k in ("config", "parents", "lineage", "result")})
        if run.card is not None:
            items["model"] = encode(run.card)
        told.append((f"Run {words.clean(run.path)}", _flat(items)))
    for bundle in found.bundles:
        manifest = encode(bundle.manifest)
        items = {"manifest_sha256": bundle.manifest_sha256}
        names = ("model", "parameters", "preprocess", "calibration", "lineage", "created_utc")
        items.update({k: manifest[k] for k in names})
        items["artefacts"] = {
            a["name"]: {k: a[k] for k in ("files", "opset", "scheme", "made_by", "parent_sha256")}
            for a in manifest["artefacts"]
        }
        told.append((f"Bundle {words.clean(bundle.path)}", _flat(items)))
    paths = {id(f.record): f.path for f in found.records}
    facts = (
        *("definitions", "bundle", "artefact", "active", "device", "settings", "data", "power"),
        *("lineage", "created_utc"),
    )
    for row in rows:
        record = {name: encode(getattr(row.record, name)) for name in facts}
        title = f"Record {row.key}: {words.clean(paths[id(row.record)])}"
        told.append((title, _flat(record)))
    return told


def _flat(value: Any, key: str = "") -> list[tuple[str, str]]:
    """Return the leaves of a JSON value as ``(key path, text)``; empty ones are left out."""
    if isinstance(value, dict):
        return [leaf for k, v in value.items() for leaf in _flat(v, f"{key}.{k}" if key else k)]
    if isinstance(value, list) and any(isinstance(v, (dict, list)) for v in value):
        return [leaf for i, v in enumerate(value) for leaf in _flat(v, f"{key}[{i}]")]
    if isinstance(value, list):
        return [(key, ", ".join(str(v) for v in value))] if value else []
    return [] if value is None else [(key, str(value))]
