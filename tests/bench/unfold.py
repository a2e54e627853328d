"""Lays out the files of a board that is not here, from one compact text.

``== PATH`` begins a file, ``=x PATH`` a program and ``=> PATH`` a link to what the next line names;
``\\0`` in a line is a NUL. ``trees/NAME.txt`` holds one board each. Their formats are those that
the kernel's and NVIDIA's documents give and that owners of such boards published; their figures
are invented.
"""

from __future__ import annotations

from pathlib import Path

TREES = Path(__file__).parent / "trees"
BOARDS = tuple(sorted(path.stem for path in TREES.glob("*.txt")))


def unfold(name: str, root: Path) -> Path:
    """Write the board ``name`` below ``root``, and return that."""
    return lay_out((TREES / f"{name}.txt").read_text(), root)


def lay_out(text: str, root: Path) -> Path:
    """Write the files that ``text`` holds below ``root``, over those that are there."""
    place, kind, lines = root / "unused", "", list[str]()
    for line in [*text.splitlines(), "== end"]:
        if line[:3] not in ("== ", "=x ", "=> "):
            lines.append(line)
            continue
        if kind:
            _write(place, kind, "\n".join(lines) + "\n")
        kind, place, lines = line[:2], root / line[3:].strip(), []
    return root


def _write(place: Path, kind: str, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "=>":
        place.symlink_to(text.strip())
        return
    place.write_text(text.replace("\\0", "\x00"))
    if kind == "=x":
        place.chmod(0o755)
