"""Run records: one line of JSON per build of a workspace, kept by count."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from strata_engine.events import Outcome
from strata_engine.staleness import Reason
from strata_engine.workspace import write_atomically

KEPT = 200
"""Builds kept per workspace, at most."""

KEPT_BYTES = 1 << 25
"""Bytes that they may take together; the newest is kept whatever its size."""


class ActionReport(msgspec.Struct, frozen=True, kw_only=True):
    """One action of a build."""

    label: str
    mnemonic: str
    key: str
    """`HASH/SIZE`, empty where the build did not come so far."""
    outcome: Outcome
    reasons: tuple[Reason, ...] = ()
    seconds: float = 0.0
    bytes: int = 0
    because: str = ""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One build."""

    run: str
    started: str
    """UTC, ISO 8601."""
    seconds: float
    command: tuple[str, ...]
    exit_code: int
    counts: dict[str, int]
    actions: tuple[ActionReport, ...]


def append(path: Path, record: RunRecord) -> None:
    """Add a record, dropping the oldest beyond `KEPT` and `KEPT_BYTES`. Raises OSError."""
    data = b""
    with contextlib.suppress(FileNotFoundError):
        data = path.read_bytes()
    line = msgspec.json.encode(record) + b"\n"
    if data.count(b"\n") < KEPT and len(data) + len(line) <= KEPT_BYTES:
        # After a line that a crash cut off, the new one starts on its own.
        cut = data and not data.endswith(b"\n")
        with path.open("ab") as stream:
            stream.write(b"\n" + line if cut else line)
        return
    kept = [line]
    size = len(line)
    for old in reversed(data.splitlines()):
        size += len(old) + 1
        # Half of what is allowed, so that not every build writes all of them anew.
        if len(kept) >= KEPT or size > KEPT_BYTES // 2:
            break
        kept.append(old + b"\n")
    write_atomically(path, b"".join(reversed(kept)))


def read(path: Path) -> list[RunRecord]:
    """Read the records, oldest first; a line that a crash cut off is left out."""
    records = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(msgspec.MsgspecError):
                records.append(msgspec.json.decode(line, type=RunRecord))
    return records
