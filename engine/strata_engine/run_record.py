"""Run records: one line of JSON per build of a workspace, kept by count and size.

What was up to date is counted and not listed: a build that had nothing to do is a short line. The Actions that a
record names are kept in the store as long as the record is, so that any two of them can be compared.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from strata_engine.events import Outcome
from strata_engine.staleness import Reason
from strata_engine.workspace import write_atomically

FILE = "runs.jsonl"
"""Where a workspace keeps its records, in the state folder."""

KEPT = 200
"""Builds kept per workspace, at most."""

KEPT_BYTES = 1 << 25
"""Bytes that they may take together; the newest is kept whatever its size."""


class ActionReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
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
    previous: str = ""
    """The key of the last build here, if there was one."""
    since: str = ""
    """The build that had last looked at it: what changed after that is what this one found changed."""
    output: str = ""
    """`HASH/SIZE` of what came of it: a blob, or the root directory of a tree."""
    former: str = ""
    """The same of the last build here. Where both are equal, the change went no further: early cutoff."""
    origin: str = ""
    """Where a result that was not made here came from: `store`, or a remote's name."""
    upstream: tuple[str, ...] = ()
    """The labels among its inputs that were not up to date either."""
    deciders: tuple[str, ...] = ()
    """The labels, not up to date either, whose outputs decided that this action is there and what it is."""


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
    """What was not up to date."""
    revision: str = ""
    """The commit that was checked out, where the workspace is in a git repository."""
    settings: dict[str, str] = {}
    """How the build was run, where that is not the default."""
    version: str = ""
    """Of the program, or of whoever drives the engine."""
    platform: str = ""
    """The machine's operating system and architecture, in Python's words."""
    remote: str = ""
    """What remote caches did, in a line."""


def short(record: RunRecord) -> RunRecord:
    """Give the record without what was up to date."""
    changed = tuple(report for report in record.actions if report.outcome is not Outcome.UP_TO_DATE)
    return msgspec.structs.replace(record, actions=changed)


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
