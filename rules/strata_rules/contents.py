"""What the trees of Wheel and Install say about themselves: the nouns of their JSON files, and their canonical bytes.

It knows no zip and no rule. Wheel writes `wheel.json` and `libraries.json`, Install reads those and writes
`packages.json` and a `libraries.json` of its own, which Link and the metadata read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO, TypeVar

import msgspec

from strata_rules import elf, macho

T = TypeVar("T")

PURELIB, PLATLIB, SCRIPTS, DATA, HEADERS = "purelib", "platlib", "scripts", "data", "headers"
SCHEMES = (PURELIB, PLATLIB, SCRIPTS, DATA, HEADERS)
"""The folders of an unpacked wheel, named as the wheel specification names install schemes."""

NATIVE = (elf.MAGIC, *macho.MAGICS)
"""How files begin that may be native libraries or programs; each has four bytes."""


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """What the loader reads in an ELF file, or in one architecture of a Mach-O file."""

    path: str
    """In a wheel `SCHEME/…`, in a layer relative to the layer."""
    soname: str = ""
    """The SONAME or install name. Empty where it has none, as extension modules and programs."""
    needed: tuple[str, ...] = ()
    weak: tuple[str, ...] = ()
    """Mach-O: what it takes where it is there, and does without."""
    rpath: tuple[str, ...] = ()
    """ELF: DT_RPATH; Mach-O: LC_RPATH. Both hold for what is loaded in turn, too."""
    runpath: tuple[str, ...] = ()
    machine: str = ""
    """Such as `EM_X86_64`, or `CPU_TYPE_ARM64` for Mach-O."""


class EntryPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A script that an installer may make: it calls `attr` of `module`."""

    name: str
    module: str
    attr: str
    gui: bool = False


class WheelContents(msgspec.Struct, frozen=True, kw_only=True):
    """What an unpacked wheel is."""

    name: str
    """The normalised distribution name."""
    version: str
    """As its METADATA writes it."""
    dist_info: str
    """The folder in the root scheme that describes it."""
    root: str
    """The scheme of what stands at the wheel's root: `purelib` or `platlib`."""
    tags: tuple[str, ...]
    entry_points: tuple[EntryPoint, ...] = ()
    top_level: tuple[str, ...] = ()
    """Names that can be imported."""


class InstalledPackage(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution as a layer has it."""

    name: str
    version: str
    dist_info: str
    """Relative to the layer."""
    files: int
    """Files that its RECORD lists, RECORD left out."""
    bytes: int
    top_level: tuple[str, ...] = ()


def libraries(path: str, stream: BinaryIO) -> list[Library]:
    """Read the file at `path`: nothing for one that no loader takes, several entries for several architectures."""
    stream.seek(0)
    if stream.read(4) == elf.MAGIC:
        facts = elf.read(stream)
        return [] if facts is None else [_of_elf(path, facts)]
    return [
        Library(
            path=path,
            soname=slice_.install_name or "",
            needed=slice_.needed,
            weak=slice_.weak,
            rpath=slice_.rpath,
            machine=slice_.machine,
        )
        for slice_ in macho.read(stream) or ()
    ]


def _of_elf(path: str, facts: elf.Elf) -> Library:
    return Library(
        path=path,
        soname=facts.soname or "",
        needed=facts.needed,
        rpath=facts.rpath,
        runpath=facts.runpath,
        machine=facts.machine,
    )


def encode(value: msgspec.Struct | Sequence[msgspec.Struct]) -> bytes:
    """Give the one text of a value: sorted keys, no spaces, every field, a line end."""
    return msgspec.json.encode(value, order="sorted") + b"\n"


def decode(data: bytes, kind: type[T]) -> T:
    """Read what `encode` wrote."""
    return msgspec.json.decode(data, type=kind)
