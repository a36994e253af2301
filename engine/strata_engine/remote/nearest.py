"""The results of a label that remotes are known to have had, and of these the nearest to one that they do not have.

What others have noted is believed for an explanation alone: a key by what is there to explain it, and nothing else of
it by anybody.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from strata_engine.blobs import BlobLost
from strata_engine.codec import decode_action, decode_command
from strata_engine.digest import Digest
from strata_engine.remote.backend import Check
from strata_engine.remote.endpoint import Endpoint
from strata_engine.remote.explaining import Explanations
from strata_engine.remote.notes import recents_at
from strata_engine.remote.recent import Recent, recent_action
from strata_engine.staleness import Reason
from strata_engine.tree import Reader


class Candidate(NamedTuple):
    """A result that was sent."""

    recent: Recent
    origin: str
    """Where it was sent to, as a person may see it."""
    zone: str


class Nearest(NamedTuple):
    """A candidate, and all that differs from it."""

    candidate: Candidate
    reasons: tuple[Reason, ...]


Compare = Callable[[Digest], Iterable[Reason]]
"""Lists what differs from another key. Raises `BlobLost`, ValueError where that cannot be told."""


def candidates(
    endpoints: Sequence[Endpoint], zones: Sequence[str], mnemonic: str, label: str, check: Check
) -> list[Candidate]:
    """List what is noted of a label, in the zones that are read, the newest first. Raises HostError."""
    found: dict[Digest, Candidate] = {}
    action = recent_action(mnemonic, label)
    for endpoint in endpoints:
        for zone in zones:
            for recent in _noted_in(endpoint, zone, action, check):
                found.setdefault(recent.key, Candidate(recent, endpoint.shown, zone))
    return sorted(found.values(), key=lambda each: each.recent.at, reverse=True)


def _noted_in(endpoint: Endpoint, zone: str, action: bytes, check: Check) -> tuple[Recent, ...]:
    address, nothing = endpoint.address_of(action, zone), tuple[Recent, ...]()
    return endpoint.read(zone, lambda backend: recents_at(backend, address, check), nothing)


def nearest(known: Iterable[Candidate], explanations: Explanations, compare: Compare) -> Nearest | None:
    """Give the candidate from which the least differs, of several the first; None where none can be explained."""
    best: Nearest | None = None
    for candidate in known:
        explanations.keep(candidate.recent.blobs)
        try:
            _check(explanations, candidate.recent.key)
            reasons = tuple(compare(candidate.recent.key))
        except (BlobLost, ValueError, RecursionError):
            # An Action that is not there, or one that somebody has made up.
            continue
        if best is None or len(reasons) < len(best.reasons):
            best = Nearest(candidate, reasons)
    return best


def _check(reader: Reader, key: Digest) -> None:
    """Raise ValueError where a key is of no Action of ours: those alone can be compared."""
    command = decode_command(reader.get(decode_action(reader.get(key)).command_digest))
    if len(command.arguments) == 4 and not isinstance(json.loads(command.arguments[3]), dict):
        raise ValueError("parameters without names")
