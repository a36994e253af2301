"""Trees of the store as folders on disk, each once for a whole build: a runtime that many actions run, for example.

It knows no actions. Hard part: all of them see the same files, at the same time. So a folder has its name only once it
is whole, may not be written in, and goes when the build ends, not when an action does. It lies in the store's scratch,
below a name with this process's number and a random part: no other process uses it, and the store's sweep leaves it
alone while this one lives.
"""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

from strata_engine.digest import Digest
from strata_engine.files import remove_tree
from strata_engine.place import place
from strata_engine.tree import Store, Tree

# Paths are strings here: making a Path costs more than most of the calls it would be made for.
# ruff: noqa: PTH101, PTH116


class Folders:
    """The folders of one build. Methods may be called from any thread."""

    def __init__(self, store: Store, scratch: Path) -> None:
        self._store = store
        self._scratch = scratch
        self._root: Path | None = None
        self._lock = threading.Lock()
        self._locks: dict[Digest, threading.Lock] = {}
        self._placed: dict[Digest, Path] = {}

    def of(self, tree: Tree) -> Path:
        """Give the folder with the content of `tree`. Raises BlobLost, HostError."""
        with self._lock:
            own = self._locks.setdefault(tree.root, threading.Lock())
        # Whoever asks second for the same tree waits for the first; other trees need not wait.
        with own:
            path = self._placed.get(tree.root)
            if path is None:
                path = self._parent() / tree.root.hash
                place(self._store, tree, path)
                _protect(path)
                self._placed[tree.root] = path
        return path

    def close(self) -> None:
        """Remove all of them."""
        with self._lock:
            root, self._root = self._root, None
            self._locks.clear()
            self._placed.clear()
        if root is not None:
            remove_tree(root)

    def _parent(self) -> Path:
        with self._lock:
            if self._root is None:
                self._scratch.mkdir(parents=True, exist_ok=True)
                self._root = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-shared-", dir=self._scratch))
            return self._root


def _protect(root: Path) -> None:
    """Take the right to write from all of a folder: what one action changed there, another would take for its input."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = f"{folder}/{name}"
            if not os.path.islink(path):  # noqa: PTH114
                os.chmod(path, os.stat(path).st_mode & 0o555)
        os.chmod(folder, 0o555)  # noqa: S103 - readable by all and writable by none
