"""The `Capture` action: a CPython of this machine becomes a runtime tree that works anywhere.

It does not look for Pythons (`local`), and the bytes of each file are made relocatable elsewhere (`relocate`). What is
taken: the interpreter, the standard library without its tests, the extension modules, and the shared libraries of its
own prefix that these need. Headers, pkg-config and Makefiles are left out: only wheels are ever installed, and a
distribution has them in another package, so that two machines with one Python would give two trees.

Where the result is pinned, another result is refused, naming both: a layer is locked with one runtime (design §4).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from strata_engine.action import Action, Execution, Scope
from strata_engine.cas import BlobLost
from strata_engine.digest import Digest, digest_file
from strata_engine.errors import Diagnostic, HostError, Place
from strata_engine.tree import Artifact, File, Node, Store, Symlink, Tree, assemble, blobs
from strata_rules import elf
from strata_rules.runtime.facts import facts_of
from strata_rules.runtime.local import Found, Interpreter
from strata_rules.runtime.pin import LocalPin, keep
from strata_rules.runtime.prove import Original, prove
from strata_rules.runtime.relocate import (
    SYSTEM_PREFIXES,
    NotRelocatable,
    looks_elsewhere,
    set_runpath,
    without_distribution,
    without_prefix,
)

VERSION = 1

_DROPPED_FOLDERS = frozenset(
    {"__pycache__", "test", "tests", "idlelib", "turtledemo", "site-packages", "dist-packages", "lib-dynload"}
)
_DROPPED_FILES = re.compile(
    r".*\.(pyc|pyo|a|o)|(site|user)customize\.py|apport_python_hook\.py|EXTERNALLY-MANAGED|_?distutils-precedence\.pth"
)
"""`sitecustomize.py` and `EXTERNALLY-MANAGED` are how a distribution speaks to its own users."""
_DROPPED_EXTENSIONS = re.compile(r"_test.*|_?xx.*|_ctypes_test.*")


_README = b"This directory exists so that 3rd party packages can be installed here.\n"
"""CPython's own installation has such a file, too: trees have no empty folders."""


class Piece(NamedTuple):
    """A file or symlink of the machine that is taken, and where it stands in the runtime."""

    path: str
    source: Path
    link: str | None = None
    """The target, where a symlink is made."""


def pieces(interpreter: Interpreter) -> list[Piece]:
    """List what is taken of an interpreter, sorted by path. Raises OSError."""
    stdlib = f"lib/python{interpreter.python}"
    binary = Path(os.path.realpath(interpreter.executable))
    found = [Piece("bin/python", binary)]
    found += [Piece(f"bin/{name}", binary, "python") for name in ("python3", f"python{interpreter.python}")]
    found += _library(Path(interpreter.stdlib), stdlib)
    dynload = Path(interpreter.dynload)
    for file in sorted(dynload.iterdir()):
        if file.is_file() and ".so" in file.name and not _DROPPED_EXTENSIONS.match(file.name):
            found.append(Piece(f"{stdlib}/lib-dynload/{file.name}", file))
    found += _shared(interpreter, [piece.source for piece in found if piece.link is None and _is_binary(piece.path)])
    if interpreter.platlibdir != "lib":
        # Such an interpreter looks for its library below `lib64`, and everything else here expects `lib`.
        found.append(Piece(interpreter.platlibdir, binary, "lib"))
    return sorted(found)


def _is_binary(path: str) -> bool:
    return path == "bin/python" or ".so" in path.rpartition("/")[2]


def _library(folder: Path, prefix: str) -> Iterator[Piece]:
    """Walk the standard library. A symlink is kept where it stays inside, and dropped where it leaves."""
    root = os.path.realpath(folder)
    for parent, folders, files in os.walk(folder):
        inside = Path(parent).relative_to(folder).as_posix()
        base = prefix if inside == "." else f"{prefix}/{inside}"
        folders[:] = [name for name in folders if name not in _DROPPED_FOLDERS and not name.startswith("config-")]
        for name in files:
            source = Path(parent, name)
            if _DROPPED_FILES.fullmatch(name):
                continue
            if not source.is_symlink():
                yield Piece(f"{base}/{name}", source)
                continue
            target = os.path.realpath(source)
            if target.startswith(f"{root}/") and Path(target).is_file():
                yield Piece(f"{base}/{name}", source, os.path.relpath(target, os.path.realpath(parent)))


def _shared(interpreter: Interpreter, binaries: list[Path]) -> list[Piece]:
    """Find the libraries of the interpreter's own prefix that its binaries need, and what these need.

    A libpython may stand in the system's folder as well; any other library there belongs to the system.
    """
    folders = [Path(interpreter.libdir)] if interpreter.libdir else []
    own = interpreter.prefix not in SYSTEM_PREFIXES
    if own:
        folders.append(Path(interpreter.prefix) / "lib")
    found: dict[str, Piece] = {}
    waiting = list(binaries)
    while waiting:
        with waiting.pop().open("rb") as stream:
            needed = elf.read(stream)
        for name in needed.needed if needed is not None else ():
            if "/" in name or name in found or not (own or name.startswith("libpython")):
                continue
            source = next((folder / name for folder in folders if (folder / name).is_file()), None)
            if source is not None:
                found[name] = Piece(f"lib/{name}", Path(os.path.realpath(source)))
                waiting.append(source)
    return list(found.values())


def identity(interpreter: Interpreter) -> str:
    """Name what would be captured, by content and without any path: what the key calls the interpreter.

    Raises HostError where the installation cannot be read.
    """
    try:
        lines = [
            f"{piece.path}\0{piece.link}" if piece.link is not None else f"{piece.path}\0{digest_file(piece.source)}"
            for piece in pieces(interpreter)
        ]
    except OSError as error:
        raise _unreadable(interpreter, error) from error
    listing = "\n".join(lines).encode("utf-8", "surrogateescape")
    return f"cpython-{interpreter.version}-{Digest.of(listing).hash[:32]}"


def _unreadable(interpreter: Interpreter, error: OSError) -> HostError:
    message = f"cannot read CPython {interpreter.version} at `{interpreter.executable}`: {error.strerror}"
    return HostError(Diagnostic("unreadable-python", message))


def capture_tree(
    store: Store, interpreter: Interpreter, check: Callable[[], None] = lambda: None, place: Place | None = None
) -> Tree:
    """Put the runtime tree into the store. Raises HostError, `runtime-not-relocatable` among others."""
    nodes: dict[str, Node] = {}
    try:
        for piece in pieces(interpreter):
            check()
            nodes[piece.path] = Symlink(piece.link) if piece.link is not None else _file(store, interpreter, piece)
        stdlib = f"lib/python{interpreter.python}"
        nodes[f"{stdlib}/site-packages/README.txt"] = File(store.put(_README))
        if looks_elsewhere(Path(interpreter.stdlib, "site.py").read_bytes()):
            nodes[f"{stdlib}/dist-packages"] = Symlink("site-packages")
    except OSError as error:
        raise _unreadable(interpreter, error) from error
    except NotRelocatable as error:
        message = f"CPython {interpreter.version} at `{interpreter.executable}` cannot be made a runtime: {error}"
        hint = 'use another Python (`STRATA_PYTHON`), or `provider = "pbs"`'
        raise HostError(Diagnostic("runtime-not-relocatable", message, place, hint=hint)) from error
    return assemble(store, nodes)


def _file(store: Store, interpreter: Interpreter, piece: Piece) -> File:
    data = piece.source.read_bytes()
    executable = piece.path.startswith("bin/") or bool(piece.source.stat().st_mode & 0o100)
    folder = piece.path.rpartition("/")[0]
    up = os.path.relpath("lib", folder)
    old = {os.path.normpath(path) for path in (f"{interpreter.prefix}/lib", interpreter.libdir) if path}

    def moved(entry: str) -> str:
        if not entry.startswith("/") or os.path.normpath(entry) not in old:
            return entry
        return f"$ORIGIN/{up}"

    try:
        data = set_runpath(data, moved)
        data = without_prefix(piece.path, data, interpreter.prefix)
        data = without_distribution(piece.path.removeprefix(f"lib/python{interpreter.python}/"), data)
    except NotRelocatable as error:
        raise NotRelocatable(f"`{piece.source}`: {error}") from None
    return File(store.put(data), executable)


class RuntimePin(NamedTuple):
    """Keeps the pin of a `local` runtime beside the lock: the action's `Committed` while there is no valid pin yet.

    It never gives a result: once pinned, the key and the check in `capture_action` hold the runtime fast, so that a
    machine without the tree may make it again under `--locked`.
    """

    path: Path
    platform: str
    version: str
    identity: str

    def read(self, key: Digest, store: Store) -> Artifact | None:  # noqa: ARG002 (the protocol's)
        """Give nothing."""
        return None

    def write(self, key: Digest, artifact: Artifact, store: Store) -> None:  # noqa: ARG002 (the protocol's)
        """Pin the tree. Raises HostError."""
        assert isinstance(artifact, Tree)
        folder = {node.name: node.digest for node in store.load(artifact.root).directories}
        keep(self.path, self.platform, LocalPin(self.version, self.identity, str(folder["tree"])))

    def why_invalid(self, key: Digest) -> tuple[str, ...]:  # noqa: ARG002 (the protocol's)
        """Say that there is no pin."""
        return (f"the runtime is not pinned in `{self.path.name}` for `{self.platform}`",)


class Capturing(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be captured."""

    layer: str
    version: str
    platform: str
    identity: str
    pinned: Digest | None
    """The tree that the pin asks for."""
    find: Callable[[], Found]
    """Looks for the interpreter, when it is needed."""
    pin_path: Path | None
    place: Place | None = None


def capture_action(wanted: Capturing) -> Action:
    """Make the action: `out/tree` is the runtime, `out/facts.json` describes it."""
    pin = None
    if wanted.pin_path is not None and wanted.pinned is None:
        pin = RuntimePin(wanted.pin_path, wanted.platform, wanted.version, wanted.identity)
    return Action(
        label=f"{wanted.layer}/capture",
        mnemonic="Capture",
        version=VERSION,
        params={"platform": wanted.platform, "version": wanted.version},
        platform={"interpreter": wanted.identity},
        scope=Scope.LOCAL,
        run=lambda execution: _run(execution, wanted),
        committed=pin,
        pinned="tree",
        expected=Tree(wanted.pinned) if wanted.pinned is not None else None,
        description=f"capture CPython {wanted.version} of this machine",
        place=wanted.place,
    )


def _run(execution: Execution, wanted: Capturing) -> Tree:
    store = execution.store
    tree = _stored(store, wanted.pinned)
    if tree is None:
        interpreter = _interpreter(wanted)
        tree = capture_tree(store, interpreter, execution.check_cancelled, wanted.place)
        if wanted.pinned is not None and tree.root != wanted.pinned:
            raise _another(wanted, f"the CPython {interpreter.version} here gives {tree.root}")
        prove(execution, tree, _original(interpreter), wanted.place)
    facts = facts_of(store, tree, implementation="cpython", version=wanted.version, platform=wanted.platform)
    return assemble(store, {"tree": tree, "facts.json": File(store.put(facts))})


def _stored(store: Store, pinned: Digest | None) -> Tree | None:
    """Take the pinned tree from the store where it is complete there, reading it to its last byte."""
    if pinned is None:
        return None
    tree = Tree(pinned)
    try:
        for digest in blobs(store, tree):
            store.open(digest).close()
    except (BlobLost, ValueError):
        return None
    return tree


def _interpreter(wanted: Capturing) -> Interpreter:
    """Find the interpreter that has the wanted identity; for a pinned tree its version is enough to try."""
    found = wanted.find()
    same = [candidate for candidate in found.interpreters if candidate.version == wanted.version]
    for candidate in same:
        if identity(candidate) == wanted.identity:
            return candidate
    if same and wanted.pinned is not None:
        return same[0]
    versions = ", ".join(dict.fromkeys(f"`{i.version}`" for i in found.interpreters)) or "none that fits"
    raise _another(wanted, f"this machine has {versions}")


def _another(wanted: Capturing, here: str) -> HostError:
    tree = f" with tree {wanted.pinned}" if wanted.pinned is not None else ""
    message = f"`{wanted.layer}` is pinned to the local CPython {wanted.version}{tree}, but {here}"
    hint = "share a store that has this tree, install the same Python, or pin anew with `strata lock --upgrade`"
    return HostError(Diagnostic("other-runtime", message, wanted.place, hint=hint))


def _original(interpreter: Interpreter) -> Original:
    own = interpreter.prefix not in SYSTEM_PREFIXES
    places = {interpreter.executable, os.path.realpath(interpreter.executable), interpreter.stdlib, interpreter.dynload}
    places |= {str(piece.source) for piece in pieces(interpreter) if piece.path.startswith("lib/libpython")}
    if own:
        places |= {interpreter.prefix, os.path.realpath(interpreter.prefix)}
    extensions = [
        piece.path.rpartition("/")[2].partition(".")[0]
        for piece in pieces(interpreter)
        if "/lib-dynload/" in piece.path
    ]
    return Original(interpreter.executable, interpreter.version, tuple(sorted(places)), tuple(sorted(extensions)))
