"""The index: a table of bytes to bytes in SQLite, for what is too small or too many to be files.

It knows nothing of digests, blobs or results: its users prefix their keys and check what they read. It must not be
trusted, and does not trust what it finds: rows are bytes both ways or they are misses, nothing is ever pickled or
unpickled, no row ever names a file, and a damaged database is set aside and begun anew.

Hard part: many threads and processes share one file. Writes are one `BEGIN IMMEDIATE` transaction per group, so a row
is never seen before the rows it was put with; readers never wait (WAL). Times of last use are collected in memory and
written along with the next group, so that reading stays reading.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from strata_engine.errors import Diagnostic, HostError

T = TypeVar("T")
_Group: TypeAlias = "tuple[str, Sequence[tuple[Any, ...]]]"
"""A statement, and the values of each time that it is run."""

TOUCH_AFTER = 1800.0
"""Seconds that a time of last use may lag behind: garbage collection leaves alone what it could be wrong about."""

DATABASE = "cache.db"
_BATCH = 500
"""Keys per SELECT."""
_ROW = "raw = 1 AND mode = 1 AND filename IS NULL AND typeof(key) = 'blob' AND typeof(value) = 'blob'"
"""What tells our rows from any others that stand in the table."""
_PUT = (
    "INSERT INTO Cache(key, raw, store_time, access_time, size, mode, filename, value)"
    " VALUES (?, 1, ?, ?, 0, 1, NULL, ?)"
    " ON CONFLICT(key, raw) DO UPDATE SET value = excluded.value, mode = 1, filename = NULL, tag = NULL,"
    " expire_time = NULL, store_time = excluded.store_time, access_time = excluded.access_time"
)
_TOUCH = "UPDATE Cache SET access_time = max(access_time, ?) WHERE key = ? AND raw = 1"

_READ_ONLY = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH}
_NOT_DAMAGE = _READ_ONLY | {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT,
}  # fmt: skip
_DAMAGE = {sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_READONLY_DBMOVED}
"""A file cut short, and one that another process set aside under us."""
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_WRITE = {errno.EROFS, errno.EACCES, errno.EPERM}


class Row(NamedTuple):
    """What is known of a row without reading its value."""

    key: bytes
    size: int
    used: float
    """When it was last used or written, in seconds since the epoch, up to `TOUCH_AFTER` too early."""


def ignore(_: Diagnostic) -> None:
    """Take a warning and say nothing."""


class Index:
    """A table of bytes to bytes that survives damage. Writing raises HostError; reading does only where it must."""

    def __init__(
        self, folder: Path, on_warning: Callable[[Diagnostic], None] = ignore, *, reading: bool = False
    ) -> None:
        """Open the table at `folder`, or make it; with `reading` nothing is made, and nothing can be written."""
        self.folder = folder
        self._warn = on_warning
        self._lock = threading.Lock()
        self._used: dict[bytes, float] = {}
        self._inode = 0
        self._table: _Table = _Frozen(folder) if reading else self._open()

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written."""
        return isinstance(self._table, _Frozen)

    def get(self, key: bytes) -> bytes | None:
        """Read one row; None where there is none that holds bytes."""
        return self.get_many((key,)).get(key)

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """Read rows; those that are not there are left out."""
        found = self._select("key, value, access_time", keys)
        self._note((key, used) for key, _, used in found)
        return {key: value for key, value, _ in found}

    def has_many(self, keys: Iterable[bytes]) -> set[bytes]:
        """Tell which rows are there, without reading their values."""
        found = self._select("key, access_time", keys)
        self._note(found)
        return {key for key, _ in found}

    def put_many(self, rows: Mapping[bytes, bytes]) -> None:
        """Write rows, all or none. Raises HostError."""
        now = time.time()
        self._follow()
        with self._lock:
            used, self._used = self._used, {}
        work: list[_Group] = [
            (_PUT, [(key, now, now, value) for key, value in rows.items()]),
            (_TOUCH, [(moment, key) for key, moment in used.items()]),
        ]
        self._attempt(lambda table: table.write(work))

    def delete(self, keys: Iterable[bytes], *, unused_since: float | None = None) -> int:
        """Remove rows, all or none, but those used after `unused_since`; say how many went. Raises HostError."""
        limit = float("inf") if unused_since is None else unused_since
        work = [("DELETE FROM Cache WHERE key = ? AND raw = 1 AND access_time <= ?", [(key, limit) for key in keys])]
        return self._attempt(lambda table: table.write(work))

    def clear(self) -> None:
        """Remove every row, our own or not. Raises HostError."""
        self.forget_uses()
        self._attempt(lambda table: table.write([("DELETE FROM Cache", [()])]))

    def rows(self, prefix: bytes = b"") -> list[Row]:
        """List the rows whose key starts with `prefix`, in byte order of their keys."""
        self.write_uses()
        query = f"SELECT key, length(value), access_time FROM Cache WHERE {_ROW} AND key >= ? ORDER BY key"  # noqa: S608 - constants
        found = self._attempt(lambda table: table.select(query, (prefix,)))
        return [Row(key, size, float(used or 0)) for key, size, used in found if key.startswith(prefix)]

    def keys(self, prefix: bytes = b"") -> list[bytes]:
        """List the keys that start with `prefix`, in byte order."""
        return [row.key for row in self.rows(prefix)]

    def write_uses(self) -> None:
        """Write the times of last use that were collected; silently lost where nothing can be written."""
        if self._used and not self.read_only:
            with contextlib.suppress(HostError):
                self.put_many({})

    def forget_uses(self) -> None:
        """Drop the times of last use that were collected: what looked at everything has used nothing."""
        with self._lock:
            self._used = {}

    def close(self) -> None:
        """Write the times of last use and let go of this thread's connection. The index can be used again."""
        self.write_uses()
        self._table.close()

    def _select(self, columns: str, keys: Iterable[bytes]) -> list[tuple[Any, ...]]:
        wanted = list(keys)
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            marks = ",".join("?" * len(batch))
            query = f"SELECT {columns} FROM Cache WHERE {_ROW} AND key IN ({marks})"  # noqa: S608 - constants
            found += self._attempt(lambda table, query=query, batch=batch: table.select(query, batch))  # type: ignore[misc] # defaults bind the loop's variables
        return found

    def _note(self, uses: Iterable[tuple[bytes, Any]]) -> None:
        now = time.time()
        stale = [key for key, used in uses if not isinstance(used, float) or used < now - TOUCH_AFTER]
        if stale:
            with self._lock:
                self._used.update(dict.fromkeys(stale, now))

    def _attempt(self, work: Callable[[_Table], T]) -> T:
        """Do something with the table, and once more where it turns out damaged and could be replaced."""
        table = self._table
        try:
            return work(table)
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise _said(error, self.folder) from error
            self._replace(table, error)
        try:
            return work(self._table)
        except sqlite3.Error as error:
            raise _said(error, self.folder) from error

    def _open(self) -> _Table:
        # Here and not above: who only reads the table, to explain a build, needs no more than SQLite.
        from strata_engine.table import WritableTable  # noqa: PLC0415 - see the comment above

        if self.folder.is_dir() and not os.access(self.folder, os.W_OK):
            return _Frozen(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._inode = self._inode_now()
            self._refuse_stranger()
            try:
                table: _Table = WritableTable(str(self.folder))
            except sqlite3.Error as error:
                if _code(error) in _READ_ONLY:
                    return _Frozen(self.folder)
                if not _is_damage(error):
                    raise
                self._set_aside(error)
                table = WritableTable(str(self.folder))
            except (TypeError, ValueError, AttributeError, KeyError) as error:
                # diskcache believes its table of settings, which then holds what no version of it wrote.
                self._set_aside(error)
                table = WritableTable(str(self.folder))
            self._inode = self._inode_now()
        except sqlite3.Error as error:
            raise _said(error, self.folder) from error
        except OSError as error:
            raise store_error(error, self.folder) from error
        return table

    def _refuse_stranger(self) -> None:
        """Set aside a database that its `-wal` and `-shm` do not belong to: SQLite would wait for their locks."""
        path = self.folder / DATABASE
        # In this order: SQLite writes the first page before it makes the others, as another process may be doing now.
        beside = any(Path(f"{path}{ending}").exists() for ending in ("-wal", "-shm"))
        with contextlib.suppress(FileNotFoundError):
            if beside and path.stat().st_size == 0:
                self._set_aside(sqlite3.DatabaseError("it is empty"))

    def _follow(self) -> None:
        """Open the database anew where another process set ours aside or removed it: SQLite would write to nobody."""
        with self._lock:
            if self.read_only or self._inode_now() == self._inode:
                return
            self._table.close()
            self._table = self._open()

    def _inode_now(self) -> int:
        try:
            return (self.folder / DATABASE).stat().st_ino
        except OSError:
            return 0

    def _replace(self, damaged: _Table, error: Exception) -> None:
        with self._lock:
            if self._table is not damaged:
                return
            if self.read_only:
                raise HostError(_corrupt(self.folder, error))
            damaged.close()
            self._set_aside(error)
            self._table = self._open()

    def _set_aside(self, error: Exception) -> None:
        """Rename a damaged database, unless another process has done so already."""
        with _alone(self.folder):
            path = self.folder / DATABASE
            if self._inode_now() != self._inode:
                return
            mark = f"{time.time_ns():x}-{os.getpid()}"
            for ending in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{path}{ending}").rename(self.folder / f"corrupt-{mark}-{DATABASE}{ending}")
        self._warn(_corrupt(self.folder, error)._replace(severity="warning"))


class _Table(Protocol):
    """A database: what `Index` needs of it."""

    def select(self, query: str, values: Sequence[bytes]) -> list[tuple[Any, ...]]:
        """Run a query to its end."""

    def write(self, work: Sequence[_Group]) -> int:
        """Run statements, each for all its values, as one transaction; count the rows that changed."""

    def close(self) -> None:
        """Let go of this thread's connection."""


class _Frozen:
    """A database that can only be read, or none at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        path = folder / DATABASE
        if not path.exists():
            return
        # Where its `-wal` and `-shm` files cannot be made, it is read as a database that never changes.
        for way in ("mode=ro", "immutable=1"):
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?{way}", uri=True, check_same_thread=False)
            try:
                connection.execute("SELECT 1 FROM Cache LIMIT 1").fetchall()
            except sqlite3.Error:
                connection.close()
                continue
            self._connection = connection
            return

    def select(self, query: str, values: Sequence[bytes]) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall() if self._connection is not None else []

    def write(self, work: Sequence[_Group]) -> int:
        if any(values for _, values in work):
            raise HostError(_unwritable(self._folder, "it is read-only"))
        return 0

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock under which a database is replaced."""
    with (folder / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _code(error: sqlite3.Error) -> int | None:
    """Give SQLite's primary result code; None for an error of Python's own."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _is_damage(error: sqlite3.Error) -> bool:
    code = _code(error)
    return code is not None and (code not in _NOT_DAMAGE or error.sqlite_errorcode in _DAMAGE)


def _said(error: sqlite3.Error, folder: Path) -> HostError:
    code = _code(error)
    if code == sqlite3.SQLITE_FULL:
        return HostError(_full(folder, str(error)))
    if code in _READ_ONLY:
        return HostError(_unwritable(folder, str(error)))
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        hint = "wait until the other process is done, or end it"
        return HostError(Diagnostic("store-busy", f"another process keeps the store `{folder}` locked", hint=hint))
    return HostError(Diagnostic("store-failed", f"the store `{folder}` cannot be used: {error}"))


def store_error(error: OSError, folder: Path) -> HostError:
    """Say what the operating system refused to a store in `folder`."""
    reason = error.strerror or str(error)
    if error.errno in _NO_SPACE:
        return HostError(_full(folder, reason))
    if error.errno in _NO_WRITE:
        return HostError(_unwritable(folder, reason))
    return HostError(Diagnostic("store-failed", f"the store `{folder}` cannot be used: {reason}"))


def _full(folder: Path, reason: str) -> Diagnostic:
    hint = "free some space, or put the store where there is some with `STRATA_CACHE_DIR`"
    return Diagnostic("disk-full", f"no space left for the store `{folder}`: {reason}", hint=hint)


def _unwritable(folder: Path, reason: str) -> Diagnostic:
    hint = "make it writable for this user, or put the store elsewhere with `STRATA_CACHE_DIR`"
    return Diagnostic("store-read-only", f"the store `{folder}` cannot be written: {reason}", hint=hint)


def _corrupt(folder: Path, error: Exception) -> Diagnostic:
    return Diagnostic(
        "index-corrupt",
        f"the index `{folder}` is damaged: {error}",
        notes=("it was set aside and begun anew; what it held is made or fetched again",),
    )
