"""Reads a runtime archive, member by member, straight into the store; an archive is hostile until it is read.

It knows tar (plain, gzip, bzip2, xz, zstd) and zip, and nothing of Pythons. Of a member only its path, its kind, the
owner's executable bit and its bytes are believed; what could write or point outside the tree, hide, or swell without
measure is refused, naming the member.
"""

from __future__ import annotations

import io
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO, NamedTuple, cast

from strata_engine.digest import CHUNK, Digest
from strata_engine.errors import Diagnostic, SpecError
from strata_engine.tree import File, Node, Store, Symlink
from strata_rules.compress import DAMAGED, decompressed

ROOMY = 1 << 30
"""Bytes that any archive may unpack to."""
RATIO = 40
"""How often its own size an archive may unpack to, beyond that; runtimes reach 8."""
MOST_MEMBERS = 200_000
LONGEST_HEADER = 1 << 20
"""Bytes of an extended tar header."""
LINKS_FOLLOWED = 40

Progress = Callable[[int], None]
"""Told how much of the archive was read; raises to stop."""


class Member(NamedTuple):
    """One member: `folder` and `link` and `same_as` exclude each other and content."""

    path: str
    folder: bool = False
    link: str | None = None
    same_as: str | None = None
    """For a hard link: the path of an earlier member."""
    executable: bool = False
    content: IO[bytes] | None = None


def unsafe(member: str, why: str) -> SpecError:
    """Make the refusal of a member."""
    shown = member.encode("unicode_escape", "backslashreplace").decode("ascii")[:200]
    hint = "do not use this archive; get it from its publisher and compare its sha256"
    return SpecError(Diagnostic("unsafe-archive", f"the archive's member `{shown}` {why}", hint=hint))


def read_archive(store: Store, archive: Digest, progress: Progress) -> dict[str, Node]:
    """Put the archive's content into the store and give its files and symlinks by path.

    Raises SpecError `unsafe-archive` and `damaged-archive`.
    """
    nodes: dict[str, Node] = {}
    folders: set[str] = set()
    seen = 0
    allowed = ROOMY + RATIO * archive.size
    with _reading(), store.open(archive) as stream:
        for member in _members(cast(BinaryIO, _Told(stream, progress))):
            seen += 1
            if seen > MOST_MEMBERS:
                raise unsafe(member.path, f"is one of more than {MOST_MEMBERS}")
            path = _clean(member.path)
            if member.folder:
                _claim_folder(path, nodes, folders, member.path)
                continue
            if not path or path in nodes or path in folders:
                raise unsafe(member.path, "occurs twice" if path else "has no name")
            _claim_folder(path.rpartition("/")[0], nodes, folders, member.path)
            if member.link is not None:
                nodes[path] = Symlink(member.link)
            elif member.same_as is not None:
                earlier = nodes.get(member.same_as.removeprefix("./"))
                if not isinstance(earlier, File):
                    raise unsafe(member.path, f"is a hard link to `{member.same_as}`, which is no earlier file")
                nodes[path] = earlier
            else:
                assert member.content is not None
                digest = _keep(store, member.content, allowed, member.path)
                allowed -= digest.size
                nodes[path] = File(digest, member.executable)
    return nodes


def _keep(store: Store, content: IO[bytes], allowed: int, name: str) -> Digest:
    first = content.read(CHUNK)
    if len(first) < CHUNK:
        return store.put(first)
    with store.writer() as writer:
        size, chunk = 0, first
        while chunk:
            size += len(chunk)
            if size > allowed:
                raise unsafe(name, "makes the archive unpack to more than any runtime has")
            writer.write(chunk)
            chunk = content.read(CHUNK)
        return writer.commit()


def _clean(name: str) -> str:
    """Give a member's path inside the tree. Raises SpecError for one that leads elsewhere or cannot be written."""
    if name.startswith("/") or (len(name) > 1 and name[1] == ":"):
        raise unsafe(name, "has an absolute path")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise unsafe(name, "leads out of the archive")
    if "\\" in name or any(unicodedata.category(c) in {"Cc", "Cs"} for c in name):
        raise unsafe(name, "has a character that no file name should have")
    if any(len(part.encode()) > 255 for part in parts):
        raise unsafe(name, "has a name that is too long")
    return "/".join(parts)


def _claim_folder(path: str, nodes: dict[str, Node], folders: set[str], member: str) -> None:
    while path and path not in folders:
        if path in nodes:
            raise unsafe(member, f"lies below `{path}`, which is not a folder")
        folders.add(path)
        path = path.rpartition("/")[0]


def check_links(nodes: dict[str, Node]) -> None:
    """Refuse symlinks that lead out of the tree, however many others they pass through. One may lead nowhere."""
    for path, node in nodes.items():
        if isinstance(node, Symlink):
            _follow(nodes, path, node.target)


def _follow(nodes: dict[str, Node], path: str, target: str) -> None:
    left = LINKS_FOLLOWED
    at = path.split("/")[:-1]
    waiting = target.split("/")[::-1]
    if target.startswith("/") or "\\" in target or "\0" in target or target[1:2] == ":" or not target:
        raise unsafe(path, f"is a symlink to `{target}`, which is not inside the archive")
    while waiting:
        part = waiting.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            if not at:
                raise unsafe(path, f"is a symlink to `{target}`, which leads out of the archive")
            at.pop()
            continue
        at.append(part)
        node = nodes.get("/".join(at))
        if isinstance(node, Symlink):
            left -= 1
            if left < 0:
                raise unsafe(path, "is a symlink that never ends")
            at.pop()
            if node.target.startswith("/"):
                raise unsafe(path, f"is a symlink to `{target}`, which leads out of the archive")
            waiting += node.target.split("/")[::-1]


def check_case(paths: Iterable[str], allowed: str = "") -> None:
    """Refuse paths that a file system which ignores case or Unicode form takes for one; not below `allowed`."""
    seen: dict[str, str] = {}
    for path in paths:
        if allowed and path.startswith(allowed):
            continue
        parts = path.split("/")
        for end in range(len(parts), 0, -1):
            part = "/".join(parts[:end])
            folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", part).casefold())
            first = seen.setdefault(folded, part)
            if first != part:
                raise unsafe(path, f"differs from `{first}` only in case or Unicode form")


def _members(stream: BinaryIO) -> Iterator[Member]:
    """Read any archive; the first bytes say which."""
    zipped = stream.read(4) == b"PK\x03\x04"
    stream.seek(0)
    yield from _zip(stream) if zipped else _tar(decompressed(stream))


@contextmanager
def _reading() -> Iterator[None]:
    """Turn what the libraries raise for damage into an error of the archive."""
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, NotImplementedError, *DAMAGED) as error:
        raise _damaged(str(error)) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(str(error)) from error  # gzip, bz2: the data is not what it says


def _damaged(why: str) -> SpecError:
    message = f"the archive cannot be read: {why.strip().rstrip('.') or 'it ends too early'}"
    hint = "it is what its sha256 says, but no archive that can be unpacked: name another one"
    return SpecError(Diagnostic("damaged-archive", message, hint=hint))


class _TarInfo(tarfile.TarInfo):
    """A header that is looked at before anything is read because of it."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _TarInfo:
        info = super().frombuf(buf, encoding, errors)
        extended = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
        extended |= {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
        if info.type in extended and info.size > LONGEST_HEADER:
            raise unsafe(info.name, "has a header that is too long")
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise unsafe(info.name, "is a sparse file")
        return info


def _tar(stream: BinaryIO) -> Iterator[Member]:
    # Not the locale's encoding, which tarfile would take: the same archive is the same tree everywhere.
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_TarInfo, encoding="utf-8", errorlevel=2) as tar:
        for info in tar:
            if info.sparse is not None:
                raise unsafe(info.name, "is a sparse file")
            if info.isdir():
                yield Member(info.name, folder=True)
            elif info.issym():
                yield Member(info.name, link=info.linkname)
            elif info.islnk():
                yield Member(info.name, same_as=info.linkname)
            elif info.isreg():
                yield Member(info.name, executable=bool(info.mode & 0o100), content=tar.extractfile(info))
            else:
                raise unsafe(info.name, "is a device or something else that is neither file, folder nor link")


def _zip(stream: BinaryIO) -> Iterator[Member]:
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            if info.flag_bits & 1:
                raise unsafe(info.filename, "is encrypted")
            if info.is_dir():
                yield Member(info.filename, folder=True)
                continue
            if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFLNK}:
                raise unsafe(info.filename, "is a device or something else that is neither file, folder nor link")
            with archive.open(info) as content:
                if stat.S_ISLNK(mode):
                    yield Member(info.filename, link=content.read(4096).decode("utf-8", "surrogateescape"))
                else:
                    yield Member(info.filename, executable=bool(mode & 0o100), content=content)


class _Told(io.RawIOBase):
    """A stream that tells how far it was read."""

    def __init__(self, stream: BinaryIO, progress: Progress) -> None:
        self._stream = stream
        self._progress = progress

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read and tell."""
        data = self._stream.read(size)
        self._progress(self._stream.tell())
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Say where."""
        return self._stream.tell()
