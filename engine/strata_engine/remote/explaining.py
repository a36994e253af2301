"""What explains a key to whoever does not have what it was made of: its Action, its Command, and Directories.

A key is its own explanation where these are, so they are noted with what was sent (`recent`): no file, and no Directory
of what another action made, which counts by its digest. Where they come from others each proves itself by its digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from strata_engine.action import Action, SourceTree
from strata_engine.blobs import BlobLost
from strata_engine.cas import Cas
from strata_engine.codec import Directory, decode_action, decode_directory
from strata_engine.digest import EMPTY, Digest
from strata_engine.tree import Reader

MOST_BLOBS = 64
"""Blobs that explain one key."""
MOST_BYTES = 96 << 10
"""Bytes of them together."""
MOST_ENTRIES = 2_000_000
"""Entries of folders that are read to compare with one key."""
MOST_NAMED = 24
"""Folders of an input root that are named as worth looking into."""
LONGEST_NAMED = 1500
"""Bytes of their names together."""


def folders_of(action: Action) -> tuple[str, ...]:
    """Name the folders of an action's input root that explain it: those that hold inputs, and sources, with a `/`.

    What else is a folder there was made by another action, which has an explanation of its own.
    """
    found: dict[str, None] = {}
    for name, source in sorted(action.inputs.items()):
        parts = name.split("/")
        found |= dict.fromkeys("/".join(parts[:end]) for end in range(1, len(parts)))
        if isinstance(source, SourceTree):
            found[f"{name}/"] = None
    named = list(found)[:MOST_NAMED]
    return tuple(named) if sum(len(name.encode()) for name in named) <= LONGEST_NAMED else ()


def blobs_of(store: Cas, key: Digest, folders: Sequence[str], secrets: Sequence[bytes] = ()) -> dict[Digest, bytes]:
    """Give the blobs that explain a key; none where any is lost, or one of `secrets` is in any.

    `folders` are those of `folders_of`. What is too much is left out: what is nearest to the root goes first.
    """
    try:
        action = decode_action(store.get(key))
        found = {digest: store.get(digest) for digest in (key, action.command_digest)}
        level = [("", action.input_root_digest)]
        while level and len(found) < MOST_BLOBS:
            directories = [(path, store.load(digest)) for path, digest in level]
            found |= {digest: store.get(digest) for _, digest in level}
            level = [inner for path, directory in directories for inner in _below(path, directory, folders)]
    except (BlobLost, ValueError):
        # Collected meanwhile: the result is no worse for it.
        return {}
    found.pop(EMPTY, None)
    kept = _within(found)
    return {} if any(secret in data for data in kept.values() for secret in secrets) else kept


def _below(path: str, directory: Directory, folders: Sequence[str]) -> list[tuple[str, Digest]]:
    """List the folders in one that are looked into, each with its path, which ends with a `/`."""
    inside, whole = {name.rstrip("/") for name in folders}, tuple(name for name in folders if name.endswith("/"))
    return [
        (f"{path}{folder.name}/", folder.digest)
        for folder in directory.directories
        if f"{path}{folder.name}" in inside or (whole and path.startswith(whole))
    ]


def _within(blobs: Mapping[Digest, bytes]) -> dict[Digest, bytes]:
    kept: dict[Digest, bytes] = {}
    room = MOST_BYTES
    for digest, data in list(blobs.items())[:MOST_BLOBS]:
        room -= len(data)
        if room < 0:
            break
        kept[digest] = data
    return kept


class Explanations:
    """What has come of such blobs, beside what is here (`tree.Reader`)."""

    def __init__(self, here: Reader) -> None:
        self._here = here
        self._blobs: dict[Digest, bytes] = {}
        self._room = MOST_ENTRIES

    def keep(self, blobs: Iterable[bytes]) -> None:
        """Add blobs, each under the digest that it has, to be compared with something next."""
        self._blobs |= {Digest.of(data): data for data in blobs}
        self._room = MOST_ENTRIES

    def get(self, digest: Digest) -> bytes:
        """Read a blob. Raises `BlobLost`."""
        data = self._blobs.get(digest)
        return data if data is not None else self._here.get(digest)

    def load(self, digest: Digest) -> Directory:
        """Read one Directory. Raises `BlobLost`, also where too much was read: of few blobs are trees without end."""
        data = self._blobs.get(digest)
        if data is None:
            return self._here.load(digest)
        try:
            directory = decode_directory(data)
        except ValueError as error:
            raise BlobLost(digest) from error
        self._room -= 1 + sum(map(len, directory))
        if self._room < 0:
            raise BlobLost(digest)
        return directory
