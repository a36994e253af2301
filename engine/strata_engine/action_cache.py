"""The local action cache: which result an action key had on this machine.

It knows rows and results, not actions or why they run. A row is sealed together with its key, so a row that is torn,
moved or written by anything else is told from a good one and is a miss. Commit order (design §5): the blobs that wait
in the CAS are written in the transaction of the result that may refer to them, so no crash leaves a result without
them. Results that took no time to make wait for a group as well, and are seen by this process all the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from strata_engine.cas import Cas
from strata_engine.codec import (
    OUTPUT,
    ActionResult,
    OutputDirectory,
    OutputFile,
    decode_action_result,
    encode_action_result,
)
from strata_engine.digest import Digest
from strata_engine.index import Index
from strata_engine.seal import seal
from strata_engine.tree import Artifact, File, Tree

_SEAL = 16
"""Bytes of seal at the start of a row."""


class Hit(NamedTuple):
    """There is a result."""

    result: ActionResult


class Missing(NamedTuple):
    """There is none."""


class Corrupt(NamedTuple):
    """There is a row, and it cannot be believed."""


Lookup: TypeAlias = Hit | Missing | Corrupt
"""What was found under a key."""


class ActionCache:
    """Action key → ActionResult."""

    def __init__(self, index: Index, cas: Cas) -> None:
        self._index = index
        self._cas = cas
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._waiting: dict[bytes, bytes] = {}
        self._leaving: Mapping[bytes, bytes] = {}

    def lookup(self, key: Digest) -> Lookup:
        """Find the result of an action; whether its blobs are still there is for the caller to ask of the CAS."""
        return self.lookup_many((key,))[key]

    def lookup_many(self, keys: Iterable[Digest]) -> dict[Digest, Lookup]:
        """Find the results of actions, in few queries."""
        names = {row_key(key): key for key in keys}
        with self._lock:
            waiting = {name: self._waiting.get(name) or self._leaving.get(name) for name in names}
        rows: dict[bytes, bytes | None] = {name: row for name, row in waiting.items() if row is not None}
        if len(rows) < len(names):
            rows |= self._index.get_many(name for name in names if name not in rows)
        return {key: Missing() if (row := rows.get(name)) is None else _opened(key, row) for name, key in names.items()}

    def get(self, key: Digest) -> ActionResult | None:
        """Give the result of an action if there is one to be believed."""
        found = self.lookup(key)
        return found.result if isinstance(found, Hit) else None

    def everything(self) -> Iterator[tuple[Digest, Lookup]]:
        """List what is under every key; a key's size is not recorded and is 0 here."""
        for row in self._index.keys(b"a"):
            key = Digest(row[1:].hex(), 0)
            yield key, self.lookup(key)

    def put(self, key: Digest, result: ActionResult) -> None:
        """Keep a result, and before it every blob that waits to be written. Raises HostError."""
        self.put_later(key, result)
        self.flush()

    def put_later(self, key: Digest, result: ActionResult) -> None:
        """Keep a result with the next group; it is lost, and nothing else, where there is none."""
        data = encode_action_result(result)
        with self._lock:
            self._waiting[row_key(key)] = _seal(key, data) + data

    def flush(self) -> None:
        """Write what waits, the blobs in the CAS too, as one transaction. Raises HostError."""
        with self._flushing:
            with self._lock:
                self._leaving, self._waiting = self._waiting, {}
            try:
                self._cas.flush(self._leaving)
            except BaseException:
                with self._lock:
                    self._waiting = {**self._leaving, **self._waiting}
                raise
            finally:
                self._leaving = {}

    def delete(self, key: Digest) -> None:
        """Forget a result. Raises HostError."""
        with self._lock:
            self._waiting.pop(row_key(key), None)
        self._index.delete((row_key(key),))


def _opened(key: Digest, row: bytes) -> Lookup:
    sealed, data = row[:_SEAL], row[_SEAL:]
    if sealed != _seal(key, data):
        return Corrupt()
    try:
        result = decode_action_result(data)
        artifact_of(result)
    except ValueError:
        return Corrupt()
    return Hit(result) if result.worker else Corrupt()


def artifact_of(result: ActionResult) -> Artifact:
    """Give the one output of a result. Raises ValueError where there is not exactly one, called `out`."""
    match result:
        case ActionResult(output_files=(file,), output_directories=(), output_symlinks=()) if file.path == OUTPUT:
            return File(file.digest, file.is_executable)
        case ActionResult(
            output_files=(), output_directories=(OutputDirectory(path, Digest() as root),), output_symlinks=()
        ) if path == OUTPUT:
            return Tree(root)
        case _:
            raise ValueError(f"a result without exactly one output `{OUTPUT}`")


def result_of(
    artifact: Artifact,
    *,
    exit_code: int = 0,
    stdout: bytes = b"",
    stderr: bytes = b"",
    worker: str = "local",
    started_ns: int = 0,
    completed_ns: int = 0,
) -> ActionResult:
    """Make the result whose one output is `artifact`."""
    files = (OutputFile(OUTPUT, artifact.digest, artifact.executable),) if isinstance(artifact, File) else ()
    folders = (OutputDirectory(OUTPUT, artifact.root),) if isinstance(artifact, Tree) else ()
    return ActionResult(files, folders, exit_code, stdout, stderr, worker, started_ns, completed_ns)


def row_key(key: Digest) -> bytes:
    """Give the key of a result's row."""
    return b"a" + bytes.fromhex(key.hash)


def _seal(key: Digest, data: bytes) -> bytes:
    return seal(row_key(key) + data)
