"""What the trees of Wheel and Install say about themselves: the nouns of their JSON files, and their canonical bytes.

It knows no zip and no rule. Wheel writes `wheel.json` and `libraries.json`, Install reads those and writes
`packages.json` and a `libraries.json` of its own, which Link and the metadata read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from strata_rules.elf import Elf

T = TypeVar("T")

PURELIB, PLATLIB, SCRIPTS, DATA, HEADERS = "purelib", "platlib", "scripts", "data", "headers"
SCHEMES = (PURELIB, PLATLIB, SCRIPTS, DATA, HEADERS)
"""The folders of an unpacked wheel, named as the wheel specification names install schemes."""


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """An ELF file and its dynamic section."""

    path: str
    """In a wheel `SCHEME/…`, in a layer relative to the layer."""
    soname: str = ""
    """Empty where it has none, as extension modules and programs."""
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    machine: str = ""


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


def library(path: str, facts: Elf) -> Library:
    """Make the entry of an ELF file."""
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
