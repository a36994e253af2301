"""What a build reads of the workspace: files, folders, and paths found absent, each stamped as it is read.

Every read in loading and analysis goes through one `Sources`, so that a snapshot of the build knows all that could
change its answer. Digests of unchanged files are taken from the last build while their stamps hold (design §6).
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from strata_engine.digest import ABSENT, Digest, Stamp, digest_file, racy, stamp
from strata_engine.errors import Diagnostic, HostError, SpecError
from strata_engine.seal import seal
from strata_engine.tree import EMPTY_TREE, File, Node, Store, Symlink, Tree, assemble
from strata_engine.workspace import Workspace, write_atomically

_LOOKS = 100
"""How often a path is looked at until it stands still; together longer than the grain of any file system's clock."""
_PAUSE = 0.021


class _Known(msgspec.Struct, frozen=True, array_like=True):
    """A file's digest, and the stamp for which it is right."""

    stamp: Stamp
    digest: Digest


class Reads(Protocol):
    """How a build reads what actions are made from."""

    @property
    def workspace(self) -> Workspace:
        """Whose root names of files start from."""
        ...

    def file(self, path: str | Path) -> File:
        """Name a file as an input."""
        ...

    def tree(
        self,
        store: Store,
        path: str | Path,
        accept: Callable[[str, bool], bool] | None = None,
        *,
        follow: bool = False,
        empty: Callable[[str], bool] | None = None,
    ) -> Tree:
        """Capture a folder as an input. Raises SpecError, HostError."""
        ...

    def heal(self, store: Store, digest: Digest) -> bool:
        """Put a source file into the store again; False when no source seen in this build has this content."""
        ...


class Sources:
    """Reads of one build, recorded. Threads may share it: at worst a file is hashed twice."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.observed: dict[str, Stamp] = {}
        """Absolute path → its stamp when this build first looked at it."""
        self._restless: set[str] = set()
        """Paths that would not stand still: what was read of them is not what their stamps stand for."""
        self._file = workspace.state / "sources"
        self.warning: Diagnostic | None = None
        """What was wrong with the last build's knowledge."""
        self._known = self._load()
        self._fresh: dict[str, _Known] = {}
        self._paths: dict[Digest, Path] = {}

    def _load(self) -> dict[str, _Known]:
        """Read what the last build knew; damage costs hashing, nothing else."""
        try:
            data = self._file.read_bytes()
        except OSError:
            return {}
        try:
            known = (
                msgspec.msgpack.decode(data[16:], type=dict[bytes, _Known]) if seal(data[16:]) == data[:16] else None
            )
        except msgspec.MsgspecError:
            known = None
        if known is None:
            self.warning = Diagnostic(
                "state-damaged",
                "what was known of this workspace's files is damaged and was begun anew",
                notes=(f"file: {self.workspace.relative(self._file)}",),
                hint="nothing is lost: each file is read once more",
                severity="warning",
            )
        return {os.fsdecode(path): each for path, each in (known or {}).items()}

    def _unreadable(self, place: str | Path, error: OSError) -> HostError:
        hint = "check who owns it and who may read it" if error.errno in {errno.EACCES, errno.EPERM} else None
        return HostError.of(
            "unreadable", f"cannot read `{self.workspace.relative(place)}`: {error.strerror}", hint=hint
        )

    def absolute(self, path: str | Path) -> Path:
        """Give the place of a workspace-relative path."""
        return self.workspace.root / path

    def observe(self, path: str | Path) -> Stamp:
        """Stamp a path before it is read; `holds` tells whether later looks saw the same.

        A path that changed just now could change again without a new stamp, so that is waited out first.
        """
        place = str(self.absolute(path))
        found = self.observed.get(place)
        if found is None:
            found = self.observed[place] = self._stamp_at_rest(place)
        return found

    def _stamp_at_rest(self, place: str) -> Stamp:
        try:
            for _ in range(_LOOKS):
                found = stamp(place)
                if not racy(found, time.time_ns()):
                    return found
                time.sleep(_PAUSE)
            self._restless.add(place)
            return stamp(place)
        except OSError as error:
            raise self._unreadable(place, error) from error

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
            raise self._unreadable(place, error) from error

    def listing(self, path: str | Path) -> list[str]:
        """List the names in a folder in byte order; an absent folder is empty."""
        place = self.absolute(path)
        if not self.probe(place):
            return []
        try:
            return sorted((entry.name for entry in place.iterdir()), key=os.fsencode)
        except OSError as error:
            raise self._unreadable(place, error) from error

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
        """Hash a file that nobody changes meanwhile.

        What an earlier look saw stays recorded: where this is something else, the build has seen two contents, and
        `holds` says so.
        """
        for _ in range(_LOOKS):
            before = self._stamp_at_rest(str(place))
            try:
                if not stat.S_ISREG(place.stat().st_mode):
                    raise SpecError.of("not-a-file", f"`{self.workspace.relative(place)}` is not a file")
                digest = digest_file(place)
                after = stamp(place)
            except OSError as error:
                raise self._unreadable(place, error) from error
            if before == after:
                return _Known(after, digest)
            if str(place) in self._restless:
                break
        raise self._racy(place)

    def _racy(self, place: Path) -> HostError:
        return HostError.of(
            "racy-input",
            f"`{self.workspace.relative(place)}` changes while it is built from",
            hint="build again when it is at rest",
        )

    def file(self, path: str | Path) -> File:
        """Name a file as an input, with its executable bit."""
        place = self.absolute(path)
        digest = self.digest(place)
        try:
            # The owner's bit, as git keeps it: what this user may do is not the file's property.
            return File(digest, bool(place.stat().st_mode & stat.S_IXUSR))
        except OSError as error:
            raise self._unreadable(place, error) from error

    def tree(
        self,
        store: Store,
        path: str | Path,
        accept: Callable[[str, bool], bool] | None = None,
        *,
        follow: bool = False,
        empty: Callable[[str], bool] | None = None,
    ) -> Tree:
        """Capture a folder as an input; files whose digest is known are not read. Raises SpecError, HostError.

        With `follow`, what symlinks lead to is captured in their place, and one that leads nowhere is refused. `empty`
        tells of which folders to keep the name where nothing in them is taken.
        """
        top = self.absolute(path)
        nodes: dict[str, Node] = {}

        def visit(folder: Path, prefix: str, way: tuple[str, ...]) -> None:
            """List a folder; `way` are the real paths of those that it is in, and its own."""
            for name in self.listing(folder):
                place = folder / name
                relative = f"{prefix}{name}"
                self._check_name(relative, name)
                is_link = place.is_symlink()
                is_folder = place.is_dir() and (follow or not is_link)
                if accept is not None and not accept(relative, is_folder):
                    continue
                if is_link and not follow:
                    nodes[relative] = Symlink(str(place.readlink()))
                elif is_folder:
                    taken = len(nodes)
                    visit(place, f"{relative}/", (*way, self._real(place, way) if is_link else f"{way[-1]}/{name}"))
                    if empty is not None and len(nodes) == taken and empty(relative):
                        nodes[relative] = EMPTY_TREE
                elif place.is_file():
                    nodes[relative] = self.file(place)
                elif is_link:
                    raise self._leads_nowhere(place, "which is no file or folder")

        if not self.probe(top):
            raise SpecError.of("missing-file", f"there is no folder `{self.workspace.relative(top)}`")
        visit(top, "", (os.path.realpath(top),))
        return assemble(store, nodes)

    def _real(self, link: Path, way: tuple[str, ...]) -> str:
        """Give the real path of a folder that a symlink leads to. Raises SpecError where it is one that it is in."""
        found = os.path.realpath(link)
        if found in way:
            raise self._leads_nowhere(link, "a folder that it is in itself")
        return found

    def _leads_nowhere(self, link: Path, what: str) -> SpecError:
        said = f"the symlink `{self.workspace.relative(link)}` leads to `{link.readlink()}`, {what}"
        return SpecError.of("broken-symlink", said, hint="remove it, or let it lead to what is meant")

    def _check_name(self, path: str, name: str) -> None:
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = path.encode(errors="backslashreplace").decode()
            raise SpecError.of(
                "name-not-utf8",
                f"the name of `{shown}` is not UTF-8",
                hint="rename it: trees hold names that every platform can write",
            ) from None

    def heal(self, store: Store, digest: Digest) -> bool:
        """Put a source file into the store again; False when no source seen in this build has this content.

        Raises HostError `racy-input` where it had this content and has another one by now.
        """
        place = self._paths.get(digest)
        if place is None:
            return False
        try:
            found = store.put_file(place)
        except FileNotFoundError:
            raise self._racy(place) from None
        except OSError as error:
            raise self._unreadable(place, error) from error
        if found != digest:
            raise self._racy(place)
        return True

    def holds(self) -> bool:
        """Tell whether everything observed is still as it was."""
        if self._restless:
            return False
        try:
            return all(stamp(path) == value for path, value in self.observed.items())
        except OSError:
            return False

    def save(self) -> None:
        """Keep what is known of the files seen, for the next build. Raises OSError."""
        kept = {path: known for path, known in (self._known | self._fresh).items() if path in self.observed}
        if kept != self._known:
            # A path need not be text, so it is kept as the file system has it.
            body = msgspec.msgpack.encode({os.fsencode(path): known for path, known in kept.items()})
            write_atomically(self._file, seal(body) + body)
