"""A remote cache over gRPC: version 2 of the Remote Execution API, which is Bazel's and BuildStream's.

BuildGrid, buildbox-casd, bazel-remote, Buildbarn, BuildBuddy and NativeLink speak it. It knows messages and what they
mean for a cache; calls are `calls`', blobs in pieces `bytestream`'s.

What the server offers is asked once, before anything else. Small blobs travel in messages that it takes, with a status
for each blob: one that failed is asked for again, not its message. Nothing that comes is given on but by its digest.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from strata_engine.digest import EMPTY, Digest
from strata_engine.remote import messages, zstd
from strata_engine.remote.arrival import Arrival, arrive
from strata_engine.remote.backend import (
    LARGEST_RESULT,
    Brought,
    Capabilities,
    Check,
    Fault,
    Sink,
    Source,
    Trouble,
    within_batch,
)
from strata_engine.remote.bytestream import Departure, fill
from strata_engine.remote.calls import Calls, Failed, Group, Server
from strata_engine.remote.channel import NOT_FOUND, Status
from strata_engine.remote.messages import Message
from strata_engine.remote.offer import Offer
from strata_engine.remote.results import LARGEST_TREE

_DIGESTS = 5000
"""Digests of one message: a few hundred KB."""
_AROUND = 160
"""Bytes that a blob in a message has around it."""
_PAGES = 1000
_UPDATE = "ContentAddressableStorage.BatchUpdateBlobs"


class ReapiCache:
    """One cache (`backend.Backend`). Methods may be called from any thread; `options` are those of `Calls`."""

    def __init__(self, server: Server, **options: Any) -> None:
        self._calls = Calls(server, **options)

    @property
    def shown(self) -> str:
        """Where it is, as a person may see it."""
        return self._calls.channel.shown

    @property
    def has_batches(self) -> bool:
        """Many blobs go in one call."""
        return True

    @property
    def wants_directories(self) -> bool:
        """casd otherwise says that it has no such result."""
        return True

    def close(self) -> None:
        """Close the connection."""
        self._calls.channel.close()

    def capabilities(self, check: Check) -> Capabilities:
        """Ask what it offers."""
        offer = self._calls.offer(check, anew=True)
        return Capabilities(offer.batch, offer.largest, offer.writable, facts=offer.facts)

    def get_result(self, address: Digest, check: Check) -> bytes | None:
        """Ask for a result: the bytes of the message, whatever they are."""
        self._calls.offer(check)
        request = self._calls.new("GetActionResultRequest", action_digest=messages.of_digest(address))
        try:
            answer = self._calls.ask("ActionCache.GetActionResult", request, check)
        except Status as status:
            if status.code == NOT_FOUND:
                return None
            raise
        if len(answer) > LARGEST_RESULT:
            raise self._calls.fault(Trouble.BROKEN, f"an answer of more than {LARGEST_RESULT} bytes")
        return answer

    def put_result(self, address: Digest, data: bytes, check: Check) -> None:
        """Have a result kept. Raises ValueError where it is none."""
        result, digest = messages.parsed("ActionResult", data), messages.of_digest(address)
        if not self._calls.offer(check).writable:
            raise self._calls.fault(Trouble.REFUSED, "it takes no results")
        request = self._calls.new("UpdateActionResultRequest", action_digest=digest, action_result=result)
        self._calls.ask("ActionCache.UpdateActionResult", request, check)

    def missing(self, digests: Iterable[Digest], check: Check) -> set[Digest]:
        """Ask for many at once."""
        wanted = list(dict.fromkeys(digest for digest in digests if digest != EMPTY))
        self._calls.offer(check)
        found: set[Digest] = set()

        def asked(group: Group) -> Message:
            return self._calls.new("FindMissingBlobsRequest", blob_digests=map(messages.of_digest, group))

        def taken(_: Group, answer: bytes) -> Failed:
            listed = self._calls.parsed("FindMissingBlobsResponse", answer).missing_blob_digests
            found.update(digest for digest in map(messages.to_digest, listed) if digest is not None)
            return []

        groups = [[EMPTY, *wanted[at : at + _DIGESTS]] for at in range(0, len(wanted), _DIGESTS)]
        self._calls.ask_groups("ContentAddressableStorage.FindMissingBlobs", groups, asked, taken, check)
        if EMPTY in found:
            self._restore_empty(check)
        return found.intersection(wanted)

    def read(self, digest: Digest, sink: Sink, check: Check) -> bool:
        """Commit a blob to `sink`, going on where a cut stream stopped; False where it is not there."""

        def attempt(arrival: Arrival) -> bool:
            packed = self._calls.offer(check).zstd_streams
            return fill(self._calls.channel, self._calls.instance, arrival, check, packed=packed)

        return arrive(digest, sink, attempt, self._calls.persist, self.shown, check)

    def write(self, digest: Digest, source: Source, check: Check) -> None:
        """Send a blob, going on with what the server has of it."""
        if digest == EMPTY:
            return
        offer = self._calls.offer(check)
        self._refuse_large(digest, offer)
        departure = Departure(self._calls.channel, self._calls.instance, digest, source, packed=offer.zstd_streams)

        def attempt() -> None:
            if not departure.is_there(check):
                departure.send(check)

        self._calls.persist(attempt, check, lambda: departure.arrived)

    def read_many(self, digests: Iterable[Digest], check: Check) -> Brought:
        """Ask for small blobs in batches."""
        wanted = within_batch(digests)
        offer = self._calls.offer(check)
        found, wrong = {digest: b"" for digest in wanted if digest == EMPTY}, set[Digest]()
        small, large = _sorted(wanted, offer.batch)

        def asked(group: Group) -> Message:
            named, compressors = map(messages.of_digest, group), [messages.ZSTD] if offer.zstd_batches else []
            return self._calls.new("BatchReadBlobsRequest", digests=named, acceptable_compressors=compressors)

        def taken(group: Group, answer: bytes) -> Failed:
            failed: Failed = []
            for digest, response in self._answered("BatchReadBlobsResponse", group, answer):
                if response.status.code not in {0, NOT_FOUND}:
                    failed.append((digest, self._calls.status(response.status)))
                elif response.status.code == 0:
                    data = _plain(response)
                    if data is None or Digest.of(data) != digest:
                        wrong.add(digest)
                    else:
                        found[digest] = data
            return failed

        method = "ContentAddressableStorage.BatchReadBlobs"
        self._calls.ask_groups(method, small, asked, taken, check, brings=True)
        for digest in large:
            self._read_large(digest, found, wrong, check)
        return Brought(found, frozenset(wrong))

    def write_many(self, blobs: Mapping[Digest, bytes], check: Check) -> None:
        """Send small blobs in batches."""
        wanted = within_batch(blobs)
        offer = self._calls.offer(check)
        small, large = _sorted(wanted, offer.batch)
        for digest in wanted:
            self._refuse_large(digest, offer)

        def asked(group: Group) -> Message:
            requests = [_request(digest, blobs[digest], packed=offer.zstd_batches) for digest in group]
            return self._calls.new("BatchUpdateBlobsRequest", requests=requests)

        def taken(group: Group, answer: bytes) -> Failed:
            answered = dict(self._answered("BatchUpdateBlobsResponse", group, answer))
            if len(answered) < len(group):
                raise self._calls.fault(Trouble.BROKEN, "no word of some of the blobs that were sent")
            statuses = ((digest, response.status) for digest, response in answered.items())
            return [(digest, self._calls.status(status)) for digest, status in statuses if status.code]

        self._calls.ask_groups(_UPDATE, small, asked, taken, check)
        for digest in large:
            self.write(digest, lambda digest=digest: io.BytesIO(blobs[digest]), check)  # type: ignore[misc]

    def tree(self, root: Digest, check: Check) -> Mapping[Digest, bytes]:
        """Give the encoded Directories of a tree, the root's too, as far as the server has them and tells of them."""
        self._calls.offer(check)
        found: dict[Digest, bytes] = {}

        def attempt() -> None:
            token, seen, room = "", set[str](), LARGEST_TREE
            while len(seen) < _PAGES and token not in seen:
                seen.add(token)
                request = self._calls.new("GetTreeRequest", root_digest=messages.of_digest(root), page_token=token)
                for answer in self._streamed("ContentAddressableStorage.GetTree", request, check):
                    room -= len(answer)
                    if room < 0:
                        raise self._calls.fault(Trouble.BROKEN, "Directories that are too large")
                    page = self._calls.parsed("GetTreeResponse", answer)
                    token = page.next_page_token
                    found.update((Digest.of(data), data) for data in map(messages.encoded, page.directories))
                if not token:
                    return

        # Some servers cannot do this; what they do not tell of can still be asked for by its digest.
        with contextlib.suppress(Status):
            self._calls.persist(attempt, check)
        return found

    def _restore_empty(self, check: Check) -> None:
        """Send the empty blob: casd can lose it as any other, and then denies all results with an empty file."""

        def asked(group: Group) -> Message:
            requests = [_request(digest, b"", packed=False) for digest in group]
            return self._calls.new("BatchUpdateBlobsRequest", requests=requests)

        self._calls.ask_groups(_UPDATE, [[EMPTY]], asked, lambda _, __: [], check)

    def _streamed(self, method: str, request: Message, check: Check) -> Iterator[bytes]:
        with self._calls.channel.stream(messages.path(method), messages.encoded(request), check) as answers:
            yield from answers

    def _answered(self, kind: str, group: Group, answer: bytes) -> Iterator[tuple[Digest, Message]]:
        """Give what is said of each digest, once, of those that were asked for."""
        asked = {digest.hash: digest for digest in group}
        for response in self._calls.parsed(kind, answer).responses:
            digest = asked.pop(response.digest.hash, None)
            if digest is not None:
                yield digest, response

    def _read_large(self, digest: Digest, found: dict[Digest, bytes], wrong: set[Digest], check: Check) -> None:
        kept = _Kept()
        try:
            if self.read(digest, kept.begun, check):
                found[digest] = bytes(kept.data)
        except Fault as fault:
            if fault.trouble is not Trouble.BROKEN or fault.again:
                raise
            wrong.add(digest)

    def _refuse_large(self, digest: Digest, offer: Offer) -> None:
        if offer.largest is not None and digest.size > offer.largest:
            text = f"{digest.size} bytes, and it takes blobs of at most {offer.largest}"
            raise self._calls.fault(Trouble.FULL, text)


class _Kept:
    """A sink in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    @contextlib.contextmanager
    def begun(self) -> Iterator[_Kept]:
        """Begin anew."""
        self.data.clear()
        yield self

    def write(self, data: bytes | memoryview) -> int:
        """Take bytes."""
        self.data += data
        return len(data)

    def commit(self, expected_sha256: str | None = None) -> Digest:
        """Tell what has come. Raises ValueError where it is another blob."""
        digest = Digest.of(bytes(self.data))
        if expected_sha256 not in {None, digest.hash}:
            raise ValueError("other bytes")
        return digest


def _sorted(digests: Iterable[Digest], most: int) -> tuple[list[list[Digest]], list[Digest]]:
    """Make groups that fit into messages, and list what fits into none."""
    groups: list[list[Digest]] = [[]]
    large, room = [], most
    for digest in digests:
        size = digest.size + _AROUND
        if digest == EMPTY:
            continue
        if size > most:
            large.append(digest)
            continue
        if size > room:
            groups.append([])
            room = most
        groups[-1].append(digest)
        room -= size
    return groups, large


def _request(digest: Digest, data: bytes, *, packed: bool) -> Message:
    small = zstd.packed(data) if packed else data
    if len(small) >= len(data):
        return messages.new("BatchUpdateBlobsRequest.Request", digest=messages.of_digest(digest), data=data)
    return messages.new(
        "BatchUpdateBlobsRequest.Request",
        digest=messages.of_digest(digest),
        data=small,
        compressor=messages.ZSTD,
    )


def _plain(response: Message) -> bytes | None:
    """Give the bytes of a blob that came in a batch; None where they cannot be had."""
    if response.compressor == messages.IDENTITY:
        return bytes(response.data)
    if response.compressor != messages.ZSTD:
        return None
    try:
        return zstd.unpacked(response.data, response.digest.size_bytes)
    except ValueError:
        return None
