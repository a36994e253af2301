"""Members as a tar stream (POSIX.1-2001: PAX records only where a plain header cannot say it).

It knows nothing of layers or compression. A header depends on its member alone.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator

from strata_engine.tree import File, Symlink
from strata_rules.archive.members import Member, Piece


def runs(listed: Iterable[Member]) -> Iterator[tuple[str, list[Piece]]]:
    """Give each member's pieces by its name, then the end of the archive."""
    total = 0
    for entry in listed:
        head = header(entry)
        zeros = -entry.size % tarfile.BLOCKSIZE
        blob = entry.node.digest if isinstance(entry.node, File) else None
        total += len(head) + entry.size + zeros
        yield entry.path, [Piece(head, blob, 0, entry.size, zeros)]
    # Two empty blocks end an archive, and whole records are what tar reads from a tape.
    total += 2 * tarfile.BLOCKSIZE
    yield "", [Piece(b"", zeros=2 * tarfile.BLOCKSIZE + -total % tarfile.RECORDSIZE)]


def header(entry: Member) -> bytes:
    """Give the header blocks of one member."""
    info = tarfile.TarInfo(entry.path)
    info.mode = entry.mode
    info.mtime = entry.mtime
    info.size = entry.size
    info.uname = info.gname = "root"
    if isinstance(entry.node, Symlink):
        info.type = tarfile.SYMTYPE
        info.linkname = entry.node.target
    elif not isinstance(entry.node, File):
        info.type = tarfile.DIRTYPE
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
