"""What a build reads of the workspace: files, folders, and paths found absent, each stamped as it is read.

Every read in loading and analysis goes through one `Sources`, so that a snapshot of the build knows all that could
change its answer. Digests of unchanged files are taken from the last build while their stamps hold (design §6).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from strata_engine.digest import ABSENT, Digest, Stamp, digest_file, seal, stamp
from strata_engine.errors import HostError, SpecError
from strata_engine.snapshot import racy
from strata_engine.tree import File, Node, Store, Symlink, Tree, assemble
from strata_engine.workspace import Workspace, write_atomically


class _Known(msgspec.Struct, frozen=True, array_like=True):
    """A file's digest, and the stamp for which it is right."""

    stamp: Stamp
    digest: Digest


class Sources:
    """Reads of one build, recorded. Not for use from several threads at once, but for `heal`."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.observed: dict[str, Stamp] = {}
        """Absolute path → its stamp when this build looked at it."""
        self._file = workspace.state / "sources"
        self._known = _load(self._file)
        self._fresh: dict[str, _Known] = {}
        self._paths: dict[Digest, Path] = {}

    def absolute(self, path: str | Path) -> Path:
        """Give the place of a workspace-relative path."""
        return self.workspace.root / path

    def observe(self, path: str | Path) -> Stamp:
        """Stamp a path without reading it; later looks at it in this build must see the same."""
        place = str(self.absolute(path))
        found = self.observed.get(place)
        if found is None:
            try:
                found = stamp(place)
            except OSError as error:
                raise _unreadable(place, error) from error
            self.observed[place] = found
        return found

    def probe(self, path: str | Path) -> bool:
        """Tell whether something is at a path; its absence is recorded as well."""
        return self.observe(path) != ABSENT

    def read(self, path: str | Path) -> bytes:
        """Read a file. Raises SpecError `missing-file`, or HostError."""
        place = self.absolute(path)
        if not self.probe(place):
            raise SpecError.of("missing-file", f"there is no file `{self.workspace.relative(place)}`")
        try:
            return place.read_bytes()
        except OSError as error:
            raise _unreadable(str(place), error) from error

    def listing(self, path: str | Path) -> list[str]:
        """List the names in a folder in byte order; an absent folder is empty."""
        place = self.absolute(path)
        if not self.probe(place):
            return []
        try:
            return sorted((entry.name for entry in place.iterdir()), key=os.fsencode)
        except OSError as error:
            raise _unreadable(str(place), error) from error

    def digest(self, path: str | Path) -> Digest:
        """Name a file's content, from the last build's knowledge where the stamp holds."""
        place = self.absolute(path)
        key = str(place)
        known = self._fresh.get(key)
        if known is None:
            if not self.probe(place):
                raise SpecError.of("missing-file", f"there is no file `{self.workspace.relative(place)}`")
            known = self._known.get(key)
            if known is None or known.stamp != self.observed[key]:
                known = self._hash(place)
            self._fresh[key] = known
        self._paths[known.digest] = place
        return known.digest

    def _hash(self, place: Path) -> _Known:
        """Hash a file that nobody changes meanwhile; a second change within the clock's grain is waited out."""
        for _ in range(100):
            try:
                before = stamp(place)
                if racy(before, time.time_ns()):
                    time.sleep(0.021)
                    continue
                digest = digest_file(place)
                after = stamp(place)
            except OSError as error:
                raise _unreadable(str(place), error) from error
            if before == after:
                self.observed[str(place)] = after
                return _Known(after, digest)
        raise HostError.of("racy-input", f"`{self.workspace.relative(place)}` keeps changing while it is read")

    def file(self, path: str | Path) -> File:
        """Name a file as an input, with its executable bit."""
        place = self.absolute(path)
        digest = self.digest(place)
        return File(digest, os.access(place, os.X_OK))

    def tree(self, store: Store, path: str | Path, accept: Callable[[str, bool], bool] | None = None) -> Tree:
        """Capture a folder as an input; files whose digest is known are not read. Raises SpecError, HostError."""
        top = self.absolute(path)
        nodes: dict[str, Node] = {}

        def visit(folder: Path, prefix: str) -> None:
            for name in self.listing(folder):
                place = folder / name
                relative = f"{prefix}{name}"
                is_folder = place.is_dir() and not place.is_symlink()
                if accept is not None and not accept(relative, is_folder):
                    continue
                if place.is_symlink():
                    nodes[relative] = Symlink(str(place.readlink()))
                elif is_folder:
                    visit(place, f"{relative}/")
                elif place.is_file():
                    nodes[relative] = self.file(place)

        if not self.probe(top):
            raise SpecError.of("missing-file", f"there is no folder `{self.workspace.relative(top)}`")
        visit(top, "")
        return assemble(store, nodes)

    def heal(self, store: Store, digest: Digest) -> bool:
        """Put a source file into the store again; False when no source seen in this build has this content."""
        place = self._paths.get(digest)
        if place is None:
            return False
        try:
            return store.put_file(place) == digest
        except FileNotFoundError:
            return False

    def holds(self) -> bool:
        """Tell whether everything observed is still as it was, racy looks included."""
        now = time.time_ns()
        if any(racy(value, now) for value in self.observed.values()):
            time.sleep(0.021)
        try:
            return all(stamp(path) == value for path, value in self.observed.items())
        except OSError:
            return False

    def save(self) -> None:
        """Keep what is known of the files seen, for the next build. Raises OSError."""
        kept = {path: known for path, known in (self._known | self._fresh).items() if path in self.observed}
        body = msgspec.msgpack.encode(kept)
        if kept != self._known:
            write_atomically(self._file, seal(body) + body)


def _load(path: Path) -> dict[str, _Known]:
    """Read what the last build knew; damage costs hashing, nothing else."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        data = path.read_bytes()
        if seal(data[16:]) == data[:16]:
            return msgspec.msgpack.decode(data[16:], type=dict[str, _Known])
    return {}


def _unreadable(path: str, error: OSError) -> HostError:
    return HostError.of("unreadable", f"cannot read `{path}`: {error.strerror}")
