"""What a build reads from remote caches: results of actions, and the blobs that they name, into the store.

A result brings its folders and the small files at its top; the blobs of all others come when something reads them. So
a layer that nobody opens costs few requests, whatever its size. What is found is provisional: whoever needs a blob that
no remote has any more makes it again.

Nothing is believed but what proves itself. A result cannot, so it is taken from the zones that are trusted alone; one
of a fixed-output action can, and is taken from anywhere. Results whose blobs turned out to be gone are not believed a
second time by the same build.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from typing import NamedTuple

from strata_engine.cas import BlobLost, Cas
from strata_engine.codec import ActionResult
from strata_engine.digest import Digest
from strata_engine.remote.abreast import abreast
from strata_engine.remote.backend import Backend, Check, Fault, Trouble, batches
from strata_engine.remote.directories import at_once, directories
from strata_engine.remote.endpoint import Endpoint
from strata_engine.remote.found import Answer, Found, NotTaken, Standing, There, Untrusted
from strata_engine.remote.packing import Unpacked, fetch_packed, in_packs
from strata_engine.remote.packs import FEWEST, LARGEST_MEMBER
from strata_engine.remote.results import Incoming, Packed, Whole, folder_of, gathered, incoming, unpacked
from strata_engine.remote.signing import PublicKey, Signed, Unsigned, Verdict, WrongSignature, verified
from strata_engine.remote.tally import Tally
from strata_engine.tree import Artifact, BlobWriter, File, Tree

ALONE = 1 << 20
"""Bytes from which on a blob comes by itself, straight into the store."""
ABREAST = 4
"""Large blobs that come at once."""
BATCHES = 3
"""Batches that come at once."""


class Wanted(NamedTuple):
    """The action whose result is wanted."""

    key: Digest
    action: bytes
    fixed: str | None


class Reads:
    """The remotes of one build as it reads them; for any thread."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        zones: tuple[str, ...],
        cas: Cas,
        tally: Tally,
        accepted: Sequence[PublicKey] = (),
    ) -> None:
        """Read `zones` in order; where keys are `accepted`, a result must be signed with one."""
        self._endpoints = endpoints
        self._zones = zones
        self._accepted = accepted
        self._cas = cas
        self._tally = tally
        self._lock = threading.Lock()
        self._disbelieved: set[Digest] = set()

    @property
    def latency(self) -> float:
        """Seconds that an answer takes, as far as is known."""
        return min((endpoint.latency for endpoint in self._endpoints), default=0.0)

    def disbelieve(self, key: Digest) -> None:
        """Take no more results of an action: what one named is gone."""
        with self._lock:
            self._disbelieved.add(key)

    def find(
        self, key: Digest, action: bytes, fixed: str | None, accept: Callable[[Artifact], bool], check: Check
    ) -> Answer:
        """Look for the result of an encoded Action whose key is `key`.

        `fixed` is the SHA-256 that its output must have, where that is known; `accept` judges what its output is.
        Raises HostError where a remote must answer and does not.
        """
        untrusted: Untrusted | None = None
        for endpoint in self._endpoints:
            for zone in self._zones_of(endpoint, fixed):
                if key in self._disbelieved:
                    return None
                answer = self._find_there(endpoint, zone, Wanted(key, action, fixed), check)
                if isinstance(answer, Found):
                    if accept(answer.artifact):
                        return answer
                    continue
                untrusted = untrusted or answer
        return untrusted

    def look(self, wanted: Wanted, check: Check, *, wholly: bool = False) -> Standing:
        """Tell whether a result is there, and whether a build would take it: the first that it would, else the first.

        Its blobs are asked for where that is to be known `wholly`. Raises HostError as `find` does.
        """
        first: Standing = None
        for endpoint in self._endpoints:
            for zone in self._zones_of(endpoint, wanted.fixed):
                standing = self._look_there(endpoint, zone, wanted, check, wholly=wholly)
                if isinstance(standing, There):
                    return standing
                first = first or standing
        return first

    def fetch(
        self,
        digests: Iterable[Digest],
        check: Check,
        progress: Callable[[int], None] = lambda _: None,
        *,
        output: Artifact | None = None,
    ) -> set[Digest]:
        """Bring blobs into the store; give those that no remote has. Raises HostError as `find` does.

        `progress` is told of bytes as they come, from whichever thread. `output` is what they are of: small files of a
        folder may be in packs.
        """
        wanted = set(digests)
        for endpoint in self._endpoints:
            for zone in endpoint.places(self._zones):
                if not wanted:
                    return wanted
                # Few are asked for by themselves first: a pack has many others, too.
                for packed in (False, True) if len(wanted) < FEWEST else (True, False):
                    fetch = partial(self._unpacked, output) if packed else self._fetch_there
                    wanted -= fetch(endpoint, zone, wanted, check, progress)
        return wanted

    # -- results -----------------------------------------------------------------------------------------------------

    def _zones_of(self, endpoint: Endpoint, fixed: str | None) -> tuple[str, ...]:
        if fixed is not None and not endpoint.address.has_zones:
            return ("",)
        return self._zones

    def _find_there(self, endpoint: Endpoint, zone: str, wanted: Wanted, check: Check) -> Answer:
        address = endpoint.address_of(wanted.action, zone)

        def asked(backend: Backend) -> Incoming | None:
            begun = time.monotonic()
            data = backend.get_result(address, check)
            endpoint.timed(time.monotonic() - begun)
            try:
                return None if data is None else _checked(incoming(data), wanted.fixed)
            except ValueError as error:
                raise Fault(Trouble.BROKEN, endpoint.shown, str(error)) from None

        came = endpoint.read(zone, asked, None)
        if came is None:
            return None
        try:
            why = _distrust(self._verdict(came.result, wanted, zone))
            if why:
                return Untrusted(endpoint.shown, why)
            artifact = self._taken(endpoint, zone, came, check)
        except ValueError as error:
            endpoint.broken(Fault(Trouble.BROKEN, endpoint.shown, str(error)))
            return None
        if artifact is None:
            return None
        seconds = max(0, came.result.completed_ns - came.result.started_ns) / 1e9
        return Found(artifact, came.result, endpoint.shown, seconds)

    def _look_there(self, endpoint: Endpoint, zone: str, wanted: Wanted, check: Check, *, wholly: bool) -> Standing:
        address = endpoint.address_of(wanted.action, zone)
        data = endpoint.read(zone, lambda backend: backend.get_result(address, check), None)
        if data is None:
            return None
        try:
            came = _checked(incoming(data), wanted.fixed)
            verdict = self._verdict(came.result, wanted, zone)
            why = _distrust(verdict)
            if why:
                return NotTaken(endpoint.shown, zone, why)
            lost = self._lost(endpoint, zone, came, check) if wholly else 0
        except ValueError as error:
            return NotTaken(endpoint.shown, zone, str(error))
        if lost:
            return NotTaken(endpoint.shown, zone, "blobs of it are gone", lost)
        by = verdict.by.text if isinstance(verdict, Signed) else ""
        return There(endpoint.shown, zone if wanted.fixed is None else "", by)

    def _lost(self, endpoint: Endpoint, zone: str, came: Incoming, check: Check) -> int:
        """Count the blobs of a result that are not there; a folder whose files cannot be known is one."""
        output = came.output
        whole = None if isinstance(output, File) else self._whole(endpoint, zone, output, check)
        if isinstance(output, File):
            files = {output.digest} - came.inlined.keys()
        elif whole is None:
            return 1
        else:
            files = set(whole.files)

        def asked(backend: Backend) -> set[Digest]:
            gone = backend.missing(sorted(files), check)
            if gone and whole is not None and isinstance(output, Packed) and not backend.has_batches:
                gone -= in_packs(backend, output.tree, whole.files, check)
            return gone

        none: set[Digest] = set()
        return len(endpoint.read(zone, asked, none))

    def _verdict(self, result: ActionResult, wanted: Wanted, zone: str) -> Verdict | None:
        """Tell who vouches for a result; None where nobody need, or it proves itself."""
        if not self._accepted or wanted.fixed is not None:
            return None
        return verified(result, wanted.key, (zone,), self._accepted)

    def _taken(self, endpoint: Endpoint, zone: str, came: Incoming, check: Check) -> Artifact | None:
        """Put into the store what is needed to know the whole output; None where that is not to be had."""
        for digest, data in came.inlined.items():
            self._cas.put_named(digest, data)
        if isinstance(came.output, File):
            return came.output
        whole = self._whole(endpoint, zone, came.output, check)
        if whole is None:
            return None
        for digest, data in whole.directories.items():
            self._cas.put_named(digest, data)
        return whole.tree if self._has_top(endpoint, zone, whole.tree, check) else None

    def _has_top(self, endpoint: Endpoint, zone: str, tree: Tree, check: Check) -> bool:
        """Bring the small files at the top of a folder, which tell of the rest of it and are what others read.

        Without them a machine that later has no remote would have to make all of it again to read a few bytes.
        """
        files = self._cas.load(tree.root).files
        lacking = self._cas.missing(file.digest for file in files if file.digest.size < ALONE)
        came = self._small(endpoint, zone, sorted(lacking), check) if lacking else {}
        for digest, data in came.items():
            self._cas.put_named(digest, data)
        return len(came) == len(lacking)

    def _whole(self, endpoint: Endpoint, zone: str, output: Packed | Tree, check: Check) -> Whole | None:
        if isinstance(output, Tree):
            told: Mapping[Digest, bytes] = endpoint.read(zone, lambda backend: at_once(backend, output.root, check), {})
            self._tally.count(read=sum(map(len, told.values())))
            return gathered(output, directories(told, lambda level: self._small(endpoint, zone, level, check)))
        message = self._message(endpoint, zone, output.tree, check)
        return unpacked(message, output) if message is not None else None

    def _message(self, endpoint: Endpoint, zone: str, tree: Digest, check: Check) -> bytes | None:
        if tree.size < ALONE:
            return self._small(endpoint, zone, [tree], check).get(tree)
        return self._cas.get(tree) if self._large(endpoint, zone, tree, check) else None

    # -- blobs -------------------------------------------------------------------------------------------------------

    def _unpacked(
        self,
        output: Artifact | None,
        endpoint: Endpoint,
        zone: str,
        wanted: Collection[Digest],
        check: Check,
        progress: Callable[[int], None],
    ) -> Set[Digest]:
        """Bring what one remote has in packs of an output; give what came."""

        def keep(digest: Digest, data: bytes) -> None:
            self._cas.put_named(digest, data)
            progress(digest.size)

        def asked(backend: Backend) -> Unpacked:
            small = any(digest.size <= LARGEST_MEMBER for digest in wanted)
            if backend.has_batches or not small or not isinstance(output, Tree):
                return Unpacked()
            try:
                folder = folder_of(output, self._cas)
            except (BlobLost, ValueError):
                return Unpacked()
            return fetch_packed(backend, folder.message, folder.files, wanted, keep, check)

        found = endpoint.read(zone, asked, Unpacked())
        endpoint.spoiled.update(found.wrong)
        self._tally.count(read=sum(digest.size for digest in found.came))
        return found.came

    def _fetch_there(
        self, endpoint: Endpoint, zone: str, wanted: Collection[Digest], check: Check, progress: Callable[[int], None]
    ) -> Set[Digest]:
        """Bring what one remote has, each blob by itself; give what came."""
        small = sorted(digest for digest in wanted if digest.size < ALONE)

        def some(batch: list[Digest], check: Check) -> set[Digest]:
            found = self._small(endpoint, zone, batch, check)
            for digest, data in found.items():
                self._cas.put_named(digest, data)
                progress(digest.size)
            return set(found)

        # Side by side, for making files takes as long as reading what belongs into them.
        came = set().union(*abreast(batches(small), some, check, width=BATCHES))

        def one(digest: Digest, check: Check) -> bool:
            return self._large(endpoint, zone, digest, check, progress)

        large = sorted(set(wanted) - set(small), reverse=True, key=lambda digest: digest.size)
        there = abreast(large, one, check, width=ABREAST)
        return came | {digest for digest, found in zip(large, there, strict=True) if found}

    def _small(self, endpoint: Endpoint, zone: str, digests: list[Digest], check: Check) -> dict[Digest, bytes]:
        came: dict[Digest, bytes] = {}

        def asked(backend: Backend) -> None:
            brought = backend.read_many(digests, check)
            came.update(brought.blobs)
            if brought.wrong:
                endpoint.spoiled.update(brought.wrong)
                text = f"other bytes than those of `{min(brought.wrong)}`"
                raise Fault(Trouble.BROKEN, endpoint.shown, text)

        endpoint.read(zone, asked, None)
        self._tally.count(read=sum(digest.size for digest in came))
        return came

    def _large(
        self,
        endpoint: Endpoint,
        zone: str,
        digest: Digest,
        check: Check,
        progress: Callable[[int], None] = lambda _: None,
    ) -> bool:
        @contextlib.contextmanager
        def sink() -> Iterator[BlobWriter]:
            with self._cas.writer() as writer:
                yield _Counting(writer, progress)

        def asked(backend: Backend) -> bool:
            try:
                return backend.read(digest, sink, check)
            except Fault as fault:
                if fault.trouble is Trouble.BROKEN:
                    endpoint.spoiled.add(digest)
                raise

        came = endpoint.read(zone, asked, otherwise=False)
        self._tally.count(read=digest.size if came else 0)
        return came


class _Counting:
    """A blob in the making of which is told how much there is."""

    def __init__(self, writer: BlobWriter, progress: Callable[[int], None]) -> None:
        self._writer = writer
        self._progress = progress

    def write(self, data: bytes | memoryview) -> int:
        """Take the next bytes."""
        self._progress(len(data))
        return self._writer.write(data)

    def commit(self, expected_sha256: str | None = None) -> Digest:
        """Put the blob into the store."""
        return self._writer.commit(expected_sha256)


def _distrust(verdict: Verdict | None) -> str:
    """Say why a result is not believed; empty where it is."""
    match verdict:
        case Unsigned():
            return "not signed"
        case WrongSignature(reason=reason):
            return reason
        case _:
            return ""


def _checked(came: Incoming, fixed: str | None) -> Incoming:
    """Give of a fixed-output action's result what proves itself: not what it says, nor the kind of its file."""
    if fixed is None:
        return came
    if not (isinstance(came.output, File) and came.output.digest.hash == fixed and not came.output.executable):
        raise ValueError("another output than the one that there can be")
    said = came.result._replace(stdout_raw=b"", stderr_raw=b"", stdout_digest=None, stderr_digest=None)
    return came._replace(stdout=b"", stderr=b"", result=said)
