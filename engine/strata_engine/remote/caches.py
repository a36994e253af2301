"""The remote caches of one build: what it reads from them and what it sends to them, as one.

It is made of settings and an opened store, and asks nothing by itself but that what earlier builds have left is sent.
Whatever remotes do, or do not do, a build goes on without them; unless they are `required`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from strata_engine.action_cache import ActionCache
from strata_engine.cas import Cas
from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic, StrataError
from strata_engine.remote.backend import Check
from strata_engine.remote.endpoint import Endpoint
from strata_engine.remote.found import Answer
from strata_engine.remote.reads import Reads
from strata_engine.remote.settings import RemoteSettings, Upload
from strata_engine.remote.signing import KEY_VARIABLE, public_key, signing_key
from strata_engine.remote.spool import About, Spool
from strata_engine.remote.tally import Tally, Told
from strata_engine.remote.uploads import Uploads
from strata_engine.tree import Artifact

SHORTEST_SECRET = 8
"""Bytes below which a text is no sign of anything: it is found in any file."""


class RemoteCaches:
    """Made for one build, and closed at its end; for any thread."""

    def __init__(
        self,
        settings: RemoteSettings,
        store: Path,
        cas: Cas,
        cache: ActionCache,
        warn: Callable[[Diagnostic], None],
        private: Sequence[bytes] = (),
        revision: str = "",
    ) -> None:
        """Open them; `private` are paths of this machine, which nothing that is sent may name.

        `revision` is the commit that results are made of, where that is known.
        """
        self.settings = settings
        self.revision = revision
        self._tally = Tally()
        self._endpoints = [
            Endpoint(access, store, self._tally, warn, required=settings.required, timeout=settings.timeout)
            for access in settings.caches
        ]
        accepted = [public_key(text) for text in settings.public_keys]
        self._reads = Reads(self._endpoints, settings.zones, cas, self._tally, accepted)
        key = signing_key({KEY_VARIABLE: settings.signing_key}) if settings.signing_key else None
        secrets = [path for path in private if len(path) >= SHORTEST_SECRET]
        sending = self._endpoints if settings.upload is not Upload.OFF else []
        self._uploads = [
            Uploads(
                endpoint,
                Spool(store, endpoint.shown),
                cas,
                cache,
                settings.zone,
                self._tally,
                warn,
                secrets,
                key,
            )
            for endpoint in sending
        ]
        for uploads in self._uploads:
            uploads.resume()

    @property
    def latency(self) -> float:
        """Seconds that a remote's answer takes, as far as is known."""
        return self._reads.latency

    @property
    def sends(self) -> bool:
        """Tell whether results are sent."""
        return bool(self._uploads)

    def find(
        self, key: Digest, action: bytes, fixed: str | None, accept: Callable[[Artifact], bool], check: Check
    ) -> Answer:
        """Look for the result of an encoded Action; see `Reads.find`. Raises HostError."""
        return self._reads.find(key, action, fixed, accept, check)

    def took(self, key: Digest, seconds: float) -> None:
        """Note that the result that was found for an action was taken, and how many seconds that has saved."""
        self._tally.saved(key, seconds)

    def fetch(
        self, digests: Sequence[Digest], output: Artifact, check: Check, progress: Callable[[int], None]
    ) -> set[Digest]:
        """Bring blobs of an output into the store; give those that no remote has: see `Reads.fetch`."""
        begun = time.monotonic()
        try:
            return self._reads.fetch(digests, check, progress, output=output)
        finally:
            self._tally.waited(time.monotonic() - begun)

    def disbelieve(self, key: Digest) -> None:
        """Take no more results of an action in this build: what one named is gone."""
        self._reads.disbelieve(key)
        self._tally.saved(key, 0.0)

    def offer(self, key: Digest, size: int, *, made: bool, about: About | None = None) -> None:
        """Have a result of this machine sent: where it was not `made` just now, only if it is not there."""
        if about is not None and self.revision:
            about = msgspec.structs.replace(about, revision=self.revision)
        for uploads in self._uploads:
            uploads.offer(key, size, made=made, about=about)

    @property
    def left(self) -> int:
        """How many results are still to be sent."""
        return sum(uploads.left for uploads in self._uploads)

    def wait(self, seconds: float) -> bool:
        """Wait for what is to be sent; tell whether all of it is."""
        end = time.monotonic() + seconds
        return all(uploads.wait(max(0.0, end - time.monotonic())) for uploads in self._uploads)

    def error(self) -> StrataError | None:
        """Give what a remote that must take results has said instead."""
        return next((uploads.error for uploads in self._uploads if uploads.error is not None), None)

    def told(self, hits: int) -> Told:
        """Give what there is to tell by now of a build in which `hits` actions have their results from remotes."""
        return self._tally.told(hits, sum(uploads.unsent for uploads in self._uploads))

    def close(self) -> None:
        """Stop sending and close connections; what has not gone is in the spool."""
        for uploads in self._uploads:
            uploads.close()
        for endpoint in self._endpoints:
            endpoint.close()
