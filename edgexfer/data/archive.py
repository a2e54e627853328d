"""Archives of a data set, unpacked once into the cache: member by member, whole or not at all.

Nothing of the archive is trusted: only regular files with plain relative paths are written, and
only below a fresh temporary folder.
"""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zlib
from pathlib import Path

from edgexfer.core.bundle import is_safe
from edgexfer.core.errors import DataError, first_line
from edgexfer.core.files import disk_errors, sha256_file
from edgexfer.data.cache import ProgressFactory, make_entry, quiet

SUFFIXES = (".tar", ".tar.gz", ".tgz")
REPACK = "pack the folder again with `tar -cf data.tar FOLDER`"
# A photo does not shrink by gzip; what unpacks to a hundred times its size is no set of photos.
_MAX_RATIO = 100
_SMALL = 64 << 20
_PIECE = 1 << 20


def unpack(path: Path, progress: ProgressFactory | None = None) -> Path:
    """Unpack an archive into the cache, unless the same content was unpacked before.

    Returns:
        The folder that holds what was packed; its name is the hash of the archive's content.

    Raises:
        DataError: the archive is damaged, or holds links, devices, unsafe or repeated paths, or far
            more bytes than its size allows for.
        DiskError: there is no room for it.
    """
    digest = sha256_file(path)
    return make_entry("unpacked", digest[:32], lambda folder: _fill(path, folder, progress))


def _fill(path: Path, folder: Path, progress: ProgressFactory | None) -> None:
    try:
        with tarfile.open(path, "r:*") as archive:
            members = _checked(path, archive)
            files = [m for m in members if m.isreg()]
            with (progress or quiet)("unpack", len(files), "files") as bar:
                for member in files:
                    _write(archive, member, folder)
                    bar.update()
            # To the very end, where gzip's checksum of all that was read stands.
            while archive.fileobj.read(_PIECE):
                pass
    except FileExistsError as error:
        raise DataError(
            f"{path}: {error.filename} is a file and a folder at once", REPACK
        ) from error
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        # The disk's errors have a number, those of gzip and bzip2 have none.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{path}: is damaged ({first_line(error)})", REPACK) from error


def _checked(path: Path, archive: tarfile.TarFile) -> list[tarfile.TarInfo]:
    budget = max(_SMALL, _MAX_RATIO * path.stat().st_size)
    seen: set[str] = set()
    members = []
    for member in archive:
        name = member.name.removeprefix("./").rstrip("/")
        if name in ("", "."):
            continue
        if not is_safe(name):
            raise DataError(f"{path}: holds the unsafe path {member.name!r}", REPACK)
        if not (member.isreg() or member.isdir()):
            raise DataError(f"{path}: {name} is a link or a device, not a file", REPACK)
        if member.isreg() and name in seen:
            raise DataError(f"{path}: holds {name} twice", REPACK)
        seen.add(name)
        budget -= member.size
        if budget < 0:
            raise DataError(f"{path}: unpacks to more than {_MAX_RATIO} times its size", REPACK)
        members.append(member)
    return members


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    target = folder / member.name.removeprefix("./")
    source = archive.extractfile(member)
    if source is None:
        raise DataError(f"{archive.name!s}: {member.name} cannot be read", REPACK)
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with source, target.open("xb") as out:
            shutil.copyfileobj(source, out, _PIECE)
