"""Writes down in a remote which results of a label were sent last, when there is nothing else to send.

Read, changed and written again without a lock: of two who do so at once the last one wins, and an explanation has one
candidate less. Whatever goes wrong with it is nobody's error.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from strata_engine.digest import Digest
from strata_engine.errors import StrataError
from strata_engine.remote.abreast import abreast
from strata_engine.remote.backend import Backend, Check, Fault, Trouble
from strata_engine.remote.endpoint import Endpoint
from strata_engine.remote.recent import Recent, decode_recent, encode_recent, noted_in, recent_action, with_newest

ABREAST = 4
"""Notes that are written at once."""


class Noted(NamedTuple):
    """Whose result was sent, and where to."""

    mnemonic: str
    label: str
    zone: str


class Notes:
    """What is to be noted in one remote; for the thread that sends."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._waiting: dict[Noted, Recent] = {}

    def add(self, noted: Noted, recent: Recent) -> None:
        """Have something noted; of a label what comes last."""
        self._waiting[noted] = recent

    def write(self, check: Check) -> None:
        """Write what waits. Raises what `check` raises, and nothing else."""
        waiting, self._waiting = self._waiting, {}
        with contextlib.suppress(StrataError):
            abreast(waiting.items(), self._write, check, width=ABREAST)

    def _write(self, item: tuple[Noted, Recent], check: Check) -> None:
        noted, recent = item
        address = self._endpoint.address_of(recent_action(noted.mnemonic, noted.label), noted.zone)

        def use(backend: Backend) -> None:
            known = recents_at(backend, address, check)
            if known[:1] and known[0].key == recent.key and recent.output is None:
                # A question that is asked again is no news.
                return
            try:
                backend.put_result(address, encode_recent(with_newest(recent, known)), check)
            except Fault as fault:
                # A server that lets nobody change what is there has taken the result all the same.
                if fault.trouble in {Trouble.UNREACHABLE, Trouble.STALLED}:
                    raise

        self._endpoint.write(noted.zone, use, None)


def recents_at(backend: Backend, address: Digest, check: Check) -> tuple[Recent, ...]:
    """Read a note; nothing where there is none, or something else. Raises Fault."""
    data = backend.get_result(address, check)
    if data is None:
        return ()
    with contextlib.suppress(ValueError):
        text = noted_in(data)
        if isinstance(text, Digest):
            text = backend.read_many([text], check).blobs.get(text, b"")
        return decode_recent(text)
    return ()
