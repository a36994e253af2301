"""Blobs in pieces, over gRPC's ByteStream: read from where a cut one stopped, written on from what has arrived.

It makes one attempt at a time and tells how far it came; how often, and who is let in, is its caller's business.

A compressed upload has offsets of its own, in compressed bytes, which another run of the compressor need not come to
again: such a one is begun anew.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import BinaryIO

from strata_engine.digest import Digest
from strata_engine.remote import messages, zstd
from strata_engine.remote.arrival import Arrival
from strata_engine.remote.backend import Check, Fault, Source, Trouble
from strata_engine.remote.channel import NOT_FOUND, OUT_OF_RANGE, Channel, Status

PIECE = 256 << 10
"""Bytes of a message: so few that one of them is a trickle."""


def fill(channel: Channel, instance: str, arrival: Arrival, check: Check, *, packed: bool) -> bool:
    """Read what is still to come of a blob; False where it is not there. Raises Fault."""
    digest = arrival.digest
    request = messages.new("ReadRequest", resource_name=_read_name(instance, digest, packed=packed))
    request.read_offset = arrival.received
    try:
        with channel.stream(messages.path("ByteStream.Read"), messages.encoded(request), check) as answers:
            pieces = (_data(channel.shown, answer) for answer in answers)
            for chunk in zstd.decompressed(pieces) if packed else pieces:
                if not arrival.take(chunk):
                    raise Fault(Trouble.BROKEN, channel.shown, f"more bytes than `{digest}` has")
    except Status as status:
        if status.code == NOT_FOUND:
            return False
        if status.code == OUT_OF_RANGE and arrival.received:
            arrival.restart()
            text = f"less of `{digest}` than before"
            raise Fault(Trouble.BROKEN, channel.shown, text, again=True) from None
        raise
    except ValueError:
        arrival.restart()
        text = f"`{digest}` compressed in a way that makes no sense"
        raise Fault(Trouble.BROKEN, channel.shown, text) from None
    if arrival.received < digest.size:
        # The server says that this is all.
        raise Fault(Trouble.BROKEN, channel.shown, f"{arrival.received} bytes of `{digest}`")
    return True


class Departure:
    """A blob on its way to a server, under a name of its own that what has arrived is kept by."""

    def __init__(self, channel: Channel, instance: str, digest: Digest, source: Source, *, packed: bool) -> None:
        self.arrived = 0
        """Bytes that the server is known to have."""
        self._tried = False
        self._packed_size = -1
        self._channel = channel
        self._instance = instance
        self._digest = digest
        self._source = source
        self._packed = packed
        self._name = self._new_name()

    def send(self, check: Check) -> None:
        """Send what has not arrived. Raises Fault, ValueError where the source is shorter than its digest says."""
        self._tried = True
        pieces = self._packed_pieces() if self._packed else self._pieces(self.arrived)
        answer = self._channel.send(messages.path("ByteStream.Write"), pieces, check)
        committed = _parsed(self._channel.shown, "WriteResponse", answer).committed_size
        # A compressed upload that was not needed is answered with -1, a needed one with the size of what was sent; some
        # servers say the blob's own.
        if committed != self._digest.size and not (self._packed and committed in {-1, self._packed_size}):
            text = f"it took {committed} bytes of `{self._digest}`"
            raise Fault(Trouble.BROKEN, self._channel.shown, text, again=0 <= committed < self._digest.size)

    def is_there(self, check: Check) -> bool:
        """Ask how much has arrived, where it was sent before, so that `send` goes on there; True where it is all."""
        if not self._tried:
            return False
        if not self._packed:
            request = messages.encoded(messages.new("QueryWriteStatusRequest", resource_name=self._name))
            try:
                answer = self._channel.ask(messages.path("ByteStream.QueryWriteStatus"), request, check)
                status = _parsed(self._channel.shown, "QueryWriteStatusResponse", answer)
            except Fault:
                # It knows nothing of it, or cannot say: from the beginning, as if it were another blob.
                pass
            else:
                if status.complete and status.committed_size == self._digest.size:
                    return True
                if not status.complete and 0 < status.committed_size <= self._digest.size:
                    self.arrived = status.committed_size
                    return False
        self.arrived, self._name = 0, self._new_name()
        return False

    def _new_name(self) -> str:
        kind = "compressed-blobs/zstd" if self._packed else "blobs"
        return _below(self._instance, f"uploads/{uuid.uuid4()}/{kind}/{self._digest.hash}/{self._digest.size}")

    def _pieces(self, start: int) -> Iterator[bytes]:
        with self._source() as stream:
            _skip(stream, start)
            at = start
            while True:
                chunk = stream.read(min(PIECE, self._digest.size - at))
                if not chunk and at < self._digest.size:
                    raise ValueError(f"a source that is shorter than {self._digest}")
                yield self._write(at, chunk, last=at + len(chunk) == self._digest.size)
                at += len(chunk)
                if at == self._digest.size:
                    return

    def _packed_pieces(self) -> Iterator[bytes]:
        at = 0
        with self._source() as stream:
            for some in zstd.compressed(stream, self._digest.size):
                for start in range(0, len(some), PIECE):
                    chunk = some[start : start + PIECE]
                    yield self._write(at, chunk)
                    at += len(chunk)
        self._packed_size = at
        yield self._write(at, b"", last=True)

    def _write(self, at: int, data: bytes, *, last: bool = False) -> bytes:
        return messages.encoded(
            messages.new("WriteRequest", resource_name=self._name, write_offset=at, finish_write=last, data=data)
        )


def _skip(stream: BinaryIO, count: int) -> None:
    if count and stream.seekable():
        stream.seek(count)
        return
    while count and (chunk := stream.read(min(PIECE, count))):
        count -= len(chunk)


def _read_name(instance: str, digest: Digest, *, packed: bool) -> str:
    return _below(instance, f"{'compressed-blobs/zstd' if packed else 'blobs'}/{digest.hash}/{digest.size}")


def _below(instance: str, name: str) -> str:
    return f"{instance}/{name}" if instance else name


def _data(shown: str, answer: bytes) -> bytes:
    return bytes(_parsed(shown, "ReadResponse", answer).data)


def _parsed(shown: str, kind: str, answer: bytes) -> messages.Message:
    try:
        return messages.parsed(kind, answer)
    except ValueError:
        raise Fault(Trouble.BROKEN, shown, "an answer that makes no sense") from None
