"""The shared store of one machine: where it is, and its parts opened together."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from strata_engine.action_cache import ActionCache
from strata_engine.cas import Cas
from strata_engine.errors import Diagnostic
from strata_engine.index import DATABASE, Index, store_error


class LocalStore(msgspec.Struct, frozen=True, eq=False):
    """The opened store."""

    folder: Path
    index: Index
    cas: Cas
    cache: ActionCache

    @property
    def locks(self) -> Path:
        """The folder of the lock files of action keys."""
        return self.folder / "locks"

    @property
    def scratch(self) -> Path:
        """The folder in which actions work; on the store's file system, so that nothing is copied twice."""
        return self.folder / "tmp"

    def close(self) -> None:
        """Write what is still buffered and close the index."""
        self.cache.flush()
        self.index.close()


def store_folder() -> Path:
    """Give the store's folder: `STRATA_CACHE_DIR`, else the platform's user cache folder."""
    override = os.environ.get("STRATA_CACHE_DIR")
    if override:
        return Path(os.path.expanduser(override)).absolute()  # noqa: PTH111 - Path's own raises where there is no such user
    import platformdirs  # noqa: PLC0415 - who says where the store is does not pay for it

    return platformdirs.user_cache_path("strata")


def open_store(folder: Path, on_warning: Callable[[Diagnostic], None]) -> LocalStore:
    """Open a store, making it where there is none. Raises HostError."""
    try:
        (folder / "locks").mkdir(parents=True, exist_ok=True)
        (folder / "tmp").mkdir(exist_ok=True)
    except OSError as error:
        raise store_error(error, folder) from error
    if not _size(folder / DATABASE) and any((folder / "cas").glob("*")):
        on_warning(
            Diagnostic(
                "index-lost",
                f"the store `{folder}` has blobs and no index",
                notes=("the index is begun anew; what it held is made or fetched again",),
                severity="warning",
            )
        )
    index = Index(folder, on_warning)
    cas = Cas(folder, index, on_warning)
    return LocalStore(folder, index, cas, ActionCache(index, cas))


def open_reader(folder: Path) -> Cas:
    """Open a store's content to be read and not kept in order: that is a build's business, and costs its time."""
    return Cas(folder, Index(folder, reading=True))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
