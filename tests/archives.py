"""What archives hold, for tests that compare them."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from conftest import untar


class Entry(NamedTuple):
    """A member of an archive, without its time: that is the one thing in which two archives of one layer may differ."""

    kind: Literal["file", "folder", "link"]
    mode: int
    owner: tuple[int, int, str, str]
    content: bytes
    """A link's target; nothing for a folder."""


NOBODY = (0, 0, "root", "root")
"""Who owns the members of every archive."""


def listing(archive: Path) -> dict[str, Entry]:
    """Give an archive's members in their order."""
    found: dict[str, Entry] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            owner = (member.uid, member.gid, member.uname, member.gname)
            assert member.name not in found, f"{member.name} is there twice"
            if member.isdir():
                found[member.name] = Entry("folder", member.mode, owner, b"")
            elif member.issym():
                # The mode of a link means nothing where it is unpacked: it is 0777 or what the masks left of it.
                found[member.name] = Entry("link", 0o777, owner, member.linkname.encode())
            else:
                stream = tar.extractfile(member)
                assert member.isreg()
                assert stream is not None
                found[member.name] = Entry("file", member.mode, owner, stream.read())
    return found


def folder_listing(folder: Path) -> dict[str, Entry]:
    """Give what is in a folder as an archive of it would have it, without bytecode."""
    found: dict[str, Entry] = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        name, mode = path.relative_to(folder.parent).as_posix(), path.lstat().st_mode & 0o777
        if path.is_symlink():
            found[name] = Entry("link", 0o777, NOBODY, bytes(path.readlink()))
        elif path.is_dir():
            found[name] = Entry("folder", mode, NOBODY, b"")
        else:
            found[name] = Entry("file", mode, NOBODY, path.read_bytes())
    return {name: entry for name, entry in found.items() if "__pycache__" not in name.split("/")}


def differences(first: Mapping[str, Entry], second: Mapping[str, Entry]) -> list[str]:
    """Say in which members two listings differ."""
    said = []
    for path in sorted({*first, *second}):
        one, other = first.get(path), second.get(path)
        if one != other:
            said.append(f"{path}: {_short(one)} / {_short(other)}")
    return said


def _short(entry: Entry | None) -> str:
    return "missing" if entry is None else f"{entry.kind} {entry.mode:o} {entry.owner} {entry.content[:80]!r}"


def unpack_all(artifacts: Path, folder: Path) -> Path:
    """Unpack all archives of a folder side by side."""
    folder.mkdir()
    for archive in sorted(artifacts.glob("*.tar.*")):
        with tarfile.open(archive) as tar:
            untar(tar, folder)
    return folder
