"""The run records of a workspace as they lie on disk: a sequence in which each is decoded when it is looked at.

It knows lines, not reasons. The hard part is that one build of ten thousand actions is megabytes of JSON and a question
is about one label: which records name a label is read from their bytes, and what names none is never decoded.
"""

from __future__ import annotations

import contextlib
import mmap
import re
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import msgspec

from strata_engine.run_record import ActionReport, RunRecord

_RUN = re.compile(rb'\{"run":"([^"\\]*)"')
_LABEL = re.compile(rb'"label":("(?:[^"\\]|\\.)*")')
_IDLE = b'"actions":[]'
_HEAD = 1 << 16
"""Bytes of a record that may come before its actions: a command line is the longest of it."""

_DAMAGED = RunRecord(run="", started="", seconds=0.0, command=(), exit_code=0, counts={}, actions=())
"""What stands for a line that a crash cut off: it names no build and has no actions."""


class Records(Sequence[RunRecord]):
    """Records, oldest first."""

    def __init__(self, data: bytes | mmap.mmap = b"") -> None:
        self._data = data
        self._lines: list[tuple[int, int]] = []
        """Where each record begins and ends: no line is copied."""
        at = 0
        while at < len(data):
            end = data.find(b"\n", at)
            end = len(data) if end < 0 else end
            if _RUN.match(data, at, end):
                self._lines.append((at, end))
            at = end + 1
        self._decoded: dict[int, RunRecord] = {}

    @classmethod
    def read(cls, path: Path) -> Records:
        """Read a file of records; none where there is no such file. Raises OSError."""
        try:
            with path.open("rb") as stream:
                # Mapped: of many megabytes a few are looked at. Records are added to or replaced, never cut short.
                return cls(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        except (FileNotFoundError, ValueError):
            # There is none, or it is empty.
            return cls()

    def with_one(self, record: RunRecord) -> Records:
        """Give these records and one more, the newest."""
        return Records(b"\n".join((self._data[:], msgspec.json.encode(record))))

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> RunRecord: ...

    @overload
    def __getitem__(self, index: slice) -> list[RunRecord]: ...

    def __getitem__(self, index: int | slice) -> RunRecord | list[RunRecord]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self._lines)))]
        at = range(len(self._lines))[index]
        if at not in self._decoded:
            begin, end = self._lines[at]
            try:
                self._decoded[at] = msgspec.json.decode(memoryview(self._data)[begin:end], type=RunRecord)
            except msgspec.MsgspecError:
                self._decoded[at] = _DAMAGED
        return self._decoded[at]

    def run(self, index: int) -> str:
        """Name a build without decoding its record."""
        match = _RUN.match(self._data, *self._lines[index])
        return match[1].decode("utf-8", "replace") if match else ""

    def idle(self, index: int) -> bool:
        """Tell whether a build had nothing to do."""
        begin, end = self._lines[index]
        # What comes before the list of actions is short.
        return self._data.find(_IDLE, begin, min(end, begin + _HEAD)) >= 0

    def names(self, index: int, label: str) -> bool:
        """Tell whether an action of this label was not up to date in a build."""
        return self._data.find(b'"label":' + msgspec.json.encode(label), *self._lines[index]) >= 0

    def labels(self, index: int) -> list[str]:
        """List the labels of what was not up to date in a build."""
        found = []
        for match in _LABEL.finditer(self._data, *self._lines[index]):
            with contextlib.suppress(msgspec.MsgspecError):
                found.append(msgspec.json.decode(match[1], type=str))
        return found

    def report(self, index: int, label: str) -> ActionReport | None:
        """Give how an action ended in a build, where it was not up to date."""
        if not self.names(index, label):
            return None
        return next((report for report in self[index].actions if report.label == label), None)
