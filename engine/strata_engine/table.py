"""The index's table while it can be written: diskcache's only door.

It knows SQLite through diskcache's connection, and no keys or digests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import diskcache

_RAW = 1
"""diskcache's mode of a value that is stored as it is."""


class BytesDisk(diskcache.Disk):  # type: ignore[misc] # diskcache is not typed
    """diskcache's serializer without its serializing: bytes stay bytes, anything else is an error."""

    def put(self, key: bytes) -> tuple[bytes, bool]:
        """Give the database's form of a key."""
        if type(key) is not bytes:
            raise TypeError("a key is bytes")
        return key, True

    def get(self, key: object, raw: object) -> bytes:
        """Give a key back; KeyError for one that is not bytes."""
        if not raw or type(key) is not bytes:
            raise KeyError("not one of our rows")
        return key

    def store(self, value: bytes, read: object, key: object = None) -> tuple[int, int, None, bytes]:  # noqa: ARG002 - diskcache's signature
        """Give the database's form of a value, which is never a file."""
        if type(value) is not bytes:
            raise TypeError("a value is bytes")
        return 0, _RAW, None, value

    def fetch(self, mode: object, filename: object, value: object, read: object) -> bytes:  # noqa: ARG002 - diskcache's signature
        """Give a value back; an OSError, which diskcache takes for a miss, for one that is not plain bytes."""
        if mode != _RAW or filename is not None or type(value) is not bytes:
            raise OSError("not one of our rows")
        return value


class WritableTable(diskcache.Cache):  # type: ignore[misc] # diskcache is not typed
    """diskcache's schema, pragmas and connection per thread and process, with statements of our own for groups.

    diskcache's own transactions try again for ever where the database cannot be written, so they are not used.
    """

    def __init__(self, folder: str) -> None:
        # A database that shrinks under a memory map kills the process, so none is mapped.
        super().__init__(
            folder, disk=BytesDisk, eviction_policy="none", cull_limit=0, statistics=0, tag_index=0,
            disk_min_file_size=1 << 62, disk_pickle_protocol=0, sqlite_mmap_size=0, sqlite_journal_mode="wal",
            sqlite_synchronous=1, sqlite_auto_vacuum=1, sqlite_cache_size=1 << 13,
        )  # fmt: skip

    def select(self, query: str, values: Sequence[bytes]) -> list[tuple[Any, ...]]:
        """Run a query to its end."""
        return list(self._sql(query, values).fetchall())

    def write(self, work: Sequence[tuple[str, Sequence[tuple[Any, ...]]]]) -> int:
        """Run statements, each for all its values, as one transaction; count the rows that changed."""
        connection = self._con
        changed = 0
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, values in work:
                changed += max(0, connection.executemany(statement, values).rowcount)
            connection.execute("COMMIT")
        except BaseException:
            # A full disk has rolled back by itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return changed
