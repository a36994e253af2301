"""Small files of a tree as few blobs, for protocols without batches: which go together, and how they are told apart.

Pure: it is given digests and bytes, and asks no remote. A pack is the bytes of its members, one after another, and
nothing else. Which files are in which pack follows from the tree: whoever has its `Tree` message knows the members of
every pack, and lacks their digests alone. Those are in an index beside the results, at an address that follows from the
tree. An index has the form of an ActionResult whose outputs are the packs, so that a server that looks whether a
result's blobs are there looks after packs, too.

A pack ends where a member's own digest says so, as blocks of an archive do: a tree with a few other files shares all
other packs with the one before. Nothing is believed of a pack: each member is what its digest names, or is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from strata_engine.codec import ActionResult, OutputFile, decode_action_result, encode_action_result
from strata_engine.digest import EMPTY, Digest

LARGEST_MEMBER = 64 << 10
"""Bytes of a file that still goes into a pack."""
LARGEST_PACK = 4 << 20
"""Bytes of a pack, which is held in memory."""
SMALLEST_PACK = 256 << 10
"""Bytes before which no member ends a pack."""
FEWEST = 8
"""Files that are worth a pack."""
MOST_PACKS = 20_000
"""Packs of one tree: an index of them still is a result that backends read."""

_ENDS = 16
"""One member in so many ends its pack."""
_ADDRESS = b"strata packs 1\0"
"""A change of the numbers above needs another one here: an index would be taken for one of other packs."""


class Pack(NamedTuple):
    """Files that travel together."""

    members: tuple[Digest, ...]

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(member.size for member in self.members)


def planned(files: Iterable[Digest]) -> tuple[Pack, ...]:
    """Say which files of a tree, in its order, make packs; those in none are too large or too few.

    The same files in the same order make the same packs everywhere, for ever.
    """
    packs: list[Pack] = []
    members: list[Digest] = []
    size = 0

    def end() -> None:
        nonlocal members, size
        if len(members) >= FEWEST:
            packs.append(Pack(tuple(members)))
        members, size = [], 0

    for file in dict.fromkeys(files):
        if file.size > LARGEST_MEMBER or file == EMPTY:
            continue
        if size + file.size > LARGEST_PACK:
            end()
        members.append(file)
        size += file.size
        if size >= SMALLEST_PACK and int(file.hash[:8], 16) % _ENDS == 0:
            end()
    end()
    return tuple(packs[:MOST_PACKS])


def joined(pack: Pack, read: Callable[[Digest], bytes]) -> bytes:
    """Make the bytes of a pack. Raises ValueError where a member is not as long as its digest says."""
    parts = [read(member) for member in pack.members]
    if any(len(part) != member.size for part, member in zip(parts, pack.members, strict=True)):
        raise ValueError("a file that is not as long as its digest says")
    return b"".join(parts)


def apart(pack: Pack, data: bytes) -> dict[Digest, bytes]:
    """Give the members that have the bytes that their digests name."""
    found: dict[Digest, bytes] = {}
    start = 0
    for member in pack.members:
        part = data[start : start + member.size]
        start += member.size
        if Digest.of(part) == member:
            found[member] = part
    return found


def address_of(tree: Digest) -> Digest:
    """Say where, among results, the index of the packs of a `Tree` message lies."""
    return Digest.of(_ADDRESS + str(tree).encode())


def encode_index(packs: Sequence[Digest]) -> bytes:
    """Encode the digests of packs, in the order of their plan."""
    return encode_action_result(
        ActionResult(tuple(OutputFile(f"packs/{index:05}", pack) for index, pack in enumerate(packs)))
    )


def decode_index(data: bytes, plan: Sequence[Pack]) -> Mapping[Digest, Pack]:
    """Give the packs of a tree by digest. Raises ValueError where the index is not one of this plan."""
    files = decode_action_result(data).output_files
    if [file.path for file in files] != [f"packs/{index:05}" for index in range(len(plan))]:
        raise ValueError("an index of other packs")
    if any(file.digest.size != pack.size for file, pack in zip(files, plan, strict=True)):
        raise ValueError("an index of packs of other sizes")
    return {file.digest: pack for file, pack in zip(files, plan, strict=True)}
