"""What a gRPC server says that it offers, and what of it we use."""

from __future__ import annotations

from typing import NamedTuple

from strata_engine.remote.backend import Fault, Trouble
from strata_engine.remote.messages import SHA256, ZSTD, Message

OLDEST = (2, 1)
"""The version of the API that we need: results name their outputs by path alone."""
NEXT = (3, 0)
"""The version that we know nothing of."""
MESSAGE = 4 << 20
"""Bytes of a message that a server takes which says nothing: gRPC's own limit."""
FRAMING = 64 << 10
"""Bytes of a message that are left for what surrounds the blobs in it."""
PREFERRED = 1 << 20
"""Bytes of a batch, where a server takes more: whether a message moves nobody sees, so none is large."""


class Offer(NamedTuple):
    """What a server offers."""

    batch: int
    """Bytes that the blobs of one message may have."""
    largest: int | None
    """Bytes of the largest blob that it takes, where it says so."""
    writable: bool
    zstd_streams: bool
    zstd_batches: bool
    api: str = ""
    """The versions of the API that it speaks, in words."""

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Give what a person may want to know (`Capabilities.facts`)."""
        packed = "zstd" if self.zstd_streams or self.zstd_batches else "none"
        return (("API", self.api), ("digests", "SHA-256"), ("compression", packed))


def read_offer(message: Message, shown: str) -> Offer:
    """Read a `ServerCapabilities`. Raises Fault where it is no cache for us."""
    low, high = (_version(version) for version in (message.low_api_version, message.high_api_version))
    if message.HasField("deprecated_api_version"):
        low = min(low, _version(message.deprecated_api_version))
    if high < OLDEST or low >= NEXT:
        text = f"it speaks version {_spelt(low)} to {_spelt(high)} of the API, and {_spelt(OLDEST)} is needed"
        raise Fault(Trouble.UNSUPPORTED, shown, text)
    cache = message.cache_capabilities
    if SHA256 not in cache.digest_functions:
        raise Fault(Trouble.UNSUPPORTED, shown, "it does not know blobs by their SHA-256")
    said = cache.max_batch_total_size_bytes
    most = MESSAGE if said <= 0 else min(said, MESSAGE)
    return Offer(
        batch=max(0, min(most - FRAMING, PREFERRED)),
        largest=cache.max_cas_blob_size_bytes if cache.max_cas_blob_size_bytes > 0 else None,
        writable=cache.action_cache_update_capabilities.update_enabled,
        zstd_streams=ZSTD in cache.supported_compressors,
        zstd_batches=ZSTD in cache.supported_batch_update_compressors,
        api=f"{_spelt(low)} to {_spelt(high)}",
    )


def _version(version: Message) -> tuple[int, int]:
    return version.major, version.minor


def _spelt(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
