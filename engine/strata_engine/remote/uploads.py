"""Sends the results of a build to its remotes, off the critical path, and leaves to others what it does not send.

::

    offer ──> waiting ──thread──> spool ──sent──> (gone)
                                    └── not sent by the end: a detached process, or the next build

A thread of its own sends one result after the other to one remote, each blob once: results have most blobs from those
that they were made of. What it has not begun is in the spool as soon as the thread comes to it, and at the end at the
latest; so a build that is killed forgets no more than what waited for the thread.
"""

from __future__ import annotations

import contextlib
import queue
import sysconfig
import threading
import time
from collections.abc import Callable, Sequence

from strata_engine.action_cache import ActionCache, artifact_of
from strata_engine.blobs import BlobLost
from strata_engine.cas import Cas
from strata_engine.codec import ActionResult, decode_action, decode_command
from strata_engine.digest import Digest
from strata_engine.errors import Diagnostic, StrataError
from strata_engine.remote.backend import Backend
from strata_engine.remote.endpoint import Endpoint
from strata_engine.remote.explaining import blobs_of
from strata_engine.remote.found import FROM_REMOTE
from strata_engine.remote.notes import Noted, Notes
from strata_engine.remote.recent import Recent
from strata_engine.remote.sends import Private, Sent, send
from strata_engine.remote.signing import SigningKey, sign
from strata_engine.remote.spool import About, Entry, Spool
from strata_engine.remote.tally import Tally
from strata_engine.tree import Artifact, Tree


class Stopped(Exception):  # noqa: N818 - no error: what is not sent waits
    """Raised where sending is to end."""


class Uploads:
    """What one build sends to one remote; for any thread."""

    def __init__(
        self,
        endpoint: Endpoint,
        spool: Spool,
        store: Cas,
        cache: ActionCache,
        zone: str,
        tally: Tally,
        warn: Callable[[Diagnostic], None],
        secrets: Sequence[bytes] = (),
        key: SigningKey | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._spool = spool
        self._store = store
        self._cache = cache
        self._zone = zone
        self._tally = tally
        self._warn = warn
        self._secrets = secrets
        self._key = key
        self._notes = Notes(endpoint)
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._there: set[Digest] = set()
        """Blobs that were seen to be there."""
        self._lock = threading.Lock()
        self._left = 0
        self._failed = 0
        self._idle = threading.Event()
        self._idle.set()
        self._stop = threading.Event()
        self._offered: dict[Digest, bool] = {}
        """What was put into the queue, and whether it was made just now."""
        self.error: StrataError | None = None
        """What a remote that must take results has said instead."""

    def offer(self, key: Digest, size: int, *, made: bool, about: About | None = None) -> None:
        """Have the result of a key sent, where it was not `made` just now only if it is not there.

        It is in the action cache's hands by now.
        """
        self._put(Entry(key, self._zone, size, made, about))

    def resume(self) -> None:
        """Have sent what earlier builds have left."""
        for entry in self._spool.entries():
            self._put(entry)

    @property
    def left(self) -> int:
        """How many results are still to be tried to be sent."""
        return self._left

    @property
    def unsent(self) -> int:
        """How many results are left to the next build as things are."""
        return self._left + self._failed

    def wait(self, seconds: float) -> bool:
        """Wait for all to be sent; tell whether they are."""
        return self._idle.wait(seconds)

    def close(self) -> None:
        """Stop sending; what is left is in the spool afterwards."""
        self._stop.set()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
        with contextlib.suppress(queue.Empty):
            while True:
                entry = self._queue.get_nowait()
                if entry is not None:
                    self._spool.add(entry)

    def _put(self, entry: Entry) -> None:
        with self._lock:
            # What is made although it was to be had before is sent again: it was lost where it had been sent to.
            if self._offered.get(entry.key, False) or (entry.key in self._offered and not entry.made):
                return
            if self._stop.is_set():
                return
            self._offered[entry.key] = entry.made
            self._left += 1
            self._idle.clear()
            self._queue.put(entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="remote-upload", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while (entry := self._queue.get()) is not None:
            self._spool.add(entry)
            if self._stop.is_set():
                continue
            sent = False
            try:
                sent = self._send(entry)
                if self._queue.empty():
                    self._notes.write(self._check)
            except Stopped:
                if not sent:
                    continue
            except StrataError as error:
                if self._endpoint.required:
                    self.error = self.error or error
            except (OSError, ValueError):
                # The store is not what it was: others are sent all the same, and this one may be the next time.
                pass
            if sent:
                self._spool.remove(entry.key)
            with self._lock:
                self._left -= 1
                self._failed += not sent
                if not self._left:
                    self._idle.set()

    def _send(self, entry: Entry) -> bool:
        """Send one result; tell whether it need not be tried again."""
        try:
            action = self._store.get(entry.key)
            is_fixed = is_fixed_output(self._store, action)
            result = self._cache.get(entry.key)
        except (BlobLost, ValueError):
            # Collected meanwhile: nobody can send it any more.
            return True
        if entry.about is not None and entry.about.is_question:
            self._note(entry, None)
            return True
        if result is None or result.worker == FROM_REMOTE:
            return True
        address = self._endpoint.address_of(action, "" if is_fixed else entry.zone)

        def finish(sent: ActionResult) -> ActionResult:
            if self._key is None or is_fixed:
                return sent
            return sign(self._key, entry.key, sent, entry.zone, int(time.time()))

        def use(backend: Backend) -> Sent | None:
            if not entry.made and backend.get_result(address, self._check) is not None:
                return Sent(0, 0)
            return send(
                backend,
                self._store,
                result,
                address,
                self._check,
                there=self._there,
                remembered=self._endpoint,
                secrets=self._secrets,
                finish=finish,
            )

        try:
            sent = self._endpoint.write(entry.zone, use, None)
        except (BlobLost, Private) as error:
            self._tell(error)
            return True
        if sent is None:
            return False
        self._tally.count(sent=1 if sent.blobs or entry.made else 0, written=sent.size)
        if not is_fixed and (sent.blobs or entry.made):
            self._note(entry, artifact_of(result))
        return True

    def _note(self, entry: Entry, output: Artifact | None) -> None:
        """Have it noted that a result was sent, or that something was asked whose answer stays here (`recent`)."""
        about = entry.about
        blobs = blobs_of(self._store, entry.key, about.folders, self._secrets) if about is not None else {}
        if about is None or not blobs:
            return
        made = output.root if isinstance(output, Tree) else output and output.digest
        recent = Recent(
            entry.key, made, int(time.time()), about.revision, sysconfig.get_platform(), tuple(blobs.values())
        )
        self._notes.add(Noted(about.mnemonic, about.label, entry.zone), recent)

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _tell(self, error: Exception) -> None:
        if isinstance(error, Private):
            message = f"a result stays on this machine: {error}"
            self._warn(Diagnostic("result-not-shared", message, severity="warning"))


def is_fixed_output(store: Cas, action: bytes) -> bool:
    """Tell whether an encoded Action is of a fixed-output action: then its result proves itself."""
    command = decode_command(store.get(decode_action(action).command_digest))
    return command.arguments[:1] == ("fixed-output",)
