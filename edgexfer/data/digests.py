"""Hashes of files' contents, remembered in the cache for as long as the files do not change.

Every stage of a trip opens the same data set; only the first one has to read all of it.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from edgexfer.core.errors import EdgexferError
from edgexfer.core.files import make_dir, read_json, sha256_bytes, write_atomic
from edgexfer.data.cache import cache_dir
from edgexfer.data.decode import read_file

# A file that was changed this recently could change again without its time stamp showing it.
_FRESH_NS = 2_000_000_000


class Digests:
    """Hashes of the files of one folder."""

    def __init__(self, root: Path) -> None:
        """Read what is remembered of the folder."""
        self._root, self._changed = root, False
        name = sha256_bytes(os.fsencode(root.resolve()))[:32]
        self._place = cache_dir() / "digests" / f"{name}.json"
        self._known: dict[str, list[object]] = {}
        with suppress(EdgexferError):  # none yet, or damaged: all files are read again
            self._known = dict(read_json(self._place))

    def of(self, key: str) -> str:
        """Return the SHA-256 of a file's content.

        Raises:
            DataError: see ``read_file``.
        """
        path = self._root / key
        stamp = _stamp(path)
        known = self._known.get(key)
        if stamp and known and known[1:] == stamp:
            return str(known[0])
        digest = sha256_bytes(read_file(path, str(path)))
        # The kernel sets the change time, which no program can put back as it can the other one.
        if stamp and time.time_ns() - stamp[2] > _FRESH_NS:
            self._known[key] = [digest, *stamp]
            self._changed = True
        return digest

    def save(self) -> None:
        """Remember what was read; where the cache cannot be written, the next one reads again."""
        if self._changed:
            with suppress(EdgexferError):
                make_dir(self._place.parent)
                write_atomic(self._place, json.dumps(self._known))


def _stamp(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
