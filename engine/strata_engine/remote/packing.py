"""The small files of a tree sent and fetched in packs: one call for each way.

It knows what a backend can do and nothing of how, and `packs` knows which files go together. Packs are an offer: a tree
without any is fetched blob by blob, and what a pack lacks is, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from strata_engine.digest import Digest
from strata_engine.remote.backend import BATCH, Backend, Check
from strata_engine.remote.packs import Pack, address_of, apart, decode_index, encode_index, joined, planned

Item = TypeVar("Item")


class SentPacks(NamedTuple):
    """What can be had from packs."""

    members: frozenset[Digest] = frozenset()
    blobs: int = 0
    """Packs that went."""
    size: int = 0
    """Their bytes."""


class Unpacked(NamedTuple):
    """What came in packs."""

    came: frozenset[Digest] = frozenset()
    """Files that were handed on."""
    wrong: frozenset[Digest] = frozenset()
    """Packs in whose place there are other bytes."""


def send_packed(
    remote: Backend,
    tree: Digest,
    files: Sequence[Digest],
    read: Callable[[Digest], bytes],
    check: Check,
    *,
    wrong: Collection[Digest] = (),
) -> SentPacks:
    """Send the small files of a `Tree` message in packs, and tell which can now be had from them.

    `files` are those of the tree in its order (`Outgoing.stored`), `read` gives a blob (`Store.get`) and may raise.
    Packs that were found `wrong` are written again, unasked. It belongs before the result. Raises Fault, ValueError.
    """
    plan = planned(files)
    members = frozenset(member for pack in plan for member in pack.members)
    if not plan:
        return SentPacks()
    before = _indexed(remote, tree, plan, check)
    if before and before.keys().isdisjoint(wrong) and not remote.missing(before, check):
        return SentPacks(members)
    named: list[Digest] = []
    went: list[Digest] = []
    for some in _in_batches([(pack, pack.size) for pack in plan]):
        blobs = {Digest.of(data): data for data in (joined(pack, read) for pack in some)}
        named += blobs
        missing = remote.missing(blobs.keys() - set(wrong), check) | (blobs.keys() & set(wrong))
        remote.write_many({digest: blobs[digest] for digest in missing}, check)
        went += missing
    if named != list(before):
        remote.put_result(address_of(tree), encode_index(named), check)
    return SentPacks(members, len(went), sum(digest.size for digest in went))


def fetch_packed(
    remote: Backend,
    tree: Digest,
    files: Sequence[Digest],
    wanted: Collection[Digest],
    keep: Callable[[Digest, bytes], object],
    check: Check,
) -> Unpacked:
    """Fetch what of `wanted` is in packs of a `Tree` message, hand it to `keep`, and tell what came.

    `files` are those of the tree in its order (`Whole.files`); `keep` (`Store.put_named`) is given right bytes alone.
    Whatever is wrong with index or packs is as if they were not there. Raises Fault.
    """
    lacking = set(wanted)
    plan = planned(files)
    if not any(not lacking.isdisjoint(pack.members) for pack in plan):
        return Unpacked()
    packs = _indexed(remote, tree, plan, check)
    useful = {digest: pack for digest, pack in packs.items() if not lacking.isdisjoint(pack.members)}
    came: set[Digest] = set()
    wrong: set[Digest] = set()
    for some in _in_batches([(digest, digest.size) for digest in useful]):
        brought = remote.read_many(some, check)
        wrong |= brought.wrong
        for digest, blob in brought.blobs.items():
            for member, content in apart(useful[digest], blob).items():
                if member in lacking:
                    keep(member, content)
                    came.add(member)
    return Unpacked(frozenset(came), frozenset(wrong))


def in_packs(remote: Backend, tree: Digest, files: Sequence[Digest], check: Check) -> frozenset[Digest]:
    """Tell which files of a `Tree` message can be had from packs that are there. Raises Fault."""
    plan = planned(files)
    packs = _indexed(remote, tree, plan, check) if plan else {}
    gone = remote.missing(packs, check) if packs else set()
    return frozenset(member for digest, pack in packs.items() if digest not in gone for member in pack.members)


def _indexed(remote: Backend, tree: Digest, plan: Sequence[Pack], check: Check) -> Mapping[Digest, Pack]:
    """Give the packs that a remote has an index of; none where it has another one."""
    data = remote.get_result(address_of(tree), check)
    if data is None:
        return {}
    try:
        return decode_index(data, plan)
    except ValueError:
        return {}


def _in_batches(sized: Iterable[tuple[Item, int]]) -> Iterator[list[Item]]:
    """Give a few at a time: no more than a backend takes at once."""
    some: list[Item] = []
    room = BATCH
    for item, size in sized:
        if size > room:
            yield some
            some, room = [], BATCH
        some.append(item)
        room -= size
    if some:
        yield some
