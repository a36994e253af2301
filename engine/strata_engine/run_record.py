"""Run records: one line of JSON per build of a workspace, kept by count."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from strata_engine.events import Outcome
from strata_engine.staleness import Reason
from strata_engine.workspace import write_atomically

KEPT = 200
"""Builds kept per workspace."""


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
    """Add a record, dropping the oldest beyond `KEPT`. Raises OSError."""
    lines: list[bytes] = []
    with contextlib.suppress(FileNotFoundError):
        lines = path.read_bytes().splitlines(keepends=True)
    if len(lines) >= KEPT:
        write_atomically(path, b"".join([*lines[1 - KEPT :], msgspec.json.encode(record), b"\n"]))
        return
    with path.open("ab") as stream:
        stream.write(msgspec.json.encode(record) + b"\n")


def read(path: Path) -> list[RunRecord]:
    """Read the records, oldest first; a line that a crash cut off is left out."""
    records = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(msgspec.MsgspecError):
                records.append(msgspec.json.decode(line, type=RunRecord))
    return records
