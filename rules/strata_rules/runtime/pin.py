"""The runtime pin: which Python a layer was locked with, one file beside its lock, one entry per platform.

`requirements/ENV/runtime.ENV.json`. It knows nothing of where Pythons come from. A pin is read as hostile input: what
does not fit is refused with the file's name, and nothing in it becomes a path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import msgspec

from strata_engine.digest import Digest, is_sha256
from strata_engine.errors import HostError, Place, SpecError
from strata_engine.workspace import write_atomically
from strata_rules.pylock import CONFLICTED, TAKE_A_SIDE, conflict

VERSION = 1

_AGAIN = "take it from git again, or remove it: the next build pins the runtime anew"


class _Downloaded(msgspec.Struct, frozen=True, tag_field="provider", forbid_unknown_fields=True):
    python: str
    """`X.Y.Z`."""
    url: str
    """Without credentials, and never that of a mirror: mirrors differ between machines."""
    sha256: str


class PbsPin(_Downloaded, frozen=True, tag="pbs"):
    """A runtime of python-build-standalone."""


class ArchivePin(_Downloaded, frozen=True, tag="archive"):
    """A runtime from an archive that the spec names."""


class LocalPin(msgspec.Struct, frozen=True, tag_field="provider", tag="local", forbid_unknown_fields=True):
    """A runtime captured from a machine."""

    python: str
    """`X.Y.Z`."""
    interpreter: str
    """The identity of what was captured; no path."""
    tree: str
    """`HASH/SIZE` of the runtime tree."""


Pin: TypeAlias = PbsPin | ArchivePin | LocalPin


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    platforms: dict[str, Pin]


def pin_name(layer: str) -> str:
    """Give the pin's file name for a layer's environment name."""
    return f"runtime.{layer}.json"


def parse(data: bytes, name: str) -> dict[str, Pin]:
    """Read a pin file. Raises SpecError."""
    try:
        file = msgspec.json.decode(data, type=_File)
    except RecursionError:
        raise _bad(name, "it is nested too deeply") from None
    except UnicodeDecodeError:
        raise _bad(name, "it is not UTF-8") from None
    except msgspec.MsgspecError as error:
        if (place := conflict(data, name)) is not None:
            raise _bad(name, f"it {CONFLICTED}", TAKE_A_SIDE, place) from None
        raise _bad(name, str(error)) from None
    if file.version != VERSION:
        raise _bad(name, f"its version is {file.version}, this Strata reads version {VERSION}")
    for pin in file.platforms.values():
        if isinstance(pin, LocalPin):
            try:
                Digest.parse(pin.tree)
            except ValueError as error:
                raise _bad(name, str(error)) from None
        elif not is_sha256(pin.sha256):
            raise _bad(name, f"not a sha256: `{pin.sha256}`")
    return file.platforms


def _bad(name: str, what: str, hint: str = _AGAIN, place: Place | None = None) -> SpecError:
    told = f"this runtime pin cannot be read: {what}"
    error = SpecError.of("bad-runtime-pin", told, place or Place(name, 0), hint=hint)
    assert isinstance(error, SpecError)
    return error


def dump(pins: Mapping[str, Pin]) -> bytes:
    """Write a pin file: sorted, one field a line, because it is kept in git."""
    plain = msgspec.to_builtins(_File(VERSION, dict(pins)))
    return (json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def keep(path: Path, platform: str, pin: Pin) -> bool:
    """Set one platform's pin in the file at `path`, atomically; tell whether the file changed. Raises HostError."""
    try:
        before = path.read_bytes()
    except OSError:
        before = b""
    try:
        pins = parse(before, path.name) if before else {}
    except SpecError:
        pins = {}  # what chose this pin has said so already
    after = dump({**pins, platform: pin})
    if after == before:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, after)
    except OSError as error:
        raise HostError.of("cannot-write", f"cannot write `{path}`: {error.strerror}") from error
    return True
