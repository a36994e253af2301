"""What an archive holds, in order, and where its stream is cut into chunks.

It knows trees and nothing of formats, compression or layers. The hard part is that a change must stay where it is: a
member is described by itself alone (design §4), and a chunk ends where its own last members say so, so that an edit in
one file leaves all but its own chunk as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from strata_engine.digest import EMPTY, Digest, content_mtime
from strata_engine.errors import ActionError
from strata_engine.tree import Entry, File, Node, Store, Symlink, Tree, entries, lookup

FOLDER_TIME = content_mtime(EMPTY)
"""Folders have no content of their own, and one time for all."""

LINKS_FOLLOWED = 40
"""As many as Linux follows before it says ELOOP."""


class Member(NamedTuple):
    """One entry of an archive."""

    path: str
    node: Node
    mode: int
    """Permission bits."""
    mtime: int

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self.node.digest.size if isinstance(self.node, File) else 0


class Piece(NamedTuple):
    """A run of an archive's stream: bytes known already, then a part of a blob, then zeros."""

    head: bytes
    blob: Digest | None = None
    start: int = 0
    length: int = 0
    zeros: int = 0

    @property
    def size(self) -> int:
        """Bytes of the run."""
        return len(self.head) + self.length + self.zeros


def member(path: str, node: Node) -> Member:
    """Describe one entry, by itself alone."""
    match node:
        case File(digest, executable):
            return Member(path, node, 0o755 if executable else 0o644, content_mtime(digest))
        case Symlink(target):
            return Member(path, node, 0o777, content_mtime(Digest.of(target.encode("utf-8", "surrogateescape"))))
        case Tree():
            return Member(path, node, 0o755, FOLDER_TIME)


def members(store: Store, tree: Tree, prefix: str, *, follow: bool = False) -> Iterator[Member]:
    """List a tree under one top folder, parents first, names in byte order.

    With `follow` a symlink is replaced by what it leads to: Windows unpacks no symlinks without privileges.
    Raises ActionError for a symlink that leads nowhere in the tree.
    """
    yield member(prefix, tree)
    for path, node in entries(store, tree):
        if follow and isinstance(node, Symlink):
            for below, found in _followed(store, tree, path):
                yield member(f"{prefix}/{below}", found)
        else:
            yield member(f"{prefix}/{path}", node)


def _followed(store: Store, tree: Tree, path: str) -> Iterator[Entry]:
    seen: set[str] = set()

    def expand(place: str, link: str) -> Iterator[Entry]:
        real, node = _resolve(store, tree, link)
        yield Entry(place, node)
        if not isinstance(node, Tree):
            return
        if real in seen:
            raise _broken(path, "leads to a folder that holds it")
        seen.add(real)
        for below, found in entries(store, node):
            if isinstance(found, Symlink):
                yield from expand(f"{place}/{below}", f"{real}/{below}")
            else:
                yield Entry(f"{place}/{below}", found)
        seen.discard(real)

    return expand(path, path)


def _resolve(store: Store, tree: Tree, path: str) -> tuple[str, File | Tree]:
    """Find the real path and the node that `path` leads to, following symlinks in every part of it."""
    pending = path.split("/")[::-1]
    place: list[str] = []
    budget = LINKS_FOLLOWED
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not place:
                raise _broken(path, "leads out of the layer")
            place.pop()
            continue
        found = lookup(store, tree, "/".join([*place, part]))
        if found is None:
            raise _broken(path, "leads nowhere")
        if not isinstance(found, Symlink):
            place.append(part)
            continue
        budget -= 1
        if found.target.startswith("/") or budget < 0:
            raise _broken(path, "leads in a circle" if budget < 0 else "leads out of the layer")
        pending.extend(found.target.split("/")[::-1])
    leads_to = lookup(store, tree, "/".join(place))
    assert isinstance(leads_to, File | Tree), "every part was looked up"
    return "/".join(place), leads_to


def _broken(path: str, what: str) -> ActionError:
    return ActionError.of(
        "broken-symlink",
        f"the symlink `{path}` {what}",
        notes=["archives for Windows hold copies in place of symlinks"],
    )


def chunks(runs: Iterable[tuple[str, list[Piece]]], target: int) -> Iterator[list[Piece]]:
    """Cut a stream, given as named members' pieces, into chunks of about `target` bytes.

    A member longer than `target` stands alone, in chunks of `target`. Among others a chunk ends, once it has half of
    that, after a member whose name says so; longer members are likelier to. It never depends on what comes later.
    """
    half = target // 2
    chunk: list[Piece] = []
    size = 0
    for name, pieces in runs:
        length = sum(piece.size for piece in pieces)
        if length > target:
            if chunk:
                yield chunk
            yield from _slices(pieces, target)
            chunk, size = [], 0
            continue
        chunk += pieces
        size += length
        dice = int(Digest.of(name.encode("utf-8", "surrogateescape")).hash[:8], 16)
        if size >= half and (dice * half < length << 32 or size >= 2 * target):
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _slices(pieces: Iterable[Piece], target: int) -> Iterator[list[Piece]]:
    for piece in pieces:
        rest = piece
        while rest.length > target:
            yield [rest._replace(length=target, zeros=0)]
            rest = Piece(b"", rest.blob, rest.start + target, rest.length - target, rest.zeros)
        yield [rest]


def read(store: Store, chunk: Iterable[Piece], check: Callable[[], None], step: int = 1 << 20) -> Iterator[bytes]:
    """Read a chunk's bytes, in pieces of at most `step`; `check` is called between them and may raise."""
    for piece in chunk:
        if piece.head:
            yield piece.head
        if piece.blob is not None and piece.length:
            with store.open(piece.blob) as stream:
                stream.seek(piece.start)
                left = piece.length
                while left:
                    check()
                    data = stream.read(min(left, step))
                    if not data:
                        raise EOFError(f"blob {piece.blob} is shorter than its digest says")
                    left -= len(data)
                    yield data
        if piece.zeros:
            yield bytes(piece.zeros)
