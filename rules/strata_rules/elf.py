"""What a shared library says it is called, needs, and where it looks: the ELF dynamic section.

The only door to pyelftools. It knows nothing of layers and never runs anything. Wheels are hostile until checked, so
a file is read through a budget: whatever its headers claim, only so many bytes and reads are spent on it.

pyelftools is imported when the first ELF file is read: most builds read none, and each would pay for it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

MAGIC = b"\x7fELF"

BUDGET = 1 << 20
"""Bytes that may be read from one file; a dynamic section with its strings is a few KiB."""

READS = 50_000
"""Reads that one file may cost: program headers and tags are read one by one."""


class Elf(NamedTuple):
    """The dynamic section of one shared object or dynamic executable."""

    machine: str
    """Such as `EM_X86_64`."""
    bits: int
    soname: str | None
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    """DT_RPATH, split; the loader ignores it where there is a RUNPATH."""
    runpath: tuple[str, ...]


class _Budgeted(io.RawIOBase):
    """A stream that stops answering when the file has cost too much."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._bytes = BUDGET
        self._reads = READS

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes. Raises OSError when the budget is spent."""
        self._reads -= 1
        if not 0 <= size <= self._bytes or not self._reads:
            raise OSError("this ELF file asks for more than a dynamic section can need")
        self._bytes -= size
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move in the stream."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Say where the stream is."""
        return self._stream.tell()


def read(stream: BinaryIO) -> Elf | None:
    """Read the dynamic section; None for anything but a shared object or executable, and for damaged files."""
    stream.seek(0)
    if stream.read(4) != MAGIC:
        return None
    # Not below: a library that is not there is no fault of the file.
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415 - see the module's docstring

    budgeted = cast(IO[bytes], _Budgeted(stream))
    try:
        return _parse(budgeted, ELFFile(budgeted))
    except Exception:  # the library raises whatever its parsing meets; a file that cannot be read cannot be loaded
        return None


def _parse(stream: IO[bytes], elf: ELFFile) -> Elf | None:
    if elf["e_type"] not in ("ET_DYN", "ET_EXEC"):
        return None
    soname: str | None = None
    needed: list[str] = []
    paths: dict[str, tuple[str, ...]] = {}
    for tag in _tags(stream, elf):
        match tag.entry.d_tag:
            case "DT_SONAME":
                soname = tag.soname
            case "DT_NEEDED":
                needed.append(tag.needed)
            case "DT_RPATH":
                paths["rpath"] = tuple(filter(None, tag.rpath.split(":")))
            case "DT_RUNPATH":
                paths["runpath"] = tuple(filter(None, tag.runpath.split(":")))
            case _:
                pass
    return Elf(
        machine=str(elf["e_machine"]),
        bits=int(elf.elfclass),
        soname=soname or None,
        needed=tuple(name for name in needed if name),
        rpath=paths.get("rpath", ()),
        runpath=paths.get("runpath", ()),
    )


def _tags(stream: IO[bytes], elf: ELFFile) -> Iterable[Any]:
    """Find the dynamic segment as the loader does, by the program headers: sections may be stripped or lie."""
    from elftools.common.utils import struct_parse  # noqa: PLC0415 - see the module's docstring
    from elftools.elf.dynamic import Dynamic  # noqa: PLC0415 - see the module's docstring

    for index in range(elf["e_phnum"]):
        place = elf["e_phoff"] + index * elf["e_phentsize"]
        header = struct_parse(elf.structs.Elf_Phdr, stream, stream_pos=place)
        if header["p_type"] == "PT_DYNAMIC":
            return Dynamic(stream, elf, None, header["p_offset"], header["p_filesz"] == 0).iter_tags()
    return ()
