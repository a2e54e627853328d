"""The device side as one file: core, backends and bench in an ``edgexfer.pyz``.

Equal sources give equal bytes, whoever packs them: entries are sorted, stored uncompressed, and
carry a fixed date and mode.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import edgexfer
from edgexfer.core.files import PathLike, write_atomic

ROOMS = ("core", "backends", "bench")
_DATE = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16
# Plain enough for any Python 3, so that an old one is told what it lacks.
_MAIN = """\
import sys

if sys.version_info < (3, 8):
    sys.stderr.write("error: Python %d.%d is too old\\n" % sys.version_info[:2])
    sys.stderr.write("fix: use Python 3.8 or newer\\n")
    sys.exit(3)

from edgexfer.bench.__main__ import main

sys.exit(main())
"""


def pack_device_side(out: PathLike) -> Path:
    """Write the device side as a zip that Python can run, and return its path.

    Raises:
        DiskError: it cannot be written.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in [("__main__.py", _MAIN.encode()), *_sources()]:
            info = zipfile.ZipInfo(name, _DATE)
            info.external_attr = _MODE
            info.create_system = 3  # Unix, also where it is packed on something else
            archive.writestr(info, content)
    write_atomic(out, buffer.getvalue())
    return Path(out)


def write_launcher(out: PathLike) -> Path:
    """Write a program that starts the device side from this very package, and return its path.

    For processes on this machine: they find the package compiled, which a zip never is.

    Raises:
        DiskError: it cannot be written.
    """
    parent = str(Path(edgexfer.__file__).parent.parent)
    start = f"import sys\n\nsys.path.insert(0, {parent!r})\n"
    write_atomic(out, start + "from edgexfer.bench.__main__ import main\n\nsys.exit(main())\n")
    return Path(out)


def _sources() -> Iterator[tuple[str, bytes]]:
    package = Path(edgexfer.__file__).parent
    yield "edgexfer/__init__.py", (package / "__init__.py").read_bytes()
    for room in ROOMS:
        for path in sorted((package / room).glob("*.py")):
            yield f"edgexfer/{room}/{path.name}", path.read_bytes()
