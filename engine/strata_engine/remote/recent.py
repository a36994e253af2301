"""Which results of a label were sent last, and what explains their keys, for whoever finds that his is not there.

No protocol of a cache can list what it has. So what was sent is noted where whoever knows a label looks: as the result
of an Action that nobody executes, `["strata", "recent", MNEMONIC, LABEL]`. Its standard output is the note, because
that needs no blob beside it: servers that check results take it, and what was sent costs two requests more wherever it
is sent to. What explains the keys is in the note itself, compressed: keys of one label are much alike.

What comes back is hostile. It is bounded, of a strict form, and good for an explanation at most: each key proves itself
by what is there to explain it, and the rest says when somebody has sent its result.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from strata_engine.codec import (
    Action,
    ActionResult,
    Command,
    decode_action_result,
    encode_action,
    encode_action_result,
    encode_command,
)
from strata_engine.digest import EMPTY, Digest

KEPT = 16
"""Results that are kept of a label, the newest first."""
LARGEST = 96 << 10
"""Bytes of a note."""
LARGEST_UNPACKED = 1 << 20
"""Bytes of what is in it."""
WORKER = "strata"
"""Who made the result that a note is kept as."""

_FORM = "strata.recent.v1"
_REVISION = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?|")
_PLATFORM = re.compile(r"[A-Za-z0-9._-]{0,64}")
_LATEST = 1 << 36
"""Seconds since 1970, some two thousand years from now."""
_LEVEL = 6


class Recent(NamedTuple):
    """A result that was sent."""

    key: Digest
    """The plain key."""
    output: Digest | None = None
    """What it had come to; None where that stays where it was made, as what git keeps does."""
    at: int = 0
    """When, in seconds since 1970, by the sender's clock."""
    revision: str = ""
    """The commit that it was made of, in hexadecimal, where that was known."""
    platform: str = ""
    """The sender's operating system and architecture, in Python's words."""
    blobs: tuple[bytes, ...] = ()
    """What explains the key."""


class _Row(msgspec.Struct, frozen=True, array_like=True):
    key: str
    output: str
    at: int
    revision: str
    platform: str
    blobs: tuple[int, ...]
    """By their places in the list of all."""


class _Note(msgspec.Struct, frozen=True, array_like=True):
    form: str
    rows: tuple[_Row, ...]
    blobs: tuple[bytes, ...]


def recent_action(mnemonic: str, label: str) -> bytes:
    """Give the encoded Action under whose address a label's results are noted.

    Of a label in a repository it is what the stack itself calls it: the same stack may lie elsewhere for others.
    """
    command = encode_command(Command(("strata", "recent", mnemonic, local_label(label))))
    return encode_action(Action(Digest.of(command), EMPTY))


def local_label(label: str) -> str:
    """Give what a stack itself calls one of its labels."""
    return label.rpartition(":")[2] if label.startswith("//") else label


def encode_recent(entries: Iterable[Recent]) -> bytes:
    """Write a note as the result that it is kept as; what is too much of it, the oldest, is left out."""
    kept = list(entries)[:KEPT]
    while True:
        blobs = {blob: place for place, blob in enumerate(dict.fromkeys(blob for each in kept for blob in each.blobs))}
        rows = tuple(
            _Row(
                str(each.key),
                str(each.output or ""),
                each.at,
                each.revision,
                each.platform,
                tuple(blobs[blob] for blob in each.blobs),
            )
            for each in kept
        )
        unpacked = msgspec.msgpack.encode(_Note(_FORM, rows, tuple(blobs)))
        text = zlib.compress(unpacked, _LEVEL)
        if len(text) <= LARGEST and len(unpacked) <= LARGEST_UNPACKED:
            return encode_action_result(ActionResult(stdout_raw=text, worker=WORKER))
        kept = kept[: len(kept) // 2]


def noted_in(data: bytes) -> bytes | Digest:
    """Give the text of a note out of an encoded result, or the blob that has it. Raises ValueError.

    A server may put what a result says into a blob of its own.
    """
    result = decode_action_result(data)
    digest = result.stdout_digest
    if result.stdout_raw or digest is None:
        return result.stdout_raw
    if digest.size > LARGEST:
        raise ValueError("a note that is too large")
    return digest


def decode_recent(text: bytes) -> tuple[Recent, ...]:
    """Read the text of a note that somebody wrote, the newest first as it says. Raises ValueError."""
    if len(text) > LARGEST:
        raise ValueError("a note that is too large")
    unpacking = zlib.decompressobj()
    try:
        unpacked = unpacking.decompress(text, LARGEST_UNPACKED)
        if not unpacking.eof:
            raise ValueError("a note that is cut, or too large")
        note = msgspec.msgpack.decode(unpacked, type=_Note)
    except (zlib.error, msgspec.MsgspecError, RecursionError) as error:
        raise ValueError("not a note") from error
    if note.form != _FORM:
        raise ValueError("not a note of what was sent")
    return tuple(_entry(row, note.blobs) for row in note.rows[:KEPT])


def with_newest(entry: Recent, entries: Iterable[Recent]) -> tuple[Recent, ...]:
    """Put an entry before the others, in the place of an older one of its key."""
    return (entry, *(each for each in entries if each.key != entry.key))[:KEPT]


def _entry(row: _Row, blobs: tuple[bytes, ...]) -> Recent:
    if not 0 <= row.at < _LATEST or not _REVISION.fullmatch(row.revision) or not _PLATFORM.fullmatch(row.platform):
        raise ValueError("an entry that nobody would write")
    if not all(0 <= place < len(blobs) for place in row.blobs):
        raise ValueError("an entry that names no blob")
    output = Digest.parse(row.output) if row.output else None
    named = tuple(blobs[place] for place in row.blobs)
    return Recent(Digest.parse(row.key), output, row.at, row.revision, row.platform, named)
