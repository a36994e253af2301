"""The zip that a wheel is: its members listed, checked, and read into the store.

It knows no RECORD and no metadata. The hard part is that the zip is hostile until checked: a member's name, kind and
size are claims. `listed` refuses, with everything that is wrong at once, what could not be a plain file wherever the
wheel may be installed; what it lets pass can be read without harm.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from strata_engine.digest import CHUNK, Digest
from strata_engine.errors import Diagnostic, SpecError
from strata_engine.tree import Store
from strata_rules.contents import NATIVE, Library, libraries

MAX_MEMBERS = 500_000
MAX_UNPACKED = 64 << 30
"""Bytes: well above the largest real wheels, well below what fills a disk unnoticed."""

HARMLESS = 256 << 20
MAX_RATIO = 100
"""A wheel that claims to unpack to more than `HARMLESS` bytes may be this many times its own size."""

IN_MEMORY = 4 << 20
"""Bytes: larger members are streamed into the store."""

_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""What zipfile raises for bytes that are not a zip, or not a sound one."""


class Member(NamedTuple):
    """A file of the zip."""

    path: str
    info: zipfile.ZipInfo
    executable: bool


@contextmanager
def sound(file: str) -> Iterator[None]:
    """Turn what zipfile raises into a diagnostic. Raises SpecError (`bad-wheel`)."""
    try:
        yield
    except _DAMAGE as error:
        reason = printable(str(error)).strip().rstrip(".") or type(error).__name__
        raise SpecError(bad(file, f"is not a sound zip file: {reason}")) from error


def bad(file: str, what: str) -> Diagnostic:
    """Say what breaks the wheel specification."""
    hint = "it breaks the wheel specification: take another build or version of it"
    return Diagnostic("bad-wheel", f"`{file}` {what}", hint=hint)


def unsafe(file: str, what: str) -> Diagnostic:
    """Say what makes a wheel unfit to be unpacked."""
    hint = "nothing of it was installed; report it to where it came from and take another build or version"
    return Diagnostic("unsafe-wheel", f"`{file}` {what}", hint=hint)


def printable(text: str) -> str:
    """Give a hostile text as it can be shown."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:200])


def listed(file: str, archive: zipfile.ZipFile, size: int) -> dict[str, Member]:
    """List the files of a wheel of `size` bytes by path.

    Raises SpecError (`unsafe-wheel`) with everything that makes the zip unfit to be unpacked.
    """
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise SpecError(unsafe(file, f"has {len(infos)} members; at most {MAX_MEMBERS} are allowed"))
    declared = sum(info.file_size for info in infos)
    if declared > MAX_UNPACKED or (declared > HARMLESS and declared > MAX_RATIO * size):
        raise SpecError(unsafe(file, f"claims to unpack from {size} to {declared} bytes: a decompression bomb"))
    wrong: list[str] = []
    members: dict[str, Member] = {}
    for info in infos:
        path = info.orig_filename  # zipfile cuts `filename` at a NUL, and turns `\` into `/` on Windows
        if (problem := _problem(info)) is not None:
            wrong.append(f"has the member `{printable(path)}`, {problem}")
        elif not path.endswith("/"):
            if path in members:
                wrong.append(f"has the member `{path}` twice")
            # As uv and pip: the bits count whatever system the zip says it was made on.
            members[path] = Member(path, info, bool(info.external_attr >> 16 & 0o111))
    wrong += [f"has `{path}` as a file and as a folder" for path in file_and_folder(members)]
    if wrong:
        raise SpecError(*(unsafe(file, what) for what in wrong))
    return members


def _problem(info: zipfile.ZipInfo) -> str | None:
    """Say why a member may not be unpacked; None where it may."""
    path = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & 0x1:
        return "which is encrypted"
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "which is a symlink" if stat.S_ISLNK(kind) else "which is neither a file nor a folder"
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        return f"which is compressed with method {info.compress_type}; expected stored or deflated"
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        return "an absolute path"
    if "\\" in path:
        return "which has a backslash in its name"
    if not path or any(ord(char) < 32 or ord(char) == 127 for char in path):
        return "which has a control character in its name or no name"
    if any(part in {"", ".", ".."} for part in path.removesuffix("/").split("/")):
        return "which leaves its place with `..` or is not a plain path"
    return None


def file_and_folder(paths: Iterable[str]) -> list[str]:
    """List the paths that are files and have others below them."""
    files = set(paths)
    folders = {path[:at] for path in files for at, char in enumerate(path) if char == "/"}
    return sorted(files & folders)


def store_member(
    store: Store, archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: str
) -> tuple[Digest, list[Library]]:
    """Put one member into the store; whatever its header claims, no more bytes than declared are taken.

    Also tell what the loader would read in it, as of a file at `place`.
    """
    if info.file_size <= IN_MEMORY:
        data = archive.read(info)
        return store.put(data), libraries(place, io.BytesIO(data)) if data.startswith(NATIVE) else []
    with archive.open(info) as source, store.writer() as blob:
        head = b""
        while chunk := source.read(CHUNK):
            head = head or chunk[:4]
            blob.write(chunk)
        digest = blob.commit()
    if head not in NATIVE:
        return digest, []
    with store.open(digest) as stream:
        return digest, libraries(place, stream)
